"""Labels that are worked out from annotations, as the Visual Task Adaptation Benchmark defines them."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data import standins
from vitlab.data.catalog import entry
from vitlab.data.image import decode
from vitlab.data.layouts.scenes import CLEVR_EDGES, KITTI_EDGES, interval, kitti_splits
from vitlab.errors import DataError


def opened(name, root, split="train"):
    found = entry(name)
    return found.layout.open(root, split, found.names)


def last_edge_below(value, edges):
    """VTAB's rule, written as it stands there: the largest index of those edges that are less than the value."""
    return int(np.max(np.flatnonzero((np.array(edges, np.float32) - np.float32(value)) < 0)))


@given(st.floats(0.0625, 99, width=32))
def test_intervals_are_those_of_the_benchmark(value):
    assert interval(value, CLEVR_EDGES) == last_edge_below(value, CLEVR_EDGES)


@pytest.mark.parametrize("value", [8.0, 8.5, 9.0, 9.5, 10.0, 7.999, 8.001])
def test_an_edge_belongs_to_the_interval_below_it(value):
    assert interval(value, CLEVR_EDGES) == last_edge_below(value, CLEVR_EDGES)
    assert interval(8.0, CLEVR_EDGES) == 0 and interval(10.0, CLEVR_EDGES) == 4 and interval(10.1, CLEVR_EDGES) == 5


@pytest.mark.parametrize(
    ("depth", "label"), [(-3.0, 0), (8.0, 0), (8.1, 1), (20.0, 1), (21.0, 2), (999.0, 2), (1000.0, 3)]
)
def test_kittis_four_classes(depth, label):
    assert interval(depth, KITTI_EDGES) == label == last_edge_below(depth, KITTI_EDGES)


def test_clevr_counts_objects_from_3(tmp_path):
    standins.clevr(tmp_path, train=[[9.0, 8.2, 12.0], [1.0] * 10, [2.0] * 4])
    train = opened("vtab/clevr-count", tmp_path)
    assert train.labels.tolist() == [0, 7, 1] and train.classes[7] == "10 objects"
    assert list(train.names) == [f"CLEVR_train_{number:06d}.png" for number in range(3)]
    assert decode(train.fetch(2), "image")[0, 0, 0] == 2
    assert opened("vtab/clevr-count", tmp_path, "val").labels.tolist() == [0]


def test_clevr_tells_how_near_the_nearest_object_is(tmp_path):
    standins.clevr(tmp_path, train=[[9.0, 8.2, 12.0], [7.9, 20.0, 20.0], [10.5, 11.0, 12.0]])
    train = opened("vtab/clevr-dist", tmp_path)
    assert train.labels.tolist() == [1, 0, 5] and train.classes == entry("vtab/clevr-dist").names


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"scenes": [',
        '{"scenes": [{"objects": []}]}',
        '{"scenes": [{"image_filename": "a.png", "objects": 3}]}',
        '{"scenes": [{"image_filename": "../a.png", "objects": [1, 2, 3]}]}',
        '{"scenes": [{"image_filename": "a.png", "objects": []}]}',
        '{"scenes": [1, 2]}',
        "[" * 100_000,
        '{"scenes": [' + "[" * 100_000,
    ],
)
def test_scenes_without_sense_are_refused(tmp_path, text):
    standins.write(tmp_path / "CLEVR_v1.0/scenes/CLEVR_train_scenes.json", text)
    for task in ("vtab/clevr-count", "vtab/clevr-dist"):
        with pytest.raises(DataError, match=r"CLEVR_train_scenes.json"):
            opened(task, tmp_path)


VEHICLES = [
    *[(f"drive_{video:04d}", [("Car", 5.0), ("Pedestrian", 1.0)]) for video in range(20)],
    ("drive_0020", [("Van", 8.5), ("Truck", 9.0)]),
    ("drive_0020", [("Tram", 3.0), ("Cyclist", 2.0)]),
    ("drive_0021", [("Car", 40.0)]),
]


