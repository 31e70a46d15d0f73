"""Every odd folder layout through the command line: what its manifest promises is what a person gets."""

import json

import pytest

from tests.end_to_end.conftest import TINY
from vitlab.cli import main
from vitlab.data.folder import Folder
from vitlab.data.source import class_indices

NOTED = {  # what finetune notes, and then does
    "case_clash": ["'001', '01', '1' differ only by case, zero padding", "'Cat', 'cat' differ only by case"],
    "nested_leaf": [
        "sub-folders of the same name in several classes: black, white; a class is a folder of the first level"
    ],
    "files_in_root": ["left out 1: an image in no class folder (1)"],
    "symlink_loop": ["left out 1: a link to a folder that is read already or that holds it (1)"],
    "fifo": ["left out 1: no regular file (1)"],
    "hidden": ["left out 5: hidden or a system file (5)"],
}
READ = ("unicode_names", "class_only_in_val", "dir_named_jpg", "dup_labels", "leak")
REFUSED = {
    "extra_class_in_val": ["extra_class_in_val/val", "'b'"],
    "empty_class": ["empty_class", "'b'", "fill or remove"],
    "dangling": ["dangling/a/2.jpg: is a link that leads nowhere; repair or remove it"],
    "one_class": ["only one class, 'a'", "nothing to learn"],
    "nothing": ["nothing: holds no images", "JPEG, PNG"],
}


@pytest.fixture
def finetune(within, layouts):
    def run(name):
        return within("finetune", layouts / name, "--out", "out", "--steps", 1, *TINY)

    return run


@pytest.fixture
def described(within, layouts):
    def run(name):
        done = within("data", "describe", layouts / name, "--json")
        assert done.code == 0, done.err
        return json.loads(done.out)

    return run


def test_every_layout_is_tested(layouts):
    cases = json.loads((layouts.parent / "manifest.json").read_text())["fs"]
    assert {case["id"] for case in cases} == {*NOTED, *READ, *REFUSED, "no_permission"} and len(cases) == 17


@pytest.mark.parametrize("name", NOTED)
def test_what_is_odd_is_noted_before_it_is_trained_on(finetune, caplog, name):
    done = finetune(name)
    assert done.code == 0, done.err
    notes = [note for note in caplog.messages if "none is held back" not in note]
    assert len(notes) == len(NOTED[name])
    assert all(words in note and "\n" not in note for words, note in zip(NOTED[name], notes, strict=True))


@pytest.mark.parametrize("name", [*NOTED, *READ])
def test_what_can_be_read_is_good_in_a_check(within, layouts, name):
    done = within("data", "check", layouts / name, "--workers", 0)
    assert done.code == 0 and done.out.endswith(" good, 0 bad\n")


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_by_name(finetune, name):
    done = finetune(name)
    assert done.code == 2
    assert [word for word in REFUSED[name] if word not in done.error] == [] and len(done.error.splitlines()) == 1


def test_a_file_that_may_not_be_read_is_named(layouts, unprivileged, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["vitlab", "data", "check", "no_permission"])
    monkeypatch.chdir(layouts)
    assert main._run() in (0, 1)  # as whoever runs the tests, so that everything is imported
    capsys.readouterr()
    with unprivileged(layouts):
        assert main._run() == 1
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("no_permission/a/2.jpg: cannot be read (Permission denied); restore")
    assert last == "no_permission: 3 images, 2 good, 1 bad"


def test_odd_names_are_all_there_and_each_takes_one_line(within, layouts, described):
    assert described("unicode_names")["splits"]["all"]["images"] == 13
    done = within("data", "check", layouts / "unicode_names")
    *_, last = done.out.splitlines()
    assert last.endswith("13 images, 13 good, 0 bad")
    assert all(line.isprintable() for line in done.out.splitlines())


def test_a_class_that_is_missing_in_val_shifts_no_label(described, layouts):
    found = described("class_only_in_val")
    assert found["splits"]["val"]["counts"] == {"a": 1, "c": 1} and found["untrained"] == {}
    train, val = (Folder(layouts / "class_only_in_val", subset=name) for name in ("train", "val"))
    assert class_indices(val.classes, train.classes, "val")[val.labels].tolist() == [0, 2]


def test_a_class_in_val_alone_is_described(described):
    assert described("extra_class_in_val")["untrained"] == {"val": ["b"]}


def test_twins_and_shared_sub_folders_are_described(described):
    found = described("case_clash")
    assert list(found["splits"]["all"]["counts"]) == ["001", "01", "1", "Cat", "cat"]
    assert found["twins"] == [["001", "01", "1"], ["Cat", "cat"]]
    assert described("nested_leaf")["shared_subfolders"] == {"all": ["black", "white"]}


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("files_in_root", ["loose.jpg"]),
        ("symlink_loop", ["a/loop"]),
        ("fifo", ["a/2.jpg"]),
        ("hidden", [".ipynb_checkpoints", "__MACOSX", "a/.DS_Store", "a/._1.jpg", "a/Thumbs.db"]),
        ("dir_named_jpg", []),
    ],
)
def test_what_is_left_out_is_named_and_counted(described, name, left_out):
    split = described(name)["splits"]["all"]
    assert sorted(split["left_out"]) == left_out and split["counts"] == {"a": 1, "b": 1}


@pytest.mark.parametrize("verb", ["check", "describe"])
def test_label_conflicts_and_leaks_are_reported(within, layouts, verb):
    conflict = within("data", verb, layouts / "dup_labels")
    assert conflict.code == 0
    assert "warning: the same image with different labels: 1 time\n  a/1.jpg = b/1.jpg (a, b)" in conflict.out
    assert "more than one split" not in conflict.out
    leak = within("data", verb, layouts / "leak")
    assert "warning: the same image in more than one split: 1 time\n  train/a/1.jpg = val/a/x.jpg (a)" in leak.out
    assert "different labels" not in leak.out
