import json

import pytest
from PIL import Image

from vitlab.data.digits import Digits
from vitlab.errors import DataError
from vitlab.studies.examples import examples_for
from vitlab.studies.recipe import RunSettings
from vitlab.train.config import TrainSettings

DIGITS = {str(digit) for digit in range(10)}


@pytest.fixture
def run(tmp_path):
    def make(evals, name="run"):
        folder = tmp_path / name
        folder.mkdir()
        settings = {
            "recipe": "finetune",
            "model": {"type": "ViT", "image_size": [8, 8], "stem": {"type": "Patches", "patch_size": [4, 4]}},
            "train_data": Digits().model_dump(mode="json"),
            "evals": evals,
            "image_spec": {},
            "train": json.loads(TrainSettings(steps=1).model_dump_json()),
        }
        RunSettings(**settings)  # a run that can be read
        (folder / "config.json").write_text(json.dumps(settings))
        return str(folder)

    return make


@pytest.fixture
def photos(tmp_path):
    for name in ("cat", "dog", "owl"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (9, 9), (40, 80 * number, 99)).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def labels(samples):
    return {sample.label for sample in samples}


def test_examples_are_of_what_the_run_was_evaluated_on(run, photos):
    place = run({"test": {"type": "Folder", "path": str(photos)}})
    assert labels(examples_for([place], "127.0.0.1")) == {"cat", "dog", "owl"}
    assert labels(examples_for([f"{place}/model.safetensors"], "localhost")) == {"cat", "dog", "owl"}


def test_the_first_run_that_has_any_is_taken(run, photos, tmp_path):
    gone = run({"test": {"type": "Folder", "path": str(tmp_path / "gone")}}, "gone")
    there = run({"test": {"type": "Folder", "path": str(photos)}}, "there")
    assert labels(examples_for(["B_16.npz", gone, there], "::1")) == {"cat", "dog", "owl"}


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "box.example"])
def test_a_run_s_images_are_not_shown_to_other_computers_unless_that_is_said(run, photos, host):
    place = run({"test": {"type": "Folder", "path": str(photos)}})
    assert not labels(examples_for([place], host)) & {"cat", "dog", "owl"}
    assert labels(examples_for([place], host, str(photos))) == {"cat", "dog", "owl"}


@pytest.mark.parametrize(
    "evals",
    [
        {},
        {"test": {"type": "InProgram", "description": "images", "examples": 3}},
        {"test": {"type": "Hub", "name": "nobody/nothing"}},
        {"test": {"type": "Shards", "path": "s3://nowhere/nothing"}},
    ],
    ids=["none", "in a program", "hub", "store"],
)
def test_where_a_run_has_nothing_at_hand_examples_are_generated(run, evals):
    assert labels(examples_for([run(evals)], "127.0.0.1")) & DIGITS


def test_a_damaged_run_keeps_nobody_from_examples(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xff{")
    assert labels(examples_for([str(tmp_path), "nothing"], "127.0.0.1")) & DIGITS


def test_data_that_is_not_there_is_an_error():
    with pytest.raises(DataError, match="no such file"):
        examples_for([], "127.0.0.1", "nothing-there")
