"""The catalog: its facts, its data sets as sources, and the subsets of VTAB-1k."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data import standins
from vitlab.config import parse, to_json
from vitlab.data.catalog import (
    Catalogued,
    Piece,
    data_folder,
    entries,
    entry,
    pieces,
    place_of,
    published_order,
    require,
)
from vitlab.data.layouts.examples import imagenet_synsets
from vitlab.data.open import open_data
from vitlab.data.source import class_indices
from vitlab.errors import DataError

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="no ../shared/data")
VTAB = [name for name in entries() if name.startswith("vtab/")]


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("VITLAB_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def shrink(monkeypatch):
    """Change what the catalog expects of a data set, for a stand-in."""

    def change(name, **changes):
        monkeypatch.setitem(entries(), name, entry(name).model_copy(update=changes))

    return change


# Facts.


@needs_shared
@pytest.mark.parametrize("task", json.loads((SHARED / "meta/vtab_tasks.json").read_text()) if SHARED.exists() else [])
def test_every_task_of_vtab_has_the_published_sizes(task):
    found = entry(f"vtab/{task['task']}")
    expected = {split: task[split] for split in ("train", "val", "trainval", "test")} | task["vtab1k"]
    assert {subset: found.size(subset) for subset in expected} == expected
    assert (found.classes, found.group) == (task["num_classes"], task["group"])
    assert (found.train, found.evals) == ("train800val200", ("test",))


def test_there_are_19_tasks_in_three_groups():
    groups = [entry(name).group for name in VTAB]
    assert [groups.count(group) for group in ("natural", "specialized", "structured")] == [7, 4, 8]


@pytest.mark.parametrize("name", entries())
def test_an_entry_is_whole(name):
    found = entry(name)
    assert bool(found.files) != bool(found.take), "either it can be downloaded, or it is said how to get it"
    assert found.licence and found.homepage.startswith("http") and found.title
    assert not found.names or len(found.names) == found.classes == len(set(found.names))
    assert all(subset in found.subsets for subset in (found.train, *found.evals) if subset)
    for subset, text in found.slices.items():
        assert all(piece.split in found.examples for piece in pieces(text)), subset
        assert found.size(subset)
    for file in found.files:
        assert (file.sha256 is None or len(file.sha256) == 64) and (file.bytes is None) == (file.sha256 is None)


@pytest.mark.parametrize("name", VTAB)
def test_what_is_tuned_on_is_not_tested_on(name):
    found = entry(name)

    def chosen(subset):
        whole = {split: np.zeros(count, bool) for split, count in found.examples.items()}
        for piece in pieces(found.slices[subset]):
            whole[piece.split][piece.start : piece.stop] = True
        return np.concatenate(list(whole.values()))

    parts = {subset: chosen(subset) for subset in found.slices}
    assert {subset: mask.sum() for subset, mask in parts.items()} == {subset: found.size(subset) for subset in parts}
    assert (parts["train800val200"] == parts["train800"] | parts["val200"]).all()
    assert (parts["trainval"] == parts["train"] | parts["val"]).all()
    assert (parts["train800"] <= parts["train"]).all() and (parts["val200"] <= parts["val"]).all()
    for one, other in (("train", "val"), ("trainval", "test"), ("train800val200", "test")):
        assert not (parts[one] & parts[other]).any()


def test_pieces_are_written_as_slices():
    assert pieces("train[:800]+val[10:20]") == [Piece("train", None, 800), Piece("val", 10, 20)]
    assert pieces("test[5:]") == [Piece("test", 5, None)] and pieces("train") == [Piece("train", None, None)]
    for text in ("", "train[", "train[1]", "train[-3:]", "a+", "a b"):
        with pytest.raises(ValueError, match="is no piece of a split"):
            pieces(text)


# The order of TensorFlow Datasets.


def test_the_published_order_is_that_of_tensorflow_datasets():
    """CIFAR-10's first ids there, as its own documentation prints them: train_16399, train_01680, ..."""
    expected = [16399, 1680, 47917, 17307, 27051, 48736, 26263, 1456, 19135, 31598, 12970, 4223]
    assert published_order([str(number) for number in range(50_000)], "train")[:12].tolist() == expected
    assert published_order(["Abyssinian_1.jpg", "pug_9.jpg", "Sphynx_158.jpg"], "train")[0] == 2  # Pets' first there


@given(st.lists(st.text(), unique=True, max_size=50), st.sampled_from(["train", "validation", "test"]))
def test_the_order_is_of_the_names_not_of_the_files(names, salt):
    names = [name for name in names if name.isprintable()]
    ordered = [names[place] for place in published_order(names, salt)]
    assert sorted(ordered) == sorted(names)
    backwards = names[::-1]
    assert [backwards[place] for place in published_order(backwards, salt)] == ordered


