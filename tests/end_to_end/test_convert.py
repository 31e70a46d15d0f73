"""`vitlab convert` from the command line: what it says, and that no file makes it say something else."""

import json
import os

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from vitlab import files
from vitlab.data.preprocess import CentralCrop
from vitlab.nn.grid import Size
from vitlab.weights.official import export
from vitlab.weights.save import save

EVIL = "x\x1b[2J\r\nwritten  nothing\u2028\x9b1m"


@pytest.fixture
def model(make_model, tmp_path):
    """A model in model.safetensors."""
    made = make_model(classes=("ant", EVIL, "cat"))
    save(made, tmp_path / "model.safetensors")
    return made


def assert_plain(done):
    for text in (done.out, done.err):
        assert all(line.isprintable() for line in text.splitlines())
        assert not any(line.startswith("written  nothing") for line in text.splitlines())


def test_what_an_official_file_leaves_out_is_said(within, make_model, tmp_path):
    model = make_model(image_size=Size(8, 12), dropout=0.1, classes=("ant", "bee", "cat"))
    spec = {"fit": CentralCrop(), "interpolation": "bicubic"}
    model.image_spec = model.image_spec.model_copy(update=spec)
    save(model, tmp_path / "model.safetensors")
    done = within("convert", "model.safetensors", "out.npz", "--to", "official")
    said = [line.removeprefix("- left out ") for line in done.err.splitlines() if line.startswith("- left out ")]
    assert [line.split(" ")[0] for line in said] == ["the", "fit", "interpolation", "dropout", "image"]
    assert "3 classes" in said[0] and "0.875" in said[1] and said[-1].endswith("read it with --trained-size 8x12")
    assert within("convert", "out.npz", "back", "--to", "vitlab").code == 2
    assert within("convert", "out.npz", "back", "--to", "vitlab", "--trained-size", "8x12").code == 0
    for to in ("vitlab", "timm", "huggingface"):
        assert "left out" not in within("convert", "out.npz", to, "--to", to, "--trained-size", "8x12").err


def test_nothing_is_said_to_be_left_out_of_a_file_that_holds_all(within, make_model, tmp_path):
    save(make_model(), tmp_path / "model.safetensors")
    done = within("convert", "model.safetensors", "out.npz", "--to", "official")
    assert done.out == "written  out.npz\n" and "left out" not in done.err


def test_a_place_that_is_taken_is_noticed_before_the_model_is_looked_for(within, tmp_path):
    (tmp_path / "out").write_text("mine")
    assert "out: exists already" in within("convert", "nowhere.npz", "out", "--to", "vitlab").error


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("x" * 300, "cannot be written (File name too long); choose another place or name"),
        ("x" * 250, "cannot be written (File name too long); choose another place or name"),
        ("/proc/out", "cannot be written (No such file or directory); choose another place"),
        ("nowhere/out", "is no folder; make it first"),
    ],
)
def test_a_place_that_cannot_be_written_is_one_line(within, model, out, words):
    done = within("convert", "model.safetensors", out, "--to", "vitlab")
    assert done.code == 2 and words in done.error


def test_a_full_disk_is_one_line_and_leaves_nothing(within, model, tmp_path, monkeypatch):
    def write(path, data):
        path.write_bytes(data[:10])
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(files, "write_bytes", write)
    done = within("convert", "model.safetensors", "out", "--to", "timm")
    assert done.code == 1 and "out: cannot be written (No space left on device); make room" in done.error
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_missing_option_is_one_line(within, model):
    done = within("convert", "model.safetensors", "out")
    assert done.code == 2 and done.err.count("\n") == 1
    assert "Missing option '--to'. Choose from: vitlab, timm, huggingface, official; see" in done.error


def test_names_of_arrays_move_no_cursor_and_forge_no_line(within, make_model, tmp_path):
    arrays = export(make_model()) | {f"opt/{EVIL}": np.zeros(3, np.float32)}
    np.savez(tmp_path / "extra.npz", **arrays)
    done = within("convert", "extra.npz", "out", "--to", "vitlab")
    assert done.code == 0 and "+ extra    opt/x\\x1b[2J\\r\\nwritten  nothing\\u2028\\x9b1m" in done.err
    assert_plain(done)
    safetensors.torch.save_file({EVIL: torch.zeros(3), "y" * 1_000_000: torch.zeros(3)}, tmp_path / "unknown")
    done = within("convert", "unknown", "other", "--to", "vitlab")
    assert done.code == 2 and len(done.err) < 10_000 and "is of no model that is known here" in done.error
    assert_plain(done)


def test_names_of_timm_s_arrays_too(within, model, tmp_path):
    assert within("convert", "model.safetensors", "timm", "--to", "timm").code == 0
    path = tmp_path / "timm" / "model.safetensors"
    safetensors.torch.save_file(safetensors.torch.load_file(path) | {EVIL: torch.zeros(1)}, path)
    done = within("convert", "timm", "out", "--to", "vitlab")
    assert done.code == 2 and "which no model known here has" in done.error
    assert_plain(done)


def test_names_of_classes_are_plain_where_people_read_them(within, model, tmp_path):
    path = tmp_path / f"a{EVIL}.png"
    Image.new("RGB", (8, 8)).save(path)
    done = within("predict", "model.safetensors", path)
    assert done.code == 0 and "x\\x1b[2J\\r\\nwritten  nothing" in done.out
    assert_plain(done)
    done = within("predict", "model.safetensors", path, "--json")
    assert EVIL in {name for name, _ in json.loads(done.out)["top"]}
    rows = [{"image": path.name, "label": name} for name in ("ant", EVIL)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = within("evaluate", "model.safetensors", "data.jsonl")
    assert done.code == 0 and "x\\x1b[2J" in done.out
    assert_plain(done)
