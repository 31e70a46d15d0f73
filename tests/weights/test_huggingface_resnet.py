import json

import pytest
import safetensors.torch
import torch

from vitlab.data.preprocess import CentralCrop
from vitlab.errors import WeightsError
from vitlab.models.classifier import empty
from vitlab.models.resnet import ResNetSettings
from vitlab.nn.grid import Size
from vitlab.nn.resnet import PostActivation, PreActivation
from vitlab.weights.huggingface_resnet import name_table
from vitlab.weights.load import load, load_with_report

CONFIG = {"model_type": "bit", "depths": [1, 1], "embedding_size": 32, "layer_type": "preactivation"}
SAME = {"global_padding": "SAME", "embedding_dynamic_padding": True}
HEAD = {"head.weight": "classifier.1.weight", "head.bias": "classifier.1.bias"}


@pytest.fixture
def written(tmp_path):
    """A file with the arrays of transformers for a small BiT, and what lies beside it."""

    def make(config=None, preprocessor=None, prefix="bit.", unit=None, num_classes=3):
        settings = ResNetSettings(depths=(1, 1), root_width=32, unit=unit or PreActivation(), num_classes=num_classes)
        table = name_table(settings.depths, "", prefix) | HEAD
        tensors = {table[name]: torch.randn(parameter.shape) for name, parameter in empty(settings).named_parameters()}
        path = tmp_path / "model.safetensors"
        path.write_bytes(safetensors.torch.save(tensors))
        for name, data in (("config", config), ("preprocessor_config", preprocessor)):
            if data is not None:
                (tmp_path / f"{name}.json").write_text(json.dumps(data))
        return path

    return make


@pytest.mark.parametrize(
    ("config", "unit"),
    [
        (None, PreActivation(variance_eps=1e-8)),
        (CONFIG, PreActivation(variance_eps=1e-8)),
        (CONFIG | {"global_padding": "same"}, PreActivation(variance_eps=1e-8, padding="same")),
        (CONFIG | SAME | {"layer_type": "bottleneck"}, PostActivation(variance_eps=1e-8, std_eps=0.0, norm_eps=1e-5)),
    ],
)
@pytest.mark.parametrize(("prefix", "num_classes"), [("bit.", 3), ("", None)])
def test_the_unit_is_what_the_config_and_the_arrays_say(written, config, unit, prefix, num_classes):
    loaded = load_with_report(written(config, prefix=prefix, unit=unit, num_classes=num_classes))
    assert loaded.model.settings == ResNetSettings(depths=(1, 1), root_width=32, unit=unit, num_classes=num_classes)
    assert loaded.report.extra == loaded.report.missing == []


def test_the_image_size_is_that_of_the_preparation(written):
    preprocessor = {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}}
    path = written(CONFIG | {"id2label": {"0": "ant", "1": "bee", "2": "cat"}}, preprocessor)
    model = load(path)
    assert model.settings.image_size == Size(32, 32)
    assert model.image_spec.fit == CentralCrop(fraction=0.8)
    assert model.classes == ("ant", "bee", "cat")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"depths": [3, 4, 6, 3]}, "depths is (3, 4, 6, 3), but (1, 1)"),
        ({"embedding_size": 64}, "embedding_size is 64, but 32"),
        ({"num_channels": 1}, "num_channels is 1, but 3"),
        ({"layer_type": "bottleneck"}, "layer_type is bottleneck, but preactivation"),
        ({"id2label": {"0": "ant"}}, "id2label names 1 classes, but 3"),
        ({"global_padding": "VALID"}, "global_padding VALID"),
        (SAME, "embedding_dynamic_padding True is not known here for preactivation"),
        ({"output_stride": 4}, "output_stride 4 is not known here"),
        ({"num_groups": 16}, "'num_groups' = 16"),
        ({"hidden_act": "gelu"}, "'hidden_act' = \"gelu\""),
        ({"model_type": "resnet"}, "'model_type' = \"resnet\""),
    ],
)
def test_a_config_of_another_resnet_is_named(written, changes, says):
    with pytest.raises(WeightsError) as caught:
        load(written(CONFIG | changes))
    assert "config.json: " in str(caught.value) and says in str(caught.value)
    assert "\n" not in str(caught.value)
