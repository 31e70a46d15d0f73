import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import vitlab.data.resize as module
from vitlab.data import native
from vitlab.data.resize import Box, resize

ROOT = Path(__file__).resolve().parents[2]
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
compiled = pytest.mark.skipif(not native.available(), reason="vitlab was installed without a C compiler")


def noise(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)


@st.composite
def cases(draw):
    rows, columns = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    edges = [sorted(draw(st.lists(st.floats(0, side, width=32), min_size=2, max_size=2))) for side in (columns, rows)]
    whole = draw(st.booleans()) or any(high - low < 0.01 for low, high in edges)
    box = Box(0.0, 0.0, columns, rows) if whole else Box(edges[0][0], edges[1][0], edges[0][1], edges[1][1])
    return noise(rows, columns), draw(st.integers(1, 90)), draw(st.integers(1, 90)), box


@compiled
@settings(max_examples=200, deadline=None)
@given(cases(), st.sampled_from(sorted(FILTERS)), st.booleans())
def test_the_compiled_resize_is_pillows_to_the_last_bit(case, interpolation, mirrored):
    pixels, height, width, box = case
    image = Image.fromarray(pixels)
    narrow = image.resize((width, image.height), FILTERS[interpolation], box=(box.left, 0, box.right, image.height))
    expected = np.asarray(narrow.resize((width, height), FILTERS[interpolation], box=(0, box.top, width, box.bottom)))
    found = native.resize(pixels, height, width, box, interpolation == "bicubic", mirrored)
    np.testing.assert_array_equal(found, expected[:, ::-1] if mirrored else expected)


@compiled
@settings(max_examples=100, deadline=None)
@given(cases(), st.sampled_from(sorted(FILTERS)), st.booleans())
def test_with_and_without_a_compiler_the_pixels_are_the_same(case, interpolation, mirrored):
    pixels, height, width, box = case
    found = resize(pixels, height, width, interpolation, box, mirrored=mirrored)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "_library", lambda: None)
        again = resize(pixels, height, width, interpolation, box, mirrored=mirrored)
    np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize("interpolation", sorted(FILTERS))
def test_a_box_shows_the_pixels_that_resizing_the_whole_and_cutting_would(interpolation):
    """Also at its borders: what lies around the box takes part."""
    pixels = noise(60, 80)
    whole = resize(pixels, 30, 40, interpolation)
    cut = resize(pixels, 10, 20, interpolation, Box(20.0, 10.0, 60.0, 30.0))
    np.testing.assert_array_equal(cut, whole[5:15, 10:30])


def test_the_same_size_is_the_same_image():
    pixels = noise(9, 7)
    np.testing.assert_array_equal(resize(pixels, 9, 7, "bicubic"), pixels)
    np.testing.assert_array_equal(resize(pixels, 9, 7, "bicubic", mirrored=True), pixels[:, ::-1])
    np.testing.assert_array_equal(resize(pixels, 4, 3, "bicubic", Box(2.0, 1.0, 5.0, 5.0)), pixels[1:5, 2:5])


@pytest.mark.parametrize(("rows", "columns"), [(1, 5000), (5000, 1)])
def test_a_thread_of_an_image_costs_no_more_than_its_pixels(rows, columns):
    assert resize(noise(rows, columns), 224, 224, "bicubic").shape == (224, 224, 3)


def test_two_pixels_are_left_for_each_of_the_targets_where_decoding_is_reduced():
    """8 / 1 of 447 × 2 would leave less."""
    found = [
        module._reduction(Box(0.0, 0.0, side, 8000.0), 224, 224)
        for side in (447.0, 895.0, 896.0, 1792.0, 3583.0, 3584.0)
    ]
    assert found == [1, 1, 2, 4, 4, 8]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_what_is_installed_is_compiled_from_these_sources(tmp_path):
    """With every warning an error, and not older than its sources."""
    folder = ROOT / "src/vitlab/data/native"
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]
    subprocess.run(["cc", *flags, *folder.glob("*.c"), "-o", tmp_path / "x.so", "-lm"], check=True, capture_output=True)
    library = folder / "libvitlab.so"
    assert native.available(), "reinstall: pip install --editable ."
    assert library.stat().st_mtime >= max(path.stat().st_mtime for path in folder.glob("*.c")), "reinstall"


def test_without_the_library_everything_works(tmp_path):
    """In a process of its own, from a copy of the package without the compiled file."""
    shutil.copytree(ROOT / "src/vitlab", tmp_path / "vitlab", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    script = (
        "import io; import numpy as np; from PIL import Image; from vitlab.data import native\n"
        "from vitlab.data.image import open_image; from vitlab.data.preprocess import ImageSpec\n"
        "file = io.BytesIO(); Image.new('RGB', (60, 40), (200, 30, 60)).save(file, 'JPEG')\n"
        "view = ImageSpec(height=8, width=8).prepare(open_image(file.getvalue(), 'x'))\n"
        "print(native.available(), view.shape, np.abs(view.astype(int) - (200, 30, 60)).max() < 4)"
    )
    environment = {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "(8,", "8,", "3)", "True"]
