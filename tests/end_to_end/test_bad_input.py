"""Whatever is asked wrongly ends in one clear line that names it and what to do, with exit code 2, and nothing is written."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.end_to_end.conftest import TINY, draw, environment, vitlab


def finetune(data, *options):
    return ("finetune", data, "--out", "out", "--steps", 4, *TINY, *options)


def test_a_folder_that_is_not_there(refused):
    refused(
        *finetune("nowhere"), words=["nowhere", "no such file or folder", "give a folder of class folders", "digits"]
    )


def test_a_file_in_the_place_of_a_folder(refused, photos):
    refused(*finetune(photos / "cat" / "0.png"), words=["0.png", "is no table", "give a file (.parquet"])


def test_a_folder_without_anything(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(*finetune("empty"), words=["empty", "holds no images", "make one folder a class"])


def test_a_folder_of_images_without_class_folders(refused, photos):
    refused(*finetune(photos / "cat"), words=["8 images but no class folders", "make one folder a class"])


def test_a_folder_of_one_class(refused, tmp_path):
    draw(tmp_path / "data", 3, ("cat",))
    refused(*finetune("data"), words=["only one class, 'cat'", "give at least two class folders"])


def test_a_class_without_images(refused, tmp_path):
    draw(tmp_path / "data", 3)
    (tmp_path / "data" / "yak").mkdir()
    refused(*finetune("data"), words=["'yak'", "fill or remove"])


def test_images_that_cannot_be_read_are_all_named(refused, rotten):
    folder, bad = rotten
    refused(*finetune(folder), "--batch-size", 24, words=[*bad, "--on-bad-image skip"])


def test_images_that_cannot_be_read_are_all_named_by_evaluate_and_predict(refused, rotten, trained):
    folder, bad = rotten
    refused("evaluate", trained, folder, words=[*bad, "4 of 24", "--on-bad-image skip"])
    refused("predict", trained, folder, words=[*bad, "4 of 24", "--on-bad-image skip"])


def test_a_class_that_the_model_does_not_know(refused, trained, tmp_path):
    draw(tmp_path / "data", 2, ("cat", "dgo", "yak"))
    refused("evaluate", trained, "data", words=["does not know: 'dgo', 'yak'", "did you mean 'dog'?"])
    shutil.copytree(tmp_path / "data", tmp_path / "split" / "val")
    draw(tmp_path / "split" / "train", 2)
    refused(*finetune("split"), words=["split/val", "'dgo', 'yak'"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("finetune", "digits", "--stepz", 3), ["--stepz", "--steps"]),
        (("fintune", "digits"), ["fintune", "finetune"]),
        (("finetune", "digits", "--steps", "many"), ["--steps", "valid integer"]),
        (("finetune", "digits", "--steps", 0), ["--steps", "greater than or equal to 1"]),
        (("finetune", "digits", "--batch-size", 0), ["--batch-size"]),
        (("finetune", "digits", "--seed", -1), ["--seed"]),
        (("finetune", "digits", "--on-bad-image", "ignore"), ["--on-bad-image", "skip"]),
        (("finetune",), ["DATA", "is missing", "give a folder"]),
        (("predict",), ["'model'"]),
    ],
)
def test_options_and_verbs_that_do_not_exist_or_do_not_fit(refused, arguments, words):
    ours = arguments == ("finetune",) or "--batch-size" in arguments  # what the command line itself does not know
    refused(*arguments, words=words if ours else [*words, "vitlab --help"])


def test_no_verb_at_all_shows_the_help_and_no_empty_error(within):
    done = within()
    assert done.code == 2 and "finetune" in done.out + done.err
    assert "error: ;" not in done.err and "Traceback" not in done.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("train.stesp=3", ["no setting 'stesp' in 'train'", "did you mean 'steps'?"]),
        ("nonsense", ["'nonsense' has no '='", "path.to.field=value"]),
        ("train.optimizer=Adma", ["no kind 'Adma'", "did you mean 'Adam'?"]),
        ("train.steps=-1", ["train.steps", "-1", "greater than 0"]),
        ("model.num_heads=3", ["16", "3 heads"]),
        ("model.num_classes=3", ["10 classes", "leave it to the data"]),
        ("model.image_size=32", ["32", "--image-size"]),
        ("train.micro_batch_size=3", ["8", "3"]),
    ],
)
def test_a_setting_that_does_not_exist_or_does_not_fit(refused, change, words):
    refused(*finetune("digits", "--set", change), words=["--set", *words])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--set", "train.objective=MaskedPatches"), ["no use for a head", "pretrain --recipe masked"]),
        (("--epochs", 2), ["--epochs", "--steps", "give one of the two"]),
        (("--epochs", 0), ["--epochs"]),
        (("--lr", 0), ["lr", "greater than 0"]),
        (("--lr", "nan"), ["lr"]),
        (("--device", "nonsense"), ["--device", "'nonsense'", "use auto or cpu"]),
        (("--device", "meta"), ["--device", "'meta'"]),
        (("--image-size", "big"), ["--image-size", "'big' is no size", "write 224, or 384x640"]),
        (("--image-size", "0"), ["--image-size", "'0'"]),
        (("--image-size", "1x2x3"), ["--image-size", "'1x2x3'"]),
        (("--image-size", "3"), ["3×3", "smaller than one patch", "4"]),
        (("--model", "B/32"), ["16×16", "smaller than one patch", "32"]),
        (("--model", "B16"), ["'B16'", "B/16"]),
        (("--model", "Q/16"), ["'Q/16'", "vitlab models"]),
        (("--model", "B/0"), ["B/0"]),
        (("--eval-data", "nowhere"), ["nowhere", "no such file or folder"]),
        (("--weights", "nowhere.npz"), ["nowhere.npz", "No such file", "check the path"]),
        (("--weights", "augreg/B_61"), ["augreg/B_61", "did you mean 'augreg/B_16'?"]),
        (("--weights", "hf://name"), ["hf://name", "write hf://owner/name"]),
        (("--weights", "http://example.invalid/w.npz"), ["http://example.invalid/w.npz", "https://"]),
    ],
)
def test_an_option_that_cannot_be_used(refused, options, words):
    refused(*finetune("digits", *options), words=words)


def test_weights_and_a_model_name_contradict_each_other(refused, trained):
    words = ["--model", "--weights", "give one of the two"]
    refused("finetune", "digits", "--out", "out", "--weights", trained, "--model", "B/16", words=words)


def test_an_image_size_smaller_than_a_patch_of_the_weights(refused, trained):
    words = ["--image-size", "2×2", "smaller than one patch; use at least 4×4"]
    refused("finetune", "digits", "--out", "out", "--weights", trained, "--image-size", 2, words=words)


def make_weights(kind, path, trained):
    good = (trained / "model.safetensors").read_bytes()
    if kind == "text":
        path.write_text("these are not the weights you are looking for")
    elif kind == "nothing":
        path.write_bytes(b"")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"weight": 3}))
    elif kind in ("other npz", "cut npz", "objects"):
        holds = np.array([{}], object) if kind == "objects" else np.random.default_rng(0).random(999)
        np.savez(path, a=holds, b=np.ones(99))
        if kind == "cut npz":
            path.write_bytes(path.read_bytes()[:-200])
    elif kind == "cut safetensors":
        path.write_bytes(good[:-10])
    elif kind == "image":
        Image.new("RGB", (4, 4)).save(path, "PNG")
    elif kind == "other safetensors":
        import safetensors.numpy

        path.write_bytes(safetensors.numpy.save({"a": np.ones(3)}))
    elif kind == "not finite":
        size = int.from_bytes(good[:8], "little") + 8
        path.write_bytes(good[:size] + np.full((len(good) - size) // 4, np.nan, np.float32).tobytes())


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("text", ["holds no weights", "give a .npz or .safetensors"]),
        ("nothing", ["holds no weights"]),
        ("image", ["holds no weights"]),
        ("pickle", ["pickle", "can run code", "convert it"]),
        ("objects", ["Python objects"]),
        ("cut npz", ["damaged zip", "get the file again"]),
        ("other npz", ["no model that is known here", "(its arrays: a, b"]),
        ("cut safetensors", ["damaged", "get the file again"]),
        ("other safetensors", ["no model that is known here"]),
        ("not finite", ["not finite"]),
    ],
)
def test_weights_of_the_wrong_kind(refused, trained, tmp_path, kind, words):
    path = tmp_path / "weights.npz"
    make_weights(kind, path, trained)
    refused("finetune", "digits", "--out", "out", "--weights", path, words=["weights.npz", *words])
    refused("predict", path, path, words=["weights.npz", *words])


def test_a_run_folder_that_exists(refused, trained, photos):
    words = [str(trained), "already exists", "another --out", "--resume"]
    refused(*finetune(photos), "--out", trained, words=words)


def test_a_run_folder_that_cannot_be_written(refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    refused(*finetune("digits"), "--out", "file/run", words=["file/run", "cannot be written", "choose another --out"])


def test_resuming_what_is_no_run(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    refused("finetune", "--resume", "--out", "missing", words=["missing", "is not a run", "without --resume"])
    refused("finetune", "--resume", "--out", "empty", words=["empty", "is not a run", "without --resume"])
    refused("finetune", "--resume", words=["--resume", "add --out"])


def test_resuming_with_other_settings(refused, trained, photos):
    command = ("finetune", photos, "--resume", "--out", trained, "--steps", 20, "--lr", 0.02, *TINY)
    words = [str(trained), "train.lr: 0.01 -> 0.02", "resume without changing them"]
    refused(*command, words=words)
    words = ["--resume", "continues a run as it was started", "leave the other options out"]
    refused("finetune", "--resume", "--out", trained, "--lr", 0.02, words=words)


def test_a_run_whose_settings_file_is_damaged(refused, trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    good = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(good | {"trian": {}}))
    refused("finetune", "--resume", "--out", "run", words=["run/config.json", "'trian'", "did you mean 'train'?"])
    (run / "config.json").write_text("{")
    refused("finetune", "--resume", "--out", "run", words=["run/config.json", "is not JSON"])


def test_a_model_or_image_that_is_not_there(refused, trained, photos):
    refused("predict", "nowhere", photos / "cat", words=["nowhere", "check the path"])
    refused("predict", trained, "nowhere.jpg", words=["nowhere.jpg", "does not exist", "check the path"])
    refused("evaluate", "nowhere", words=["nowhere"])
    refused("evaluate", "nowhere", photos, words=["nowhere", "check the path"])


def test_a_run_that_is_not_finished_has_no_model_yet(refused, trained, photos, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "model.safetensors").unlink()
    refused("predict", "run", photos / "cat", words=["run", "no model.safetensors", "--resume"])


def test_the_process_says_it_as_the_function_does(tmp_path):
    done = vitlab("finetune", "nowhere", "--out", "out", cwd=tmp_path)
    assert (done.code, done.out, list(tmp_path.iterdir())) == (2, "", [])
    assert len(done.err.splitlines()) == 1 and "nowhere" in done.error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_the_output_is_one_line_and_no_wrong_request():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vitlab", "models", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["error: No space left on device; --debug shows where it happened"]
