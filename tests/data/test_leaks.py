import os
import shutil

import numpy as np
import pytest
from PIL import Image

from vitlab.data import leaks
from vitlab.data.digits import Digits
from vitlab.data.folder import Folder
from vitlab.data.leaks import leak_warning
from vitlab.data.table import Table


@pytest.fixture
def photos(tmp_path):
    """Six images of one size in bytes in two classes."""
    for number, name in enumerate(["cat", "cat", "cat", "dog", "dog", "dog"]):
        path = tmp_path / "photos" / name / f"{number}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), 9 * number, np.uint8)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def held_out(tmp_path):
    """Two other images of that size."""
    for number, name in enumerate(["cat", "dog"]):
        path = tmp_path / "held" / name / f"new{number}.bmp"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((4, 4, 3), 100 + number, np.uint8)).save(path)
    return tmp_path / "held"


def test_other_images_are_no_leak(photos, held_out):
    assert leak_warning(Folder(photos), Folder(held_out)) is None


def test_the_same_data_by_another_path_is_one_leak(photos, tmp_path):
    (tmp_path / "link").symlink_to(photos)
    line = leak_warning(Folder(photos), Folder(tmp_path / "link"))
    assert line is not None and line.startswith("6 of 6 images") and "(the same data)" in line and "\n" not in line
    assert "1,797 of 1,797" in (leak_warning(Digits(), Digits()) or "")
    train, test = Folder(photos).split(0.3, 0)
    assert leak_warning(train, test) is None
    assert f"{len(test)} of {len(test)} images" in (leak_warning(Folder(photos), test) or "")


@pytest.mark.parametrize("small", [True, False])
def test_a_file_of_the_training_data_is_found_by_any_path_however_many_there_are(photos, held_out, monkeypatch, small):
    monkeypatch.setattr(leaks, "SMALL", 100 if small else 0)
    (held_out / "dog" / "linked.bmp").symlink_to(os.path.relpath(photos / "dog" / "4.bmp", held_out / "dog"))
    (held_out / "gone.csv").write_text("")
    line = leak_warning(Folder(photos), Folder(held_out)) or ""
    assert "1 of 3 images" in line and "(dog/linked.bmp)" in line
    table = photos.parent / "some.csv"
    table.write_text("path,label\nphotos/cat/0.bmp,cat\nheld/dog/new1.bmp,dog\nnone.bmp,dog\n")
    assert "1 of 3 images" in (leak_warning(Folder(photos), Table(table)) or "")


def test_a_copy_is_found_in_small_sets(photos, held_out, monkeypatch):
    shutil.copy(photos / "cat" / "1.bmp", held_out / "dog" / "copy.bmp")
    for name in ("a.jpg", "b.jpg"):
        (photos / "cat" / name).write_bytes(b"")
    (held_out / "cat" / "empty.jpg").write_bytes(b"")
    line = leak_warning(Folder(photos), Folder(held_out)) or ""
    assert "1 of 4 images" in line and "(dog/copy.bmp)" in line
    monkeypatch.setattr(leaks, "SMALL", 3)
    assert leak_warning(Folder(photos), Folder(held_out)) is None


def test_only_files_of_one_size_are_read(photos, held_out, monkeypatch):
    for path in held_out.rglob("*.bmp"):
        path.write_bytes(path.read_bytes() + b"more")
    monkeypatch.setattr(leaks, "read_file", lambda path: pytest.fail(f"{path} is read"))
    assert leak_warning(Folder(photos), Folder(held_out)) is None
