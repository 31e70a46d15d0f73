"""Folders that are written here, loaded by transformers itself where it is installed."""

import json
import warnings

import numpy as np
import pytest
import safetensors.torch
import torch

import vitlab
from vitlab.data.preprocess import CentralCrop
from vitlab.nn.grid import Size
from vitlab.weights.huggingface import export


@pytest.fixture
def transformers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own affair
        module = pytest.importorskip("transformers")
        module.logging.set_verbosity_error()
        module.logging.disable_progress_bar()
        yield module


@pytest.fixture
def folder(tmp_path):
    def write(model):
        arrays, config, preprocessor = export(model)
        safetensors.torch.save_file(arrays, tmp_path / "model.safetensors", {"format": "pt"})
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
        return tmp_path

    return write


def outputs(theirs, model, agree, case):
    """Compare what transformers' model and ours say of the same images; return ours."""
    images = torch.randn(2, 3, *model.settings.image_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        said = theirs.eval()(images)
        expected = said.logits if model.settings.num_classes else said.pooler_output
        agree(case, model(images), expected, atol=2e-5, rtol=2e-5)


CLASSES = ("ant", "bee", "cat")


@pytest.mark.parametrize(
    "changes",
    [{}, {"activation": "gelu", "norm_eps": 1e-12}, {"qkv_bias": False, "image_size": Size(8, 12)}],
    ids=["tanh", "exact", "no bias, rectangle"],
)
def test_transformers_classifies_as_the_model_that_was_written(
    transformers, folder, make_model, agree, changes, request
):
    model = make_model(classes=CLASSES, **changes)
    theirs, info = transformers.AutoModelForImageClassification.from_pretrained(folder(model), output_loading_info=True)
    assert not any(info.values())
    assert tuple(theirs.config.id2label[index] for index in range(3)) == CLASSES
    outputs(theirs, model, agree, f"transformers {request.node.callspec.id}")


def test_the_representation_layer_is_its_pooler(transformers, folder, make_model, agree):
    model = make_model(num_classes=None, representation_dim=6)
    theirs, info = transformers.AutoModel.from_pretrained(folder(model), output_loading_info=True)
    assert not any(info.values())
    outputs(theirs, model, agree, "transformers pooler")


def test_what_transformers_writes_anew_is_read(transformers, folder, make_model, tmp_path):
    model = make_model(classes=CLASSES)
    written = folder(model)
    anew = tmp_path / "anew"
    transformers.AutoModelForImageClassification.from_pretrained(written).save_pretrained(anew)
    transformers.AutoImageProcessor.from_pretrained(written).save_pretrained(anew)
    assert json.loads((anew / "config.json").read_text()) == json.loads((written / "config.json").read_text())
    back = vitlab.load(anew)
    assert (back.settings, back.image_spec, back.classes) == (model.settings, model.image_spec, model.classes)
    assert all(torch.equal(ours, read) for ours, read in zip(model.parameters(), back.parameters(), strict=True))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("fit", ["Squash", "CentralCrop"])
def test_transformers_prepares_images_as_the_model_does(transformers, folder, make_model, agree, fit, interpolation):
    model = make_model(image_size=Size(28, 28))
    changes = {"interpolation": interpolation, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    if fit == "CentralCrop":
        changes["fit"] = CentralCrop(fraction=0.875)
    model.image_spec = model.image_spec.model_copy(update=changes)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)  # 32×48, of which 28×28 is cut
    processor = transformers.AutoImageProcessor.from_pretrained(folder(model))
    theirs = processor(images=image, return_tensors="pt")["pixel_values"]
    ours = model.image_spec.normalise(torch.from_numpy(model.image_spec.prepare(image).copy()).permute(2, 0, 1)[None])
    agree(f"transformers {fit} {interpolation}", ours, theirs, atol=1e-5)
