import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import vitlab
from tests.end_to_end.conftest import environment
from vitlab.data.preprocess import CentralCrop
from vitlab.errors import ExportError, SettingsError, WeightsError
from vitlab.serve import export as exporting
from vitlab.serve.engine import OnnxRuntime, Outputs
from vitlab.serve.export import export
from vitlab.serve.onnx.reading import open_graph
from vitlab.serve.onnx.writing import write_graph
from vitlab.serve.predict import Predictor
from vitlab.weights.save import save

CLASSES = ("ant", "bee", "cat")


@pytest.fixture
def model(make_model):
    made = make_model(classes=CLASSES)
    made.image_spec = made.image_spec.model_copy(update={"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)})
    return made


@pytest.fixture
def written(model, tmp_path):
    export(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def properties(path):
    return {each.key: each.value for each in onnx.load(path).metadata_props}


def test_an_exported_file_answers_as_the_model_does(model, written, make_source):
    pixels = make_source(5, side=23).images
    right, found = Predictor(model, engine="eager").predict(pixels), Predictor.load(written).predict(pixels)
    for one, other in zip(right, found, strict=True):
        assert other.classes == CLASSES
        np.testing.assert_allclose(other.probabilities, one.probabilities, atol=1e-6)
        np.testing.assert_allclose(other.features, one.features, atol=1e-5)


def test_a_file_says_how_images_are_prepared_and_what_its_classes_are(model, written):
    found = properties(written)
    assert found["vitlab.format"] == "1"
    assert json.loads(found["vitlab.classes"]) == list(CLASSES)
    assert json.loads(found["vitlab.image_spec"])["mean"] == [0.5, 0.4, 0.3]
    assert json.loads(found["vitlab.probabilities"]) == "softmax"
    assert json.loads(found["vitlab.settings"])["width"] == 16
    assert Predictor.load(written).spec == model.image_spec


def test_a_file_that_does_not_answer_as_the_model_does_is_not_kept(model, tmp_path, monkeypatch):
    ones = np.ones((16, 3), np.float32), np.ones((16, 16), np.float32)
    monkeypatch.setattr(exporting, "_outputs", lambda *_: Outputs(*ones))
    with pytest.raises(ExportError, match=r"model\.onnx: what was written is off by .* nothing was kept") as caught:
        export(model, tmp_path / "model.onnx")
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_are_no_numbers_are_not_taken_for_equal(model, tmp_path):
    with torch.no_grad():
        model.head.bias[0] = torch.nan
    with pytest.raises(ExportError, match="off by nan"):
        export(model, tmp_path / "model.onnx")


@pytest.mark.parametrize("taken", ["model.onnx", "model.onnx.md", "model.onnx.data"])
def test_nothing_is_overwritten(model, tmp_path, taken):
    (tmp_path / taken).write_text("mine")
    with pytest.raises(WeightsError, match=f"{taken}: exists already"):
        export(model, tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == "mine"


def test_what_cannot_be_is_refused_before_any_work(model, tmp_path, make_source):
    with pytest.raises(SettingsError, match=r"neither an \.onnx nor a \.pt2 file"):
        export(model, tmp_path / "model.bin")
    with pytest.raises(SettingsError, match="--dynamic-size: is for ONNX files"):
        export(model, tmp_path / "model.pt2", dynamic_size=True)
    with pytest.raises(SettingsError, match="--int8: is for ONNX files"):
        export(model, tmp_path / "model.pt2", calibrate=make_source())
    with pytest.raises(WeightsError, match="is no folder; make it first"):
        export(model, tmp_path / "missing" / "model.onnx")


def test_a_model_of_any_size_is_checked_at_another_one(model, tmp_path):
    assert export(model, tmp_path / "model.onnx", dynamic_size=True).deviation < 1e-5
    session = open_graph(tmp_path / "model.onnx").session
    assert session.run(np.zeros((2, 3, 20, 12), np.uint8))["logits"].shape == (2, 3)
    assert "any height and width" in (tmp_path / "model.onnx.md").read_text()


def test_a_model_without_a_head_gives_features(make_model, tmp_path):
    export(make_model(num_classes=None), tmp_path / "model.onnx")
    assert open_graph(tmp_path / "model.onnx").session.outputs == ["features"]
    with pytest.raises(WeightsError, match="has no head"):
        Predictor.load(tmp_path / "model.onnx")


def test_weights_that_are_too_many_for_one_file_go_beside_it(model, tmp_path):
    write_graph(model, tmp_path / "model.onnx", largest=1000)
    assert (tmp_path / "model.onnx.data").stat().st_size > 8000
    images = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    whole = exporting._outputs(model, images.numpy())
    found = OnnxRuntime(open_graph(tmp_path / "model.onnx").session).run(images)
    np.testing.assert_allclose(found.logits, whole.logits, atol=1e-5)


def test_eight_bits_answer_nearly_as_thirty_two_and_it_is_written_down(model, tmp_path, make_source):
    images = make_source(30)
    done = export(model, tmp_path / "model.onnx", images=images, calibrate=make_source(8))
    assert done.int8 is not None and done.int8.same > 0.8 and done.int8.images == 30
    before, after = done.int8.top1
    assert abs(before - after) < 0.2
    assert json.loads(properties(tmp_path / "model.onnx")["vitlab.int8"])["same"] == done.int8.same
    assert "int8: the same class on" in (tmp_path / "model.onnx.md").read_text()
    nodes = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert "QuantizeLinear" in nodes
    found = Predictor.load(tmp_path / "model.onnx").predict(images.images)
    right = Predictor(model, engine="eager").predict(images.images)
    np.testing.assert_allclose(
        [each.probabilities for each in found], [each.probabilities for each in right], atol=0.15
    )


def test_eight_bits_are_the_same_every_time(model, tmp_path, make_source):
    for name in ("a.onnx", "b.onnx"):
        export(model, tmp_path / name, calibrate=make_source(8))
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.mark.parametrize("crop", [False, True])
def test_the_program_on_the_card_runs_and_gives_the_same_class(model, tmp_path, crop):
    if crop:
        model.image_spec = model.image_spec.model_copy(update={"fit": CentralCrop(fraction=0.5)})
    export(model, tmp_path / "model.onnx", facts=["On 7 images of photos: top1 0.9."])
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    card = (tmp_path / "model.onnx.md").read_text()
    assert "On 7 images of photos: top1 0.9." in card and "0 ant, 1 bee, 2 cat" in card and "## Licence" in card
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1].replace("image.jpg", "image.png")
    code = code.replace("print(outputs[0].argmax(axis=1))", "print(*outputs[0][0])")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = exporting._outputs(model, model.image_spec.prepare(pixels).transpose(2, 0, 1)[None]).logits[0]
    np.testing.assert_allclose([float(each) for each in done.stdout.split()], expected, atol=1e-4)


PROGRAM = """
import sys, torch, vitlab as vit
from vitlab.serve.engine import Compiled, Eager, deviation
model = vit.load(sys.argv[1])
print(vit.export(model, sys.argv[2]).deviation)
images = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
print(deviation(Compiled(model).run(images), Eager(model).run(images)))
"""


@pytest.mark.slow
def test_a_program_of_torch_and_a_compiled_model_give_the_same(model, tmp_path):
    """In a process without the hook that executes annotations: it cannot be traced."""
    save(model, tmp_path / "model.safetensors")
    sources = str(Path(vitlab.__file__).parents[1])
    given = [sys.executable, "-c", PROGRAM, tmp_path / "model.safetensors", tmp_path / "model.pt2"]
    where = environment() | {"PYTHONPATH": sources, "HOME": os.environ.get("HOME", "/tmp")}
    done = subprocess.run(given, capture_output=True, text=True, env=where, timeout=110)
    assert done.returncode == 0, done.stderr
    assert all(float(line) < 1e-5 for line in done.stdout.split())
    with pytest.raises(WeightsError, match=r"is a program: torch\.export\.load may run what is in it"):
        Predictor.load(tmp_path / "model.pt2")