def test_kitti_tells_how_near_the_nearest_vehicle_is(tmp_path):
    standins.kitti(tmp_path, VEHICLES)
    found = {split: opened("vtab/kitti-dist", tmp_path, split) for split in ("train", "val", "test")}
    labels = {
        name: label for each in found.values() for name, label in zip(each.names, each.labels.tolist(), strict=True)
    }
    assert [labels[f"{number:06d}.png"] for number in (0, 20, 21, 22)] == [0, 1, 3, 2]
    assert len(labels) == len(VEHICLES)
    first = found["train"]
    assert decode(first.fetch(0), "image")[0, 0, 0] == int(first.names[0][:6])


def test_kitti_is_divided_by_whole_videos_as_tensorflow_datasets_does(tmp_path):
    standins.kitti(tmp_path, VEHICLES)
    splits = kitti_splits(tmp_path)
    videos = {split: {VEHICLES[number][0] for number in numbers} for split, numbers in splits.items()}
    assert not (videos["train"] & videos["val"] or videos["train"] & videos["test"] or videos["val"] & videos["test"])
    np.random.seed(123)  # the rule as it stands there
    names = sorted({video for video, _ in VEHICLES})
    test = set(np.random.choice(names, 2, replace=False))
    val = set(np.random.choice(sorted(set(names) - test), 2, replace=False))
    assert videos["test"] == test and videos["val"] == val


def test_kitti_with_a_vehicle_at_no_distance_is_refused(tmp_path):
    standins.kitti(tmp_path, [(video, [("Car", -1e9)]) for video, _ in VEHICLES])
    with pytest.raises(DataError, match=r"label_2/\d{6}.txt: has a vehicle before -100 m"):
        opened("kitti", tmp_path)


def test_kitti_without_its_development_kit_is_named(tmp_path):
    standins.kitti(tmp_path, VEHICLES)
    (tmp_path / "mapping/train_rand.txt").write_text("1,2,99\n")
    with pytest.raises(DataError, match=r"train_rand.txt: names line 99"):
        opened("kitti", tmp_path)
    rows = tmp_path / "mapping/train_mapping.txt"
    rows.write_text("a video\0 0\n")
    (tmp_path / "mapping/train_rand.txt").write_text("1\n")
    with pytest.raises(DataError, match=r"train_rand.txt: names line 1 of train_mapping.txt, which is none"):
        opened("kitti", tmp_path)
    (tmp_path / "mapping/train_rand.txt").unlink()
    with pytest.raises(DataError, match=r"train_rand.txt: is not there"):
        opened("kitti", tmp_path)


def test_flowers_are_divided_by_their_numbers(tmp_path):
    standins.flowers(tmp_path)
    found = {split: opened("flowers102", tmp_path, split) for split in ("train", "val", "test")}
    assert list(found["val"].names) == ["image_00002.jpg", "image_00005.jpg", "image_00008.jpg"]
    assert [each.labels.tolist() for each in found.values()] == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
    assert found["train"].classes[0] == "pink primrose" and len(found["train"].classes) == 102
    assert decode(found["test"].fetch(2), "image")[0, 0, 0] == 9


def test_flowers_with_other_lists_are_refused(tmp_path):
    standins.flowers(tmp_path)
    standins.mat(tmp_path / "setid.mat", trnid=np.array([[1, 10]], np.uint16))
    with pytest.raises(DataError, match=r"setid.mat: names images beyond the 9"):
        opened("flowers102", tmp_path)
    with pytest.raises(DataError, match=r"setid.mat: holds no array 'valid'"):
        opened("flowers102", tmp_path, "val")
    (tmp_path / "imagelabels.mat").unlink()
    with pytest.raises(DataError, match=r"imagelabels.mat: is not there"):
        opened("flowers102", tmp_path)


def test_scenes_are_parsed_one_by_one_however_they_are_written(tmp_path):
    objects = [{"pixel_coords": [0, 0, 9.0]}] * 3
    scenes = [{"image_filename": f"{number}.png", "objects": objects} for number in range(50)]
    for indent in (None, 2):
        text = json.dumps({"info": {"a": [1]}, "scenes": scenes}, indent=indent)
        standins.write(tmp_path / "CLEVR_v1.0/scenes/CLEVR_val_scenes.json", text)
        assert len(opened("clevr", tmp_path, "val").labels) == 50
