import io

import numpy as np
import pytest
from PIL import Image

from tests.data.test_folder import fill
from vitlab.data.check import check
from vitlab.data.folder import Folder
from vitlab.data.survey import Spread, count_classes, survey
from vitlab.errors import DataError


def jpeg(width, height, mode="RGB", orientation=1):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, "JPEG", exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("workers", [0, 2])
def test_sizes_formats_and_balance_come_from_the_headers(make_source, workers):
    images = [
        jpeg(40, 20),
        jpeg(10, 30, orientation=6),
        jpeg(20, 20, "L"),
        b"not an image",
        np.zeros((2, 3, 3), np.uint8),
    ]
    seen = []
    split, digests = survey(make_source(images=images, labels=[0, 0, 0, 1, 0]), workers, lambda: seen.append(1))
    assert split.counts == {"ant": 4, "bee": 1, "cat": 0} and split.imbalance == 4 and len(seen) == 5
    assert split.near_empty == {"cat": 0, "bee": 1, "ant": 4} and list(split.near_empty) == ["cat", "bee", "ant"]
    assert split.sizes["width"] == Spread(3, 25, 40) and split.sizes["height"] == Spread(2, 15, 20)
    assert split.sizes["aspect_ratio"] == Spread(1, 1.75, 3)
    assert split.sizes["bytes"].max == max(len(image) for image in images[:3])
    assert split.total_bytes == sum(len(image) for image in images[:4]) + 18
    assert split.formats == {"JPEG": 3, "pixels": 1}
    assert (split.images, split.grey, split.turned, split.unknown) == (5, 2, 1, 1)
    assert split.unknown_keys == ["image-3"] and digests.any(axis=1).all()


def test_files_that_cannot_be_read_are_named_and_where_no_header_is_known_there_are_no_sizes(tmp_path):
    source = Folder(fill(tmp_path, "a/1.png", "b/1.png", "b/x.txt"))
    assert len(source) == 2
    for name in ("a", "b"):
        (tmp_path / name / "1.png").unlink()
    split, digests = survey(source, 0, lambda: None)
    assert split.sizes is None and split.unknown_keys == ["a/1.png", "b/1.png"] and not digests.any()
    assert split.left_out == {"b/x.txt": "not an image by its suffix"}


def test_an_example_of_several_classes_counts_for_each():
    labels = np.array([[0, 2], [2, -1], [-1, -1]])
    assert count_classes(labels, ("a", "b", "c")) == {"a": 1, "b": 0, "c": 2}


def test_two_classes_of_one_name_are_counted_apart(make_source):
    source = make_source(7, labels=[0, 1, 1, 2, 3, 3, 3], classes=("crane", "crane", "crane (2)", "crane"))
    split, _ = survey(source, 0, lambda: None)
    assert split.counts == {"crane": 1, "crane (3)": 2, "crane (2)": 1, "crane (4)": 3}


@pytest.mark.parametrize("labels", [[0, 3], [0, 1 << 40], [-1, 0]])
def test_a_label_that_is_no_class_is_refused_before_anything_is_read(make_source, labels):
    source = make_source(2, labels=labels)
    for look in (lambda: survey(source, 0, lambda: None), lambda: check({"": source})):
        with pytest.raises(DataError, match="of 3 classes: it is damaged"):
            look()