def small_cifar100(shrink, root):
    """CIFAR-100 of 1,200 images, cut at 900 instead of 45,000; returns its labels."""
    labels = standins.cifar100(root / "cifar100")
    counts = {"train": 1200, "test": 100}
    shrink("cifar100", examples=counts)
    cuts = {
        name: text.replace("45000", "900").replace("45200", "1100")
        for name, text in entry("vtab/cifar100").slices.items()
    }
    shrink("vtab/cifar100", examples=counts, slices=cuts)
    return labels


def test_the_thousand_images_of_vtab_are_the_first_in_that_order(shrink, root):
    labels = small_cifar100(shrink, root)
    order = published_order([str(number) for number in range(1200)], "train")
    train, val, both = (Catalogued("vtab/cifar100", subset=name) for name in ("train800", "val200", "train800val200"))
    assert train.labels.tolist() == labels[order[:800]].tolist()
    assert val.labels.tolist() == labels[order[900:1100]].tolist()
    assert both.labels.tolist() == [*train.labels, *val.labels]
    assert [both.read(index).key for index in (0, 799, 800)] == [
        f"vtab/cifar100/{order[place]}" for place in (0, 799, 900)
    ]


def test_a_subset_of_several_splits_is_in_order(shrink, root):
    standins.smallnorb(root / "smallnorb", train=810, test=410)
    cuts = {"train": "train[:]", "val": "test[:205]", "trainval": "train[:]+test[:205]", "test": "test[205:]"}
    counts = {"train": 810, "test": 410}
    shrink("vtab/snorb-elev", examples=counts, slices=entry("vtab/snorb-elev").slices | cuts)
    both = Catalogued("vtab/snorb-elev", subset="trainval")
    assert len(both) == 1015
    orders = [published_order([str(place) for place in range(count)], split) for split, count in counts.items()]
    expected = [*(orders[0] % 9), *(orders[1][:205] % 9)]
    assert both.labels.tolist() == expected


# As sources.


def test_a_data_set_is_opened_by_name(shrink, root):
    images, labels = standins.cifar10(root / "cifar10")
    shrink("cifar10", examples={"train": 20, "test": 3})
    opened = open_data("cifar10")
    assert opened.train == Catalogued("cifar10", subset="train") and opened.whole is None
    assert opened.evals == {"test": Catalogued("cifar10", subset="test")}
    assert opened.train.labels.tolist() == labels.tolist() and len(opened.evals["test"]) == 3
    example = opened.train.read(13)
    assert np.array_equal(example.data, images[13]) and (example.label, example.key) == (3, "cifar10/13")


def test_a_data_set_without_an_official_test_split_is_divided(shrink, root):
    standins.class_folders(root / "eurosat/2750", ["Forest", "River"], each=10)
    shrink("eurosat", examples={"train": 20}, classes=2)
    opened = open_data("eurosat", test_fraction=0.2)
    assert (len(opened.train), len(opened.evals["test"]), len(opened.whole)) == (16, 4, 20)
    assert str(opened.evals["test"]) == "eurosat train (test part)"


def test_a_data_set_to_evaluate_on_has_nothing_to_train_on(root):
    (root / "imagenet/val").mkdir(parents=True)
    opened = open_data("imagenet-real")
    assert opened.train is None and list(opened.evals) == ["val"]


