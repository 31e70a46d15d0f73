"""Data sets of image files: class folders, lists and tables, each from a tiny one in the original's layout."""

import numpy as np
import pytest

from tests.data import standins
from vitlab.data.catalog import entry
from vitlab.data.image import decode
from vitlab.data.layouts.files import ClassFolders, ImageLists
from vitlab.errors import DataError, ImageError


def opened(name, root, split="train"):
    found = entry(name)
    return found.layout.open(root, split, found.names)


def shade(examples, index):
    return int(decode(examples.fetch(index), "image")[0, 0, 0])


def test_pets_are_listed_with_classes_from_1(tmp_path):
    standins.pets(tmp_path)
    train, test = opened("pets", tmp_path), opened("pets", tmp_path, "test")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] and test.labels.tolist() == [0, 1, 2]
    assert train.classes[:2] == ("Abyssinian", "american_bulldog") and len(train.classes) == 37
    assert train.names[4] == "american_bulldog_2.jpg" and shade(train, 4) == 6


def test_textures_have_their_class_in_their_name(tmp_path):
    standins.dtd(tmp_path)
    val = opened("dtd", tmp_path, "val")
    assert val.classes == ("banded", "dotted", "woven") and val.labels.tolist() == [0, 1, 2]
    assert val.names[1] == "dotted/dotted_0001.jpg" and shade(val, 1) == 11


def test_sun397_has_classes_of_several_folders(tmp_path):
    names = ["/a/abbey/sun_a.jpg", "/c/church/indoor/sun_b.jpg", "/c/church/outdoor/sun_c.jpg"]
    for place, name in enumerate(names):
        standins.picture(tmp_path / f"SUN397{name}", place)
    standins.write(tmp_path / "sun397_tfds_tr.txt", "\n".join(names))
    train = opened("sun397", tmp_path)
    assert train.classes == ("/a/abbey", "/c/church/indoor", "/c/church/outdoor")
    assert train.names[2] == "/c/church/outdoor/sun_c.jpg" and shade(train, 2) == 2


def test_retinopathys_second_table_holds_two_splits(tmp_path):
    standins.retinopathy(tmp_path)
    found = {split: opened("retinopathy", tmp_path, split) for split in ("train", "val", "test")}
    assert {split: list(each.names) for split, each in found.items()} == {
        "train": ["10_left", "10_right"],
        "val": ["1_right"],
        "test": ["1_left", "2_left"],
    }
    assert found["test"].labels.tolist() == [1, 3] and found["test"].classes[4] == "proliferative"
    assert shade(found["test"], 1) == 2
    standins.write(tmp_path / "trainLabels.csv", "image,grade\n10_left,0\n")
    with pytest.raises(DataError, match=r"trainLabels.csv: lacks one of the columns image, level"):
        opened("retinopathy", tmp_path)
    standins.write(tmp_path / "trainLabels.csv", "image,level\n10_left,5\n")
    with pytest.raises(DataError, match="none of the 5"):
        opened("retinopathy", tmp_path)
    standins.write(tmp_path / "trainLabels.csv", "image,level\n10_left,1\n10_right\n")
    with pytest.raises(DataError, match=r"trainLabels.csv: is cut short in row 2"):
        opened("retinopathy", tmp_path)
    standins.write(tmp_path / "trainLabels.csv", f"image,level\n{'x' * 140_000},1\n")
    with pytest.raises(DataError, match=r"trainLabels.csv: is damaged .field larger"):
        opened("retinopathy", tmp_path)


def test_eurosat_and_resisc45_are_class_folders(tmp_path):
    standins.class_folders(tmp_path / "2750", ["AnnualCrop", "Forest"])
    standins.class_folders(tmp_path / "NWPU-RESISC45", ["airplane", "beach"], form="{name}_{number:03d}.jpg")
    crops, planes = opened("eurosat", tmp_path), opened("resisc45", tmp_path)
    assert crops.classes == ("AnnualCrop", "Forest") and crops.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert crops.names[3] == "Forest_Forest_0.jpg" and planes.names[0] == "airplane_airplane_000.jpg"
    assert shade(crops, 4) == 11


def test_caltech101_is_divided_by_a_number_of_each_class(tmp_path):
    standins.class_folders(tmp_path / "101_ObjectCategories", ["BACKGROUND_Google", "accordion"], each=40)
    train, test = opened("caltech101", tmp_path), opened("caltech101", tmp_path, "test")
    assert np.bincount(train.labels).tolist() == [30, 30] and np.bincount(test.labels).tolist() == [10, 10]
    assert not set(train.names) & set(test.names)
    assert opened("caltech101", tmp_path).names == train.names


def test_imagenet21k_numbers_the_classes_as_the_released_weights_do(tmp_path):
    standins.class_folders(tmp_path, ["n00004475", "n00007846", "n01440764"], each=1)
    whole = opened("imagenet21k", tmp_path)
    assert len(whole.classes) == 21843 and [whole.classes[label] for label in whole.labels] == [
        "n00004475",
        "n00007846",
        "n01440764",
    ]
    standins.class_folders(tmp_path, ["n99999999"], each=1)
    with pytest.raises(DataError, match="'n99999999' is none of its 21,843 classes"):
        opened("imagenet21k", tmp_path)


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "/etc/passwd", "a/../../b.jpg", "C:\\file.jpg", "a\\..\\b.jpg", "a\x07.jpg"]
)
def test_a_list_cannot_name_files_elsewhere(tmp_path, name):
    standins.write(tmp_path / "list.txt", f"{name} 0\n")
    layout = ImageLists(lists={"train": "list.txt"}, images="{}", label="number")
    if name.startswith("/"):  # SUN397's names begin so; they are taken from inside
        with pytest.raises(ImageError, match=f"{tmp_path}/etc/passwd"):
            layout.open(tmp_path, "train", ()).fetch(0)
        return
    with pytest.raises(DataError, match=r"list.txt: names .* which is no file of this data set"):
        layout.open(tmp_path, "train", ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.jpg\n", "says no class of 'a.jpg'"),
        ("a.jpg x\n", "'x' where a number belongs"),
        ("a.jpg 9223372036854775808\n", "'9223372036854775808' where a number belongs"),
        ("a.jpg 9\n", "none of the 3"),
    ],
)
def test_a_list_without_sense_is_refused(tmp_path, text, words):
    standins.write(tmp_path / "list.txt", text)
    layout = ImageLists(lists={"train": "list.txt"}, images="{}", label="number")
    with pytest.raises(DataError, match=f"list.txt: .*{words}"):
        layout.open(tmp_path, "train", ("a", "b", "c"))
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match=r"list.txt: is not text"):
        layout.open(tmp_path, "train", ("a", "b", "c"))


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="2750: does not exist"):
        opened("eurosat", tmp_path)
    with pytest.raises(DataError, match=r"trainval.txt: is not there"):
        opened("pets", tmp_path)
    layout = ClassFolders(folders={"train": "missing"})
    with pytest.raises(DataError, match="missing: does not exist"):
        layout.open(tmp_path, "train", ())
