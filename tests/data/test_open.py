from pathlib import Path

import pytest
from PIL import Image

from vitlab.data.digits import Digits
from vitlab.data.folder import Folder
from vitlab.data.open import open_data
from vitlab.data.source import Part
from vitlab.data.table import Table
from vitlab.errors import DataError


def fill(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(path, "PNG")
    return root


def classes(folder: str, count: int = 10) -> list[str]:
    return [f"{folder}{name}/{index}.png" for name in ("a", "b") for index in range(count)]


def test_ready_splits_are_used_as_they_are(tmp_path):
    fill(tmp_path, *classes("train/"), *classes("valid/", 2), *classes("test/", 1))
    opened = open_data(str(tmp_path))
    assert opened.train == Folder(tmp_path, subset="train")
    assert opened.evals == {"val": Folder(tmp_path, subset="valid"), "test": Folder(tmp_path, subset="test")}
    assert opened.whole is None


def test_without_them_a_stratified_test_split_is_made(tmp_path):
    fill(tmp_path, *classes(""))
    opened = open_data(str(tmp_path), test_fraction=0.2, seed=5)
    part = Part(side="test", fraction=0.2, seed=5)
    assert opened.evals == {"test": Folder(tmp_path, part=part)}
    assert opened.train == Folder(tmp_path, part=part.model_copy(update={"side": "train"}))
    assert opened.whole == Folder(tmp_path)
    assert [len(data) for data in (opened.train, opened.evals["test"], opened.whole)] == [16, 4, 20]


def test_a_lone_training_split_is_divided(tmp_path):
    fill(tmp_path, *classes("train/"), "test/unlabelled.png")
    opened = open_data(str(tmp_path))
    assert opened.whole == Folder(tmp_path, subset="train")
    assert len(opened.train) == 18 and len(opened.evals["test"]) == 2


def test_a_set_to_evaluate_on_has_nothing_to_train_on(tmp_path):
    fill(tmp_path, *classes("val/"))
    opened = open_data(str(tmp_path))
    assert opened.train is None and opened.evals == {"val": Folder(tmp_path, subset="val")}


def test_tables_are_told_by_their_files(tmp_path):
    fill(tmp_path, *classes(""))
    lines = [f"{name},{name[0]}" for name in classes("")]
    path = tmp_path / "metadata.csv"
    path.write_text("\n".join(["file_name,label", *lines]))
    for name in (path, tmp_path):
        opened = open_data(str(name))
        assert opened.whole == Table(name) and len(opened.train) == 18
    (tmp_path / "train").mkdir()
    path.rename(tmp_path / "train/metadata.csv")
    assert open_data(str(tmp_path)).whole == Table(tmp_path, subset="train")


def test_embedded_data_sets_go_by_name(tmp_path):
    opened = open_data("digits", test_fraction=0.2, seed=1)
    assert opened.whole == Digits()
    assert len(opened.train) + len(opened.evals["test"]) == len(Digits())
    with pytest.raises(DataError, match="digits"):
        open_data("dgits")


@pytest.mark.parametrize("name", ["nowhere", "notes.txt", "empty"])
def test_what_is_no_data_set_is_refused_by_name(tmp_path, name):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=name) as error:
        open_data(str(tmp_path / name))
    assert error.value.remedy
