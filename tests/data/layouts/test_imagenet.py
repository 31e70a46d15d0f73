"""ImageNet, its reassessed labels and ObjectNet, from tiny ones in the originals' layouts and from the tables in the package."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.data import standins
from vitlab.data.catalog import entry
from vitlab.data.layouts import imagenet
from vitlab.data.layouts.examples import imagenet_synsets, packaged_lines
from vitlab.errors import DataError

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="no ../shared/data")


def opened(name, root, split="train"):
    found = entry(name)
    return found.layout.open(root, split, found.names)


def val_name(number):
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def test_the_tables_in_the_package_are_whole():
    synsets = list(imagenet_synsets())
    assert len(synsets) == 1000 and synsets == sorted(synsets) and synsets[0] == "n01440764"
    assert len(packaged_lines("imagenet21k.txt.gz")) == 21843
    labels = np.array(packaged_lines("imagenet_val.txt.gz"), int)
    assert np.bincount(labels).tolist() == [50] * 1000
    real = json.loads("".join(packaged_lines("imagenet_real.json.gz")))
    assert len(real) == 50_000 and sum(not row for row in real) == 3163 and sum(map(len, real)) == 57_553
    right = [label in row for label, row in zip(labels.tolist(), real, strict=True) if row]
    assert round(100 * sum(right) / len(right), 2) == 90.02  # what the authors report of the original labels


@needs_shared
def test_the_tables_are_those_of_the_originals():
    for each in csv.DictReader((SHARED / "photos/imagenette/val_labels.csv").read_text().splitlines()):
        number = int(each["file"].rpartition("_")[2].removesuffix(".JPEG")) - 1
        assert packaged_lines("imagenet_val.txt.gz")[number] == each["imagenet_index"]
    assert json.loads("".join(packaged_lines("imagenet_real.json.gz"))) == json.loads(
        (SHARED / "meta/imagenet_real.json").read_text()
    )


@needs_shared
def test_real_photos_are_found_by_their_numbers(tmp_path):
    (tmp_path / "val").symlink_to(SHARED / "photos/imagenette/val")
    original, real = opened("imagenet", tmp_path, "val"), opened("imagenet-real", tmp_path, "val")
    assert (len(original.labels), len(real.labels)) == (500, 475)
    labels = dict(zip(original.names, original.labels.tolist(), strict=True))
    right = [labels[name] in row for name, row in zip(real.names, real.labels.tolist(), strict=True)]
    assert sum(right) == 431


@pytest.mark.parametrize("folders", [False, True])
def test_validation_images_need_no_development_kit(tmp_path, folders):
    for number in (3, 1, 2):
        standins.picture(tmp_path / "val" / ("n01440764" if folders else "") / val_name(number), number, kind="JPEG")
    val = opened("imagenet", tmp_path, "val")
    assert list(val.names) == [val_name(number) for number in (1, 2, 3)]
    assert [list(imagenet_synsets())[label] for label in val.labels] == ["n01751748", "n09193705", "n02105855"]
    assert val.fetch(2).startswith(b"\xff\xd8") and val.classes[0] == "tench, Tinca tinca"


def test_training_images_are_numbered_by_their_synset_even_where_some_are_missing(tmp_path):
    standins.class_folders(tmp_path / "train", ["n01443537", "n15075141"], each=2, form="{name}_{number}.JPEG")
    train = opened("imagenet", tmp_path)
    assert train.labels.tolist() == [1, 1, 999, 999] and len(train.classes) == 1000
    assert train.names[0] == "n01443537_0.JPEG"
    standins.class_folders(tmp_path / "train", ["cats"], each=1)
    with pytest.raises(DataError, match="'cats' is none of ImageNet's synsets"):
        opened("imagenet", tmp_path)


def test_reassessed_labels_are_several_or_none(tmp_path):
    real = json.loads("".join(packaged_lines("imagenet_real.json.gz")))
    chosen = {next(number for number, row in enumerate(real, 1) if len(row) == count) for count in (0, 1, 3)}
    for number in chosen:
        standins.picture(tmp_path / "val" / val_name(number), kind="JPEG")
    val = opened("imagenet-real", tmp_path, "val")
    assert val.labels.shape == (2, max(map(len, real))) and val.labels.dtype == np.int64
    for name, row in zip(val.names, val.labels.tolist(), strict=True):
        expected = real[int(name[15:23]) - 1]
        assert row == expected + [-1] * (len(row) - len(expected)) and expected


@pytest.mark.parametrize("name", ["cat.JPEG", "ILSVRC2012_val_00050001.JPEG", "ILSVRC2012_val_00000000.JPEG"])
def test_an_image_that_is_not_imagenets_is_named(tmp_path, name):
    standins.picture(tmp_path / "val" / name, kind="JPEG")
    with pytest.raises(DataError, match=f"{name}: is no ImageNet validation image"):
        opened("imagenet", tmp_path, "val")


def test_an_image_that_is_there_twice_is_named(tmp_path):
    for folder in ("", "n01440764"):
        standins.picture(tmp_path / "val" / folder / val_name(3), kind="JPEG")
    with pytest.raises(DataError, match=f"{val_name(3)}: is there again as .*{val_name(3)}; remove one"):
        opened("imagenet", tmp_path, "val")


def test_what_is_missing_is_known_by_name(tmp_path):
    real = json.loads("".join(packaged_lines("imagenet_real.json.gz")))
    for number in (1, 3):
        standins.picture(tmp_path / "val" / val_name(number), kind="JPEG")
    for name, unlabelled in (("imagenet", 0), ("imagenet-real", 3163)):
        val = opened(name, tmp_path, "val")
        assert len(val.labels) + len(val.missing) == 50_000 - unlabelled
        assert set(val.missing).isdisjoint(val.names) and (val_name(2) in val.missing) == bool(
            real[1] or not unlabelled
        )


LABELS = {"Alarm clock": [409, 530], "Backpack": [414], "Banana": [954]}


def objectnet(root):
    return imagenet.ObjectNet(groups=3, classes_matched=4).open(root, "test", ())


def test_objectnet_images_are_labelled_with_the_imagenet_classes_that_match(tmp_path):
    standins.objectnet(tmp_path, LABELS)
    test = objectnet(tmp_path)
    assert list(test.names) == ["alarm_clock/a.png", "backpack/a.png", "banana/a.png"]
    assert test.labels.tolist() == [[409, 530], [414, -1], [954, -1]] and len(test.classes) == 1000


def test_the_red_border_of_objectnet_is_cut_off(tmp_path):
    standins.objectnet(tmp_path, LABELS)
    image = objectnet(tmp_path).fetch(2)
    assert image.shape == (2, 3, 3) and (image == 2).all()


def test_objectnet_with_other_mappings_than_published_is_refused(tmp_path):
    standins.objectnet(tmp_path, LABELS | {"Bench": [703]})
    with pytest.raises(DataError, match="match 4 folders with 5 ImageNet classes; expected 3 and 4"):
        objectnet(tmp_path)
    mappings = tmp_path / "objectnet-1.0/mappings"
    (mappings / "objectnet_to_imagenet_1k.json").write_text('{"Banana": "no such fruit"}')
    with pytest.raises(DataError, match="does not say what 'Banana' is"):
        objectnet(tmp_path)
    for name in ("folder_to_objectnet_label.json", "pytorch_to_imagenet_2012_id.json"):
        for text in ("[]", '{"1": ["a", "list"]}'):
            (mappings / name).write_text(text)
            with pytest.raises(DataError, match=f"{name}: is no mapping in JSON"):
                objectnet(tmp_path)
        (mappings / name).write_text('{"no number": 3}')
    with pytest.raises(DataError, match="'no number' where a number belongs"):
        objectnet(tmp_path)


@needs_shared
def test_objectnets_published_mapping_is_as_large_as_the_catalog_says():
    mapping = json.loads((SHARED / "meta/imagenet1k_to_objectnet.json").read_text())
    layout = entry("objectnet").layout
    assert (len(set(mapping.values())), len(mapping)) == (layout.groups, layout.classes_matched)
