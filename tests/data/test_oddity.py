import pytest

from tests.data.test_folder import fill
from vitlab.data.folder import Folder
from vitlab.data.oddity import describe_twins, find_twins, oddities, shared_subfolders
from vitlab.data.source import Subset


@pytest.mark.parametrize(
    "names",
    [
        *(("Cat", "cat", "CAT"), ("1", "01", "001"), ("fold 7", "Fold 007"), ("caf\u00e9", "cafe\u0301")),
        *(("dog", " dog "), ("Straße", "STRASSE"), ("\uff11", "1"), ("0", "00")),
    ],
)
def test_names_that_look_alike_are_twins(names):
    assert find_twins(["other", *names, "another"]) == [names]


@pytest.mark.parametrize(
    "names", [("1", "10", "100"), ("1.5", "1.05"), ("a", "á"), ("a b", "ab"), ("1", "11"), ("", "0")]
)
def test_names_that_differ_are_no_twins(names):
    assert find_twins(names) == []


def test_twins_that_are_written_alike_are_spelled_out():
    assert "'caf\u00e9' (caf\\xe9), 'cafe\u0301' (cafe\\u0301)" in describe_twins(("caf\u00e9", "cafe\u0301"))
    assert "'Cat', 'cat' differ" in describe_twins(("Cat", "cat"))


def test_what_is_odd_about_a_folder_is_said_once_for_both_its_sides(tmp_path):
    root = fill(tmp_path, "Cat/x/1.png", "Cat/2.png", "cat/x/1.png", "cat/2.png", "cat/.DS_Store", "a.png", "b.png")
    train, test = Folder(root).split(0.5)
    assert (
        oddities(train)
        == oddities(Subset(test, [0]))
        == [
            f"{root}: classes 'Cat', 'cat' differ only by case, zero padding, spaces or Unicode form; "
            "each is a class of its own",
            f"{root}: sub-folders of the same name in several classes: x; "
            "a class is a folder of the first level, whatever is below it",
            f"{root}: left out 3: an image in no class folder (2), hidden or a system file (1)",
        ]
    )
    assert len(oddities(train, twins=False)) == 2


def test_there_is_nothing_odd_about_sub_folders_of_one_class(tmp_path):
    root = fill(tmp_path, "train/a/x/1.png", "train/a/y/z/1.png", "train/b/1.png", "val/a/b/1.png", "val/b/a/1.png")
    assert oddities(Folder(root, subset="train")) == []
    assert shared_subfolders(Folder(root, subset="val")) == []
    fill(root, "train/b/c/z/1.png")
    assert shared_subfolders(Folder(root, subset="train")) == ["z"]


def test_any_source_may_have_twins_but_only_folders_have_the_rest(make_source):
    source = make_source(classes=("a", "A", "b"))
    assert len(oddities(source)) == 1 and oddities(source)[0].startswith("memory: classes 'a', 'A'")
    assert oddities(make_source()) == [] and shared_subfolders(source) == []
