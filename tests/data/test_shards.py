import json
import os
import pickle
import shutil
import tracemalloc

import numpy as np
import pytest

from tests.data.packed import draw, packed, png
from vitlab.config import parse, to_json
from vitlab.data import store
from vitlab.data.folder import Folder
from vitlab.data.index import INDEX, LABEL, MANIFEST, PLACE, Manifest
from vitlab.data.open import open_data
from vitlab.data.order import examples_at
from vitlab.data.pack import pack
from vitlab.data.shards import Shards, find_splits
from vitlab.data.source import Source
from vitlab.data.tar import Packed, pack_example
from vitlab.errors import DataError, ImageError, SettingsError, VitlabError


def change(path, **fields):
    """Rewrite fields of a manifest."""
    path = path / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def place(folder, index, **fields):
    """Rewrite where the index says an example is."""
    places = np.memmap(folder / INDEX, PLACE, "r+", shape=(18,))
    for name, value in fields.items():
        places[name][index] = value
    places.flush()


def test_a_pack_holds_what_the_folder_held(tmp_path):
    path, shards = packed(tmp_path)
    folder = Folder(path)
    assert isinstance(shards, Source)
    assert len(list((tmp_path / "packed").glob("shard-*.tar"))) > 2
    assert shards.classes == folder.classes and len(shards) == len(folder) == 18
    assert shards.labels.tolist() == folder.labels.tolist() and shards.labels.dtype == np.int64
    assert str(shards) == str(tmp_path / "packed")
    for index in (17, 0, 5, 6, *range(18)):
        assert shards.read(index) == folder.read(index)
    for index in (-1, 18):
        with pytest.raises(IndexError, match="packed"):
            shards.read(index)


def test_training_reads_the_same_examples_in_the_same_order(tmp_path):
    path, shards = packed(tmp_path)
    sides = zip(Folder(path).split(0.3, seed=5), shards.split(0.3, seed=5), strict=True)
    for ours, theirs in sides:
        assert ours.labels.tolist() == theirs.labels.tolist() and str(ours)[-6:] == str(theirs)[-6:]
        order = examples_at(np.arange(2 * len(ours)), len(ours), seed=1).tolist()
        assert [ours.read(index) for index in order] == [theirs.read(index) for index in order]
    again = zip(ours.split(0.5), theirs.split(0.5), strict=True)
    assert all(one.labels.tolist() == other.labels.tolist() and len(one) for one, other in again)
    with pytest.raises(SettingsError, match="fraction"):
        shards.split(1.5)


def test_settings_and_pickles_hold_only_settings(tmp_path):
    _, shards = packed(tmp_path)
    side, _ = shards.split(0.5)
    for each in (shards, side):
        each.read(0)
        assert parse(Shards, to_json(each), "x") == each and hash(parse(Shards, to_json(each), "x")) == hash(each)
        again = pickle.loads(pickle.dumps(each))
        assert again == each and "listing" in vars(each) and "listing" not in vars(again)
        assert again.read(3) == each.read(3)
    assert shards != side and len(shards.model_copy(update={"part": side.part})) == len(side)