def test_a_folder_of_that_name_comes_first(shrink, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    standins.class_folders(tmp_path / "pets", ["cat", "dog"], each=10)
    assert open_data("pets").whole.classes == ("cat", "dog")


def test_what_is_not_here_says_how_to_get_it(root):
    with pytest.raises(DataError) as error:
        open_data("vtab/eurosat")
    assert str(error.value) == (
        f"vtab/eurosat: is not in {root}; run `vitlab data download vtab/eurosat` (90 MiB), "
        "or set VITLAB_DATA to the folder that has it"
    )
    with pytest.raises(
        DataError, match=r"accept its terms at .*; put or link it at .*data/imagenet, or set VITLAB_DATA"
    ):
        open_data("imagenet")
    with pytest.raises(DataError, match="did you mean 'vtab/clevr-count'"):
        open_data("vtab/clevr_count")
    (root / "cifar10").mkdir(parents=True)
    with pytest.raises(DataError, match=r"needs a subset.*tune"):
        len(Catalogued("cifar10"))
    with pytest.raises(DataError, match="has no subset 'val'"):
        len(Catalogued("cifar10", subset="val"))


def test_more_or_fewer_images_than_published_are_an_error_that_says_so(shrink, root):
    standins.cifar10(root / "cifar10")
    with pytest.raises(DataError, match="split 'train' has 20 images, expected 50,000; some files are missing"):
        len(Catalogued("cifar10", subset="train"))
    shrink("cifar10", examples={"train": 20, "test": 3}, classes=11)
    with pytest.raises(DataError, match="split 'train' has 10 classes, expected 11"):
        len(Catalogued("cifar10", subset="train"))


def test_images_of_imagenet21k_are_counted_but_not_compared(root):
    standins.class_folders(root / "imagenet21k", ["n00004475", "n00007846"], each=3)
    assert entry("imagenet21k").size("train") is None
    assert len(Catalogued("imagenet21k", subset="train")) == 6


def test_settings_name_it_and_workers_open_it_again(shrink, root):
    standins.cifar10(root / "cifar10")
    shrink("cifar10", examples={"train": 20, "test": 3})
    source, other = Catalogued("cifar10", subset="train").split(test=0.5, seed=3)
    assert len(source.listing.labels) == 20
    written = to_json(source)
    assert written["type"] == "Catalogued" and written["name"] == "cifar10" and written["path"] == str(root)
    again = parse(Catalogued, written, "here")
    assert again == source != other and hash(again) == hash(source)
    data = pickle.dumps(source)
    assert len(data) < 2000
    for each in (again, pickle.loads(data)):
        assert each.labels.tolist() == source.labels.tolist()
        assert np.array_equal(each.read(2).data, source.read(2).data)


def test_labels_of_several_classes_are_rows(root, shrink):
    for number in range(1, 101):
        standins.picture(root / f"imagenet/val/ILSVRC2012_val_{number:08d}.JPEG", kind="JPEG")
    shrink("imagenet-real", examples={"val": 94})
    source = Catalogued("imagenet-real", subset="val")
    assert source.labels.ndim == 2 and len(source) == 94 and (source.labels[:, 0] >= 0).all()
    assert any(row[1] >= 0 for row in source.labels)


def test_the_archive_of_vtab_is_read_as_it_is(root, shrink):
    sizes = {"train800": 800, "val200": 200, "train800val200": 1000, "test": 711}
    standins.vtab(root, "kitti", sizes, classes=4)
    opened = open_data("vtab/kitti-dist")
    assert len(opened.train) == 1000 and len(opened.evals["test"]) == 711
    assert opened.train.classes == entry("vtab/kitti-dist").names
    assert opened.train.read(5).key == "vtab/kitti-dist/images/train800val200/000005.jpg"
    assert opened.train.labels[:5].tolist() == [0, 1, 2, 3, 0]
    assert place_of("vtab/kitti-dist", root) == root / "vtab-1k/kitti"
    (root / "vtab-1k/kitti/test.txt").write_text("images/test/000000.jpg 0\n")
    with pytest.raises(DataError, match=r"test.txt has 1 images, expected 711"):
        len(Catalogued("vtab/kitti-dist", subset="test"))


def test_where_the_split_cannot_be_reproduced_it_is_said(root, shrink, caplog):
    classes = [f"class{number:02d}" for number in range(34)]
    standins.class_folders(root / "caltech101/101_ObjectCategories", classes, each=31)
    cuts = {"train800val200": "train[:800]+train[800:1000]"}
    small = {"examples": {"train": 1020, "test": 34}, "classes": 34}
    shrink("vtab/caltech101", slices=entry("vtab/caltech101").slices | cuts, **small)
    assert len(Catalogued("vtab/caltech101", subset="train800val200")) == 1000
    assert "not VTAB's" in caplog.text and "vtab/caltech101" in caplog.text
    caplog.clear()
    small_cifar100(shrink, root)
    assert len(Catalogued("vtab/cifar100", subset="train800val200")) == 1000
    assert caplog.text == ""


def test_the_folder_of_data_sets(monkeypatch, tmp_path):
    monkeypatch.setenv("VITLAB_CACHE", str(tmp_path))
    monkeypatch.delenv("VITLAB_DATA")
    assert data_folder() == tmp_path / "data"
    monkeypatch.setenv("VITLAB_DATA", "/mnt/sets")
    assert data_folder() == Path("/mnt/sets")


def test_a_data_set_may_be_a_link(root, tmp_path):
    standins.cifar10(tmp_path / "elsewhere")
    root.mkdir()
    (root / "cifar10").symlink_to(tmp_path / "elsewhere")
    assert require("cifar10", root) == root / "cifar10"


def test_tuning_subsets_are_the_papers():
    names = ("cifar10", "cifar100", "pets", "flowers102", "imagenet")
    sizes = {name: (entry(name).size("tune"), entry(name).size("dev")) for name in names}
    assert sizes == {
        "cifar10": (49_000, 1000),
        "cifar100": (49_000, 1000),
        "pets": (3312, 368),
        "flowers102": (918, 102),
        "imagenet": (1_268_355, 12_812),
    }


def test_imagenets_two_cranes_are_kept_apart():
    """Models of transformers have the same names, "crane" twice."""
    names = tuple(imagenet_synsets().values())
    assert names.count("crane") == 2 and len(set(names)) == 999
    assert class_indices(names, names, "imagenet").tolist() == list(range(1000))
