import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vitlab.data import native
from vitlab.data.image import decode, open_image
from vitlab.data.jpeg import Jpeg
from vitlab.data.limits import Limits
from vitlab.data.resize import Box, resize
from vitlab.errors import ImageError, VitlabError

REDUCTIONS = (1, 2, 4, 8)


@pytest.fixture(params=["compiled", "Pillow"])
def engine(request, monkeypatch):
    """Either way of decoding: with the compiled library, and as where there was no compiler."""
    if request.param == "Pillow":
        monkeypatch.setattr(native, "_library", lambda: None)
    elif not native.available():
        pytest.skip("vitlab was installed without a C compiler")
    return request.param


def photo(width: int = 117, height: int = 83, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (height // 8 + 2, width // 8 + 2, 3), np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()


def turned(image: Image.Image, orientation: int) -> bytes:
    """Store `image` as a camera does that was held in another way."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    tags = Image.Exif()
    tags[0x0112] = orientation
    return jpeg(image.transpose(undo[orientation]), exif=tags.tobytes(), subsampling=0, quality=100)


def opened(data: bytes) -> Jpeg:
    picture = open_image(data, "photo.jpg")
    assert isinstance(picture, Jpeg)
    return picture


def by_pillow(data: bytes, reduce: int) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    if reduce > 1:
        image.draft(image.mode, (image.width // reduce, image.height // reduce))
    return np.asarray(image.convert("RGB"))


KINDS = {
    "4:2:0": {"subsampling": 2},
    "4:2:2": {"subsampling": 1},
    "4:4:4": {"subsampling": 0},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "RGB": {"keep_rgb": True},
}
FILES = {name: jpeg(photo(), **options) for name, options in KINDS.items()}
FILES["grey"] = jpeg(photo().convert("L"))
FILES["CMYK"] = jpeg(photo().convert("CMYK"))
SIZE = (83, 117)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.sampled_from(REDUCTIONS), st.data())
def test_any_part_at_any_scale_has_the_pixels_of_the_whole_picture(kind, reduce, data):
    whole = by_pillow(FILES[kind], reduce)
    top, bottom = sorted(data.draw(st.lists(st.integers(0, len(whole)), min_size=2, max_size=2, unique=True)))
    left, right = sorted(data.draw(st.lists(st.integers(0, whole.shape[1]), min_size=2, max_size=2, unique=True)))
    part = opened(FILES[kind]).part((left, top, right, bottom), reduce)
    np.testing.assert_array_equal(part, whole[top:bottom, left:right])


@pytest.mark.parametrize("kind", sorted(FILES))
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_either_engine_gives_the_pixels_of_pillow(kind, reduce, engine):
    whole = by_pillow(FILES[kind], reduce)
    picture = opened(FILES[kind])
    assert picture.reduced(reduce) == whole.shape[:2]
    np.testing.assert_array_equal(picture.part(None, reduce), whole)
    np.testing.assert_array_equal(picture.part((3, 2, 9, 8), reduce), whole[2:8, 3:9])


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_part_of_a_turned_picture_is_that_part_of_it_upright(orientation, engine):
    picture = opened(turned(photo(), orientation))
    assert picture.shape == (*SIZE, 3)
    whole = picture.part()
    assert np.abs(whole.astype(int) - np.asarray(photo())).mean() < 2  # upright, but for what a JPEG loses
    np.testing.assert_array_equal(picture.part((20, 11, 90, 64)), whole[11:64, 20:90])


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("reduce", [2, 4, 8])
def test_a_reduced_turned_picture_is_seen_through_the_same_box(orientation, reduce):
    """Its partial pixels come first where a side is reversed: a box that forgets it is off by up to 7 pixels."""
    ramp = np.stack(np.meshgrid(np.arange(449) / 2, np.arange(457) / 2), -1)[:, :, [0, 1, 0]].astype(np.uint8)
    box = Box(17.0, 9.0, 17.0 + 2 * reduce * 24, 9.0 + 2 * reduce * 24)
    view = resize(opened(turned(Image.fromarray(ramp), orientation)), 24, 24, "bilinear", box, sooner=True)
    exact = resize(ramp, 24, 24, "bilinear", box)
    assert (
        np.abs((view.astype(int) - exact).mean(axis=(0, 1))).max() < {2: 0.3, 4: 0.5, 8: 1.0}[reduce]
    )  # a level is 2 pixels


def test_what_is_damaged_below_a_part_does_not_matter_to_it_and_what_is_inside_does(engine):
    data = jpeg(photo(320, 240), quality=95)
    cut = data[: len(data) // 2]
    np.testing.assert_array_equal(opened(data).part((0, 0, 320, 60)), by_pillow(data, 1)[:60])
    if engine == "compiled":
        np.testing.assert_array_equal(opened(cut).part((0, 0, 320, 60)), by_pillow(data, 1)[:60])
    with pytest.raises(ImageError, match=r"photo\.jpg: JPEG file is truncated or damaged"):
        opened(cut).part((0, 0, 320, 240))


@pytest.mark.skipif(not native.available(), reason="vitlab was installed without a C compiler")
def test_the_compiled_decoder_sees_damage_that_libjpeg_only_warns_of():
    """Codes find their way back after damage, so a few pictures are whole in number though not in content."""
    whole, seen = jpeg(photo(320, 240), quality=95), 0
    for seed in range(100):
        rng, data = np.random.default_rng(seed), bytearray(whole)
        start = int(rng.integers(len(data) // 4, len(data) - 700))
        for place in range(start, start + 600, 7):
            data[place] = (data[place] ^ int(rng.integers(1, 255))) & 0xFE  # no new marker
        try:
            decode(bytes(data), "x")
        except ImageError as error:
            seen += "damaged" in str(error)
    assert seen >= 95


def test_stray_bytes_before_the_end_of_a_whole_picture_do_not_lose_it(engine):
    data = jpeg(photo())
    np.testing.assert_array_equal(decode(data[:-2] + b"\0\0\0" + data[-2:], "x"), by_pillow(data, 1))
    np.testing.assert_array_equal(decode(data[:-2], "x"), by_pillow(data, 1))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "CMYK", "I;16"])
def test_pil_compat_is_what_pillow_alone_makes_of_a_file(mode):
    image = photo().convert(mode) if mode != "I;16" else Image.fromarray(np.arange(64, dtype=np.uint16)[None] * 900)
    if mode == "RGBA":
        image.putalpha(90)
    file = io.BytesIO()
    tags = Image.Exif()
    tags[0x0112] = 6
    image.save(file, "JPEG" if mode == "CMYK" else "PNG", exif=tags.tobytes())
    data = file.getvalue()
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode(data, "x", decoding="pil-compat"), expected)
    assert decode(data, "x").shape != expected.shape  # upright


def test_pil_compat_refuses_what_is_damaged_too():
    with pytest.raises(ImageError):
        decode(FILES["4:2:0"][:900], "x", decoding="pil-compat")


def test_what_is_appended_behind_a_progressive_picture_is_no_scan_of_it():
    """A phone appends a film, which is full of bytes that look like scans."""
    film = np.random.default_rng(0).integers(0, 256, 1 << 21, np.uint8).tobytes()
    data = FILES["progressive"]
    assert film.count(b"\xff\xda") > 20
    np.testing.assert_array_equal(decode(data + film, "x", Limits(max_scans=20)), by_pillow(data, 1))
    with pytest.raises(ImageError, match="more than 5 scans"):
        decode(data, "x", Limits(max_scans=5))


def test_want_of_memory_is_not_the_images_fault(engine, monkeypatch):
    def short(*_, **__):
        raise MemoryError

    monkeypatch.setattr(native, "region", short)
    monkeypatch.setattr(Jpeg, "_by_pillow", short)
    with pytest.raises(VitlabError, match=r"x: needs more memory than there is.*--workers") as error:
        decode(FILES["4:2:0"], "x")
    assert not isinstance(error.value, ImageError)  # those may be skipped


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pil_compat_refuses_what_has_no_black_and_white(mode):
    file = io.BytesIO()
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32)[None]).convert(mode).save(file, "TIFF")
    for decoding in ("standard", "pil-compat"):
        with pytest.raises(ImageError, match="which values are black and white"):
            decode(file.getvalue(), "x", decoding=decoding)


def test_an_avif_is_told_by_any_of_its_brands():
    file = io.BytesIO()
    photo().save(file, "AVIF")
    data = file.getvalue()
    other = data.replace(b"ftypavif", b"ftypmif1", 1)
    assert other != data and b"avif" in other[:40]
    np.testing.assert_array_equal(decode(other, "x"), decode(data, "x"))