def test_labels_are_a_map_of_the_file_that_nothing_can_change(tmp_path):
    _, shards = packed(tmp_path)
    assert isinstance(shards.labels, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        shards.labels[0] = 1


def test_opening_costs_the_same_for_a_thousand_million_examples(tmp_path):
    _, small = packed(tmp_path)
    folder, count = tmp_path / "packed", 10**9
    change(folder, examples=count, shards=10**5)
    with (folder / INDEX).open("r+b") as file:  # a sparse file: of the disk it takes almost nothing
        file.truncate(count * (PLACE.itemsize + LABEL.itemsize))
    tracemalloc.start()
    shards = Shards(folder)
    assert len(shards) == count and shards.read(0) == small.read(0)
    assert shards.labels[count // 2] == 0 and shards.labels.shape == (count,)
    with pytest.raises(ImageError, match=r"\(example 999999999\)"):
        shards.read(count - 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_several_labels_an_image(tmp_path):
    several = [(0, 2), (), (1,)]
    runs = [pack_example(Packed(index, label, str(index), png(index))) for index, label in enumerate(several)]
    (tmp_path / "shard-000000.tar").write_bytes(b"".join(runs))
    places = np.zeros(3, PLACE)
    places["size"] = [len(run) for run in runs]
    places["offset"] = np.cumsum(places["size"]) - places["size"]
    labels = np.array([[0, 2], [-1, -1], [1, -1]], LABEL)
    (tmp_path / INDEX).write_bytes(places.tobytes() + labels.tobytes())
    zeros = "0" * 64
    fields = {"classes": ["a", "b", "c"], "examples": 3, "shards": 1, "most_labels": 2}
    manifest = Manifest(**fields, index_sha256=zeros, sums_sha256=zeros)
    (tmp_path / MANIFEST).write_text(json.dumps(to_json(manifest)))
    shards = Shards(tmp_path)
    assert shards.labels.tolist() == labels.tolist()
    assert [shards.listing.read(index).label for index in range(3)] == several


def test_ready_splits(tmp_path):
    for split, count in (("train", 4), ("valid", 2)):
        draw(tmp_path / "source" / split, count)
    packs = pack(str(tmp_path / "source"), tmp_path / "packed")
    assert {split: len(each) for split, each in packs.items()} == {"train": 12, "val": 6}
    assert find_splits(str(tmp_path / "packed")) == {"train": "train", "val": "val"}
    name = str(tmp_path / "packed")
    opened = open_data(name)
    assert opened.train == Shards(name, subset="train") and opened.evals == {"val": Shards(name, subset="val")}
    assert opened.train.read(3) == Folder(tmp_path / "source", subset="train").read(3)
    assert str(opened.train) == f"{name}/train"
    (tmp_path / "packed/val").rename(tmp_path / "packed/dev")
    assert len(Shards(name, subset="val")) == len(Shards(name, subset="dev")) == 6
    with pytest.raises(DataError, match=r"holds ready splits: train, val; choose one"):
        len(Shards(name))
    with pytest.raises(DataError, match=r"has no subset 'trian'; did you mean 'train'"):
        len(Shards(name, subset="trian"))


def test_a_pack_without_ready_splits_is_divided_like_any_data_set(tmp_path):
    _, shards = packed(tmp_path)
    opened = open_data(str(shards), test_fraction=0.5)
    assert opened.whole == shards and len(opened.train) == len(opened.evals["test"]) == 9


def damaged(tmp_path, spoil):
    """Return the pack of `packed` after `spoil` was done to its folder."""
    folder = tmp_path / "packed"
    packed(tmp_path)
    spoil(folder)
    return Shards(folder)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda at: (at / "shard-000001.tar").unlink(), ["shard-000001.tar (example", "is missing"]),
        (
            lambda at: (at / "shard-000001.tar").write_bytes((at / "shard-000001.tar").read_bytes()[:3000]),
            ["shard-000001.tar (example", "is cut short", "bytes at"],
        ),
        (
            lambda at: (at / "shard-000001.tar").write_bytes((at / "shard-000000.tar").read_bytes()),
            ["shard-000001.tar (example", "where the index says", "two packs"],
        ),
        (lambda at: place(at, 5, size=4 << 20), ["shard-00000", "(example 5)", "is cut short"]),
        (lambda at: place(at, 5, size=0xFFFFFFFF), [INDEX, "4,294,967,295 bytes"]),
        (lambda at: place(at, 5, shard=77), [INDEX, "example 5", "shard 77"]),
        (lambda at: place(at, 5, offset=1 << 63), ["(example 5)", "cut short"]),
        (lambda at: place(at, 5, offset=100), ["(example 5)", "no tar header"]),
        (lambda at: change(at, classes=["ant"]), ["(example 6)", "label 1 of 1 classes"]),
    ],
)
def test_damage_is_found_on_reading_and_names_shard_and_example(tmp_path, spoil, words):
    shards = damaged(tmp_path, spoil)
    errors = []
    for index in range(18):
        try:
            shards.read(index)
        except ImageError as error:
            errors.append(error)
    assert errors and errors[0].remedy
    assert [word for word in words if word not in str(errors[0])] == [], errors[0]
    assert str(tmp_path) in errors[0].where


def test_the_labels_of_another_pack_are_found_on_reading(tmp_path):
    def spoil(folder):
        np.memmap(folder / INDEX, LABEL, "r+", 18 * PLACE.itemsize, (18,))[3] = 2

    with pytest.raises(ImageError, match=r"holds example 3, label 0, where the index says example 3, label 2"):
        damaged(tmp_path, spoil).read(3)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda at: (at / MANIFEST).unlink(), ["is no pack", "vitlab data pack"]),
        (shutil.rmtree, ["does not exist"]),
        (lambda at: (at / MANIFEST).write_text("{"), [MANIFEST, "is not JSON"]),
        (lambda at: (at / MANIFEST).write_text("[" * 100_000), [MANIFEST, "is not JSON"]),
        (lambda at: (at / MANIFEST).write_text("[]"), [MANIFEST, "no JSON object"]),
        (lambda at: change(at, version=2), [MANIFEST, "'version'"]),
        (lambda at: change(at, shardz=2), [MANIFEST, "shardz", "did you mean 'shards'"]),
        (lambda at: change(at, examples=10**15), [MANIFEST, "'examples'"]),
        (lambda at: change(at, examples=17), [INDEX, "432 bytes where shards.json says 408"]),
        (lambda at: (at / INDEX).unlink(), [INDEX, "is missing"]),
        (lambda at: (at / INDEX).write_bytes(b"short"), [INDEX, "has 5 bytes"]),
    ],
)
def test_a_pack_that_is_not_whole_is_refused_at_opening(tmp_path, spoil, words):
    with pytest.raises(VitlabError) as error:
        len(damaged(tmp_path, spoil))
    assert error.value.exit_code == 2
    assert [word for word in words if word not in str(error.value)] == [], error.value


def test_more_shards_are_read_than_files_are_kept_open(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "OPEN_FILES", 2)
    _, shards = packed(tmp_path)
    keys = [shards.read(index).key for index in [*range(18)] * 2]
    assert len(set(keys)) == 18 and len(shards.listing._store._handles) == 2


def test_a_fork_and_its_parent_read_the_same_open_files(tmp_path):
    _, shards = packed(tmp_path)
    wanted = [shards.read(index) for index in range(18)]
    child = os.fork()
    found = [shards.read(index) for _ in range(100) for index in range(18)]
    if child == 0:
        os._exit(0 if found == wanted * 100 else 1)
    assert found == wanted * 100
    assert os.waitpid(child, 0)[1] == 0
