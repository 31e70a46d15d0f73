import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from vitlab.config import parse, to_json
from vitlab.data.folder import Folder, find_splits
from vitlab.data.image import decode
from vitlab.data.source import Part, class_indices
from vitlab.errors import DataError, ImageError, SettingsError


def fill(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(path, "PNG")
    return root


def keys(folder: Folder) -> list[str]:
    return [folder.read(index).key for index in range(len(folder))]


@pytest.fixture
def photos(tmp_path):
    names = [f"{name}/{index}.png" for name in ("cat", "dog") for index in range(10)]
    return fill(tmp_path / "photos", *names)


def test_the_first_level_folder_is_the_class_in_sorted_order(tmp_path):
    root = fill(tmp_path, "b/2.png", "b/10.png", "B/x.png", "a/deep/er/1.png", "a/0.png")
    folder = Folder(root)
    assert folder.classes == ("B", "a", "b")
    assert keys(folder) == ["B/x.png", "a/0.png", "a/deep/er/1.png", "b/10.png", "b/2.png"]
    assert folder.labels.dtype == np.int64 and folder.labels.tolist() == [0, 1, 1, 2, 2]
    assert [folder.read(index).label for index in range(5)] == [0, 1, 1, 2, 2]
    assert folder.read(3).data == (root / "b/10.png").read_bytes()


def test_settings_by_position_by_keyword_and_from_json_are_the_same(photos):
    folder = Folder(str(photos) + "/", subset=None)
    assert (
        folder
        == Folder(path=photos)
        == parse(Folder, {"path": str(photos)}, "x")
        == parse(Folder, to_json(folder), "x")
    )
    assert len({folder, Folder(path=photos)}) == 1
    assert len(folder) == 20
    assert folder == Folder(photos) and repr(folder) == repr(Folder(photos))  # listed or not
    assert set(to_json(folder)) == {"type", "path", "subset", "part"}
    assert str(folder) == str(photos)
    assert str(Folder(photos, subset="train")) == f"{photos}/train"
    with pytest.raises(ValidationError):
        Folder()
    with pytest.raises(SettingsError, match="did you mean 'subset'"):
        parse(Folder, {"path": "x", "subst": "train"}, "x")


def test_a_folder_can_be_made_before_it_exists(tmp_path):
    folder = Folder(tmp_path / "later")
    fill(tmp_path / "later", "a/1.png", "b/1.png")
    assert len(folder) == 2


def test_a_split_has_every_example_on_one_side(photos):
    whole = Folder(photos)
    train, test = whole.split(test=0.2, seed=3)
    assert len(train) == 16 and len(test) == 4
    assert sorted(keys(train) + keys(test)) == keys(whole)
    assert train.classes == test.classes == whole.classes
    assert np.bincount(test.labels).tolist() == [2, 2]
    assert str(test) == f"{photos} (test 20%)"
    again = parse(Folder, to_json(test), "x")
    assert again == test and keys(again) == keys(test)
    assert keys(whole.split(test=0.2, seed=4)[1]) != keys(test)
    assert keys(test.model_copy(update={"part": None})) == keys(whole)
    fit, dev = train.split(test=0.25, seed=1)
    assert sorted(keys(fit) + keys(dev)) == keys(train) and str(dev) == f"{photos} (test 25% of train 80%)"
    with pytest.raises(SettingsError, match="fraction"):
        whole.split(test=1.0)


@given(
    st.lists(st.integers(0, 5), min_size=0, max_size=200),
    st.floats(0.001, 0.999),
    st.integers(0, 2**31),
)
def test_a_stratified_split_is_a_partition_with_both_sides_of_every_class(labels, fraction, seed):
    array = np.array(labels, np.int64)
    train = Part(side="train", fraction=fraction, seed=seed).indices(array)
    test = Part(side="test", fraction=fraction, seed=seed).indices(array)
    assert sorted([*train, *test]) == list(range(len(labels)))
    assert train.tolist() == sorted(train) and test.tolist() == sorted(test)
    for label in set(labels):
        count = labels.count(label)
        held_back = int((array[test] == label).sum())
        assert held_back == 0 if count == 1 else 1 <= held_back < count
        assert abs(held_back - count * fraction) <= 1


def test_a_listing_travels_to_workers_in_a_pickle(photos):
    train, _ = Folder(photos).split(test=0.1)
    copy = pickle.loads(pickle.dumps(train))
    fill(photos, "aardvark/1.png")
    assert copy == train and keys(copy) == keys(train) and copy.classes == ("cat", "dog")


def test_subsets_are_found_by_their_usual_names(tmp_path):
    fill(tmp_path, "Train/a/1.png", "Train/b/1.png", "valid/b/1.png", "eval/a/1.png", "other/x.png")
    assert find_splits(tmp_path) == {"train": "Train", "val": "valid", "test": "eval"}
    assert Folder(tmp_path, subset="train").classes == ("a", "b")
    assert keys(Folder(tmp_path, subset="val")) == ["valid/b/1.png"]
    assert Folder(tmp_path, subset="valid").classes == ("b",)
    with pytest.raises(DataError, match=r"no sub-folder 'tset'.*did you mean 'test'"):
        len(Folder(tmp_path, subset="tset"))
    fill(tmp_path, "val/a/1.png")
    with pytest.raises(DataError, match="2 val splits"):
        find_splits(tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, "bus/1.png", "train/1.png")
    assert find_splits(tmp_path) == {}
    assert Folder(tmp_path).classes == ("bus", "train")


def test_splits_are_never_taken_for_classes(tmp_path):
    fill(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/1.png")
    with pytest.raises(DataError, match="holds ready splits"):
        len(Folder(tmp_path))


def test_a_split_to_evaluate_on_may_lack_classes_but_not_images(tmp_path):
    fill(tmp_path, "val/b/1.png")
    (tmp_path / "val" / "c").mkdir()
    (tmp_path / "test" / "c").mkdir(parents=True)
    assert Folder(tmp_path, subset="val").classes == ("b", "c")
    with pytest.raises(DataError, match="no images"):
        len(Folder(tmp_path, subset="test"))


def test_what_is_wrong_with_a_folder_is_said_by_name(tmp_path):
    cases = {
        "missing": ([], "does not exist"),
        "file": (["file"], "cannot be listed"),
        "empty": (["empty/a/.keep", "empty/b/1.png"], "1 classes without images: 'a'"),
        "one": (["one/a/1.png"], "only one class, 'a'"),
        "flat": (["flat/1.png", "flat/2.png"], "2 images but no class folders"),
        "other": (["other/a/notes.txt", "other/b/1.png"], "classes without images: 'a'"),
    }
    for name, (files, message) in cases.items():
        fill(tmp_path, *files)
        with pytest.raises(DataError, match=message) as error:
            len(Folder(tmp_path / name))
        assert str(tmp_path / name) in str(error.value) and error.value.remedy and "\n" not in str(error.value)


def test_what_is_left_out_is_counted_with_its_reason(tmp_path):
    root = fill(tmp_path, "a/1.PNG", "a/noextension", "a/img.0001", "a/x.heic", "a/notes.txt", "b/1.png", "README")
    fill(root, "b/.DS_Store", "b/._1.png", "b/Thumbs.db", "b/desktop.ini", "__MACOSX/c/1.png", ".git/c/1.png")
    folder = Folder(root)
    assert folder.classes == ("a", "b")
    assert keys(folder) == ["a/1.PNG", "a/img.0001", "a/noextension", "a/x.heic", "b/1.png"]
    assert folder.listing.ignored["a/notes.txt"] == "not an image by its suffix"
    assert len(folder.listing.ignored) == 8


def test_links_are_followed_but_not_in_circles(tmp_path):
    root = fill(tmp_path / "root", "a/1.png", "b/1.png", "b/deep/2.png")
    fill(tmp_path / "elsewhere", "3.png")
    (root / "a/out").symlink_to(tmp_path / "elsewhere")
    (root / "a/up").symlink_to("../..")
    (root / "b/deep/again").symlink_to("..")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    folder = Folder(root)
    assert keys(folder) == ["a/1.png", "a/out/3.png", "b/1.png", "b/deep/2.png", "c/3.png"]
    assert set(folder.listing.ignored) == {"a/up", "b/deep/again"}
    (root / "a/self.png").symlink_to("self.png")
    with pytest.raises(DataError, match=r"self\.png: is a link that leads nowhere"):
        len(Folder(root))


def test_a_file_that_vanished_is_named(photos):
    folder = Folder(photos)
    assert len(folder) == 20
    (photos / "cat/3.png").unlink()
    with pytest.raises(ImageError, match=r"photos/cat/3\.png: cannot be read \(No such file"):
        folder.read(3)
    os.mkfifo(photos / "cat/3.png")
    with pytest.raises(ImageError, match=r"cat/3\.png: is no regular file"):
        folder.read(3)
    with pytest.raises(IndexError):
        folder.read(20)


READ = {  # classes, number of images, what is ignored
    "unicode_names": ("a b", 13, []),
    "class_only_in_val/train": ("a b c", 3, []),
    "class_only_in_val/val": ("a c", 2, []),
    "case_clash": ("001 01 1 Cat cat", 5, []),
    "nested_leaf": ("cats dogs", 4, []),
    "files_in_root": ("a b", 2, ["loose.jpg"]),
    "symlink_loop": ("a b", 2, ["a/loop"]),
    "dir_named_jpg": ("a b", 2, []),
    "fifo": ("a b", 2, ["a/2.jpg"]),
    "hidden": ("a b", 2, [".ipynb_checkpoints", "__MACOSX", "a/.DS_Store", "a/._1.jpg", "a/Thumbs.db"]),
    "dup_labels": ("a b", 3, []),
    "leak/train": ("a b", 2, []),
}
REFUSED = {
    "empty_class": "'b'",
    "dangling": "a/2.jpg: is a link",
    "one_class": "only one class, 'a'",
    "nothing": "no images",
}


@pytest.mark.parametrize("name", READ)
def test_odd_layouts_are_read_whole(layouts, name):
    classes, count, ignored = READ[name]
    folder = Folder(layouts / name)
    assert folder.classes == tuple(classes.split())
    assert len(folder) == count and sorted(folder.listing.ignored) == ignored
    for index in range(count):
        example = folder.read(index)
        assert decode(example.data, example.key).shape == (48, 64, 3)
        assert example.key.isprintable()
        example.key.encode()


@pytest.mark.parametrize("name", REFUSED)
def test_odd_layouts_are_refused_by_name(layouts, name):
    with pytest.raises(DataError, match=REFUSED[name]):
        len(Folder(layouts / name))


def test_classes_of_another_split_are_mapped_by_name(layouts):
    train, val = (Folder(layouts / "class_only_in_val", subset=name) for name in ("train", "val"))
    assert class_indices(val.classes, train.classes, str(val))[val.labels].tolist() == [0, 2]
    train, val = (Folder(layouts / "extra_class_in_val", subset=name) for name in ("train", "val"))
    with pytest.raises(DataError, match="'b'"):
        class_indices(val.classes, train.classes, str(val))


def test_a_file_without_permission_is_named(layouts, unprivileged):
    with unprivileged(layouts), pytest.raises(ImageError, match=r"a/2\.jpg: cannot be read \(Permission denied\)"):
        keys(Folder("no_permission"))


def test_a_folder_without_permission_is_named(tmp_path, unprivileged):
    root = fill(tmp_path / "photos", "a/1.png", "b/deep/1.png")
    (root / "b/deep").chmod(0)
    with unprivileged(root), pytest.raises(DataError, match=r"b/deep: cannot be listed \(Permission denied\)"):
        len(Folder("."))


def test_images_beside_the_class_folders_are_left_out_by_name(tmp_path):
    root = fill(tmp_path, "a/1.png", "b/1.png", "x.jpg", "\U0001f600\n.png")
    reason = "an image in no class folder"
    assert Folder(root).listing.ignored == {"x.jpg": reason, "\U0001f600\\n.png": reason}
    assert keys(Folder(root)) == ["a/1.png", "b/1.png"]


def test_names_with_line_breaks_emoji_and_bytes_that_are_no_text(tmp_path):
    root = fill(tmp_path, "new\nline/a\r\n.png", "\U0001f431/\u202egnp.png", "\U0001f431/\u200b.png")
    bad = os.path.join(os.fsencode(root), b"\xff\xfe", b"\xc3.png")
    os.mkdir(os.path.dirname(bad))
    with open(bad, "wb") as file:
        file.write((root / "new\nline/a\r\n.png").read_bytes())
    folder = Folder(root)
    assert folder.classes == ("new\\nline", "\\udcff\\udcfe", "\U0001f431")
    assert all(name.isprintable() for name in (*folder.classes, *keys(folder)))
    assert len(set(keys(folder))) == 4 and [folder.key(index) for index in range(4)] == keys(folder)


def test_class_folders_that_would_be_written_alike_are_refused(tmp_path):
    root = fill(tmp_path, "tab\t/1.png", "tab\\t/1.png", "b/1.png")
    with pytest.raises(DataError, match=r"two class folders that are written 'tab\\t'; rename one"):
        len(Folder(root))


def test_links_that_lead_from_one_class_into_another_and_back(tmp_path):
    root = fill(tmp_path / "root", "a/1.png", "b/2.png", "c/deep/3.png")
    (root / "a/to-b").symlink_to("../b")
    (root / "b/to-a").symlink_to("../a")
    (root / "a/to-deep").symlink_to("../c/deep")
    folder = Folder(root)
    assert keys(folder) == ["a/1.png", "b/2.png", "c/deep/3.png"]
    assert folder.listing.ignored == dict.fromkeys(["a/to-b", "a/to-deep", "b/to-a"], "a link into another class")


def test_every_link_that_leads_nowhere_is_named_at_once(tmp_path):
    root = fill(tmp_path, "a/1.png", "b/1.png")
    (root / "a/x.png").symlink_to("gone")
    (root / "b/y").symlink_to("z")
    (root / "b/z").symlink_to("y")
    with pytest.raises(
        DataError, match=r"a/x.png: is a link that leads nowhere, and so are 2 others: b/y, b/z; repair"
    ):
        len(Folder(root))
