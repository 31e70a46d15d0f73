import json
import subprocess
import sys

import pytest
import safetensors
import torch

from vitlab.data.limits import Limits
from vitlab.data.preprocess import CentralCrop, ImageSpec
from vitlab.models.catalog import build_named
from vitlab.nn.grid import Size
from vitlab.nn.patches import Patches
from vitlab.nn.pooling import Mean
from vitlab.weights.load import load, load_with_report
from vitlab.weights.save import save

VARIANTS = [
    {},
    {"pool": Mean(), "representation_dim": 6, "activation": "gelu", "dropout": 0.1, "head_bias": -10.0},
    {"image_size": Size(10, 12), "stem": Patches(patch_size=Size(2, 4)), "norm_eps": 1e-12},
    {"num_classes": None},
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_saved_model_comes_back_bit_for_bit(tmp_path, make_model, changes):
    classes = () if "num_classes" in changes else ("cat", "Löwe", "犬")
    model = make_model(classes=classes, **changes)
    size = model.settings.image_size
    model.image_spec = ImageSpec(
        height=size.height,
        width=size.width,
        fit=CentralCrop(fraction=0.9),
        mean=(0.1, 0.2, 0.3),
        interpolation="bicubic",
    )
    save(model, tmp_path / "model.safetensors")
    loaded = load_with_report(tmp_path / "model.safetensors")
    assert (loaded.model.settings, loaded.model.classes) == (model.settings, model.classes)
    assert loaded.model.image_spec == model.image_spec
    assert len(loaded.report.matched) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert torch.equal(loaded.model.get_parameter(name), parameter), name
    images = torch.randn(2, 3, *size)
    with torch.inference_mode():
        assert torch.equal(loaded.model.eval()(images), model(images))


def test_the_same_weights_give_the_same_bytes(tmp_path, make_model):
    for name in "abcd":
        save(make_model(classes=("a", "b", "c")), tmp_path / name)
    assert len({(tmp_path / name).read_bytes() for name in "abcd"}) == 1


def test_saving_what_was_loaded_gives_the_same_bytes(tmp_path, make_model):
    save(make_model(classes=("a", "b", "c")), tmp_path / "first")
    save(load(tmp_path / "first"), tmp_path / "second")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_another_process_writes_the_same_bytes(tmp_path):
    script = (
        "import sys; from vitlab.models.catalog import build_named; from vitlab.weights.save import save;"
        "save(build_named('Mini/4', 3, 8, seed=7), sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "there")], check=True)
    save(build_named("Mini/4", 3, 8, seed=7), tmp_path / "here")
    assert (tmp_path / "here").read_bytes() == (tmp_path / "there").read_bytes()


def test_the_header_says_what_the_model_is_in_plain_json(tmp_path, make_model):
    save(make_model(classes=("a", "b", "c")), tmp_path / "model.safetensors")
    with safetensors.safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        metadata = file.metadata()
    header = json.loads(metadata["vitlab"])
    assert (header["settings"]["width"], header["image_spec"]["height"]) == (16, 8)
    assert header["classes"] == ["a", "b", "c"]


def test_saving_replaces_a_file_and_leaves_nothing_beside_it(tmp_path, make_model):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"before")
    save(make_model(), path)
    load(path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_model_in_training_is_saved_without_its_gradients(tmp_path, make_model):
    model = make_model()
    model(torch.randn(1, 3, 8, 8)).sum().backward()
    save(model, tmp_path / "model")
    assert all(parameter.grad is None for parameter in load(tmp_path / "model").parameters())


def test_what_an_image_may_cost_does_not_travel_with_a_model(tmp_path, make_model):
    """Whoever runs a model says it, and no file from elsewhere."""
    model = make_model()
    model.image_spec = model.image_spec.model_copy(
        update={"limits": Limits(max_pixels=10**15), "decoding": "pil-compat"}
    )
    save(model, tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "b.safetensors").write_bytes(data.replace(b"64000000", b"99000000"))
    assert data.count(b"64000000") == 1
    for name in ("a", "b"):
        spec = load(tmp_path / f"{name}.safetensors").image_spec
        assert (spec.limits, spec.decoding) == (Limits(), "pil-compat")
