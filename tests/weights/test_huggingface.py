import json

import pytest
import safetensors.torch
import torch

import vitlab
from vitlab.data.preprocess import CentralCrop, ImageSpec, Squash
from vitlab.errors import WeightsError
from vitlab.models.classifier import build, empty
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import Axial
from vitlab.nn.grid import Size
from vitlab.nn.patches import Patches
from vitlab.nn.pooling import Mean
from vitlab.nn.position import Learned1D, SinCos2D
from vitlab.nn.stem import ResNetStem
from vitlab.weights.huggingface import IN_FILES, IN_MEMORY, export, name_table
from vitlab.weights.load import load, load_with_report, read

CONFIG = {
    "model_type": "vit",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 3,
    "qkv_bias": True,
}
PREPROCESSOR = {"size": {"height": 8, "width": 8}, "resample": 2}


@pytest.fixture
def written(tmp_path, make_settings):
    """A file with the arrays of transformers for a model of some settings, and what lies beside it."""

    def make(config=CONFIG, preprocessor=None, naming=IN_FILES, prefix="vit.", arrays=None, **changes):
        settings = make_settings(**changes)
        table, patch = name_table(settings, naming, prefix), settings.stem.patch_size
        tensors = {table[name]: torch.randn(parameter.shape) for name, parameter in empty(settings).named_parameters()}
        projection = table["stem.projection.weight"]
        tensors[projection] = tensors[projection].reshape(-1, 3, *patch)
        tensors |= arrays or {}
        path = tmp_path / "model.safetensors"
        path.write_bytes(
            safetensors.torch.save({name: tensor for name, tensor in tensors.items() if tensor is not None})
        )
        if config is not None:
            (tmp_path / "config.json").write_text(json.dumps(config))
        if preprocessor is not None:
            (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
        return path

    return make


def refusal(path):
    with pytest.raises(WeightsError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("naming", [IN_FILES, IN_MEMORY])
@pytest.mark.parametrize("prefix", ["vit.", ""])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_both_namings_are_read_with_and_without_prefix(written, naming, prefix, qkv_bias):
    config = CONFIG | {"qkv_bias": qkv_bias}
    loaded = load_with_report(written(config, naming=naming, prefix=prefix, qkv_bias=qkv_bias))
    assert loaded.report.lines() == [f"{len(list(loaded.model.parameters()))} parameters matched"]
    assert loaded.model.settings.qkv_bias == qkv_bias
    assert loaded.model.settings.norm_eps == 1e-12
    assert loaded.model.settings.activation == "gelu"


@pytest.mark.parametrize("act", ["gelu_new", "gelu_pytorch_tanh", "gelu_fast"])
def test_the_tanh_form_has_three_names(written, act):
    assert load(written(CONFIG | {"hidden_act": act})).settings.activation == "gelu_tanh"


def test_what_the_config_says_is_taken(written):
    config = CONFIG | {"image_size": [8, 16], "layer_norm_eps": 1e-6, "hidden_dropout_prob": 0.1, "auto_map": "x.py"}
    settings = load(written(config, image_size=Size(8, 16))).settings
    assert settings.image_size == Size(8, 16)
    assert (settings.norm_eps, settings.dropout, settings.num_heads) == (1e-6, 0.1, 2)


def test_patches_need_not_be_square(written):
    stem = Patches(patch_size=Size(2, 4))
    assert load(written(CONFIG | {"patch_size": [2, 4]}, stem=stem)).settings.stem == stem


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ({"2": "cat", "0": "ant", "1": "bee"}, ("ant", "bee", "cat")),
        ({"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}, ()),
        ({"0": 7, "1": 8, "2": 9}, ("7", "8", "9")),
        (None, ()),
    ],
)
def test_the_classes_are_the_labels_in_order(written, labels, classes):
    assert load(written(CONFIG | {"id2label": labels})).classes == classes


def test_labels_of_a_model_without_head_say_nothing(written):
    assert load(written(CONFIG | {"id2label": {"0": "ant"}}, num_classes=None)).classes == ()


def test_a_pooler_beside_a_classifier_is_not_read(written):
    pooler = {"vit.pooler.dense.weight": torch.zeros(16, 16), "vit.pooler.dense.bias": torch.zeros(16)}
    loaded = load_with_report(written(arrays=pooler))
    assert loaded.model.settings.representation_dim is None
    assert loaded.report.extra == sorted(pooler)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("hidden_size", 32, "hidden_size is 32, but 16"),
        ("num_hidden_layers", 12, "num_hidden_layers is 12, but 2"),
        ("intermediate_size", 64, "intermediate_size is 64, but 32"),
        ("patch_size", 8, "patch_size is 8×8, but 4×4"),
        ("image_size", 16, "image_size is 16×16, which has 16 patches, but 4"),
        ("image_size", [10**400, 8], "'image_size"),
        ("image_size", 2, "image_size is 2×2, which has 0 patches, but 4"),
        ("qkv_bias", False, "qkv_bias is False, but True"),
        ("num_channels", 1, "num_channels is 1, but 3"),
        ("id2label", {"0": "ant", "1": "bee"}, "id2label names 2 classes, but 3"),
        ("id2label", {"1": "ant", "2": "bee", "3": "cat"}, "id2label names 3 classes, but 3"),
        ("num_labels", 1000, "num_labels is 1000, but 3"),
        ("num_attention_heads", 3, "num_attention_heads is 3, which does not divide 16"),
        ("num_attention_heads", None, "says no num_attention_heads"),
        ("num_attention_heads", 0, "'num_attention_heads' = 0"),
        ("num_attention_heads", {"a": 1}, "'num_attention_heads'"),
        ("hidden_act", "relu", "'hidden_act' = \"relu\": Input should be 'gelu'"),
        ("hidden_act", ["gelu"], "'hidden_act' = [\"gelu\"]"),
        ("pooler_act", "relu", "'pooler_act' = \"relu\": Input should be 'tanh'"),
        ("layer_norm_eps", 0, "'layer_norm_eps' = 0"),
        ("layer_norm_eps", "1e-6 or so", "'layer_norm_eps'"),
        ("image_size", [8, -8], "'image_size"),
        ("image_size", [8, 8, 8], "'image_size"),
        ("id2label", ["ant", "bee", "cat"], "'id2label'"),
        ("model_type", "vit-hybrid", "model_type is vit-hybrid, but model.safetensors is not of a hybrid"),
        ("model_type", "deit", "'model_type' = \"deit\": Input should be 'vit' or 'vit-hybrid'"),
    ],
)
def test_a_config_that_contradicts_the_arrays_is_named(written, field, value, says):
    message = refusal(written(CONFIG | {field: value}))
    assert "config.json: " in message
    assert says in message


def test_a_pooler_of_another_width_than_said_is_refused(written):
    path = written(CONFIG | {"pooler_output_size": 8}, num_classes=None, representation_dim=6)
    assert "config.json: pooler_output_size is 8, but 6" in refusal(path)


def test_without_a_config_the_heads_are_those_of_the_width_or_of_the_caller(written):
    path = written(config=None)
    assert "how many heads share its width of 16" in refusal(path)
    assert read(path, num_heads=4).settings.num_heads == 4
    path = written(config=None, width=192, num_heads=3)
    assert load(path).settings.num_heads == 3


def test_without_a_config_a_grid_is_square_or_said(written):
    path = written(config=None, width=192, num_heads=3, image_size=Size(8, 16))
    assert "8 positions, not a square grid" in refusal(path)
    assert load(path, trained_size=(8, 16)).settings.image_size == Size(8, 16)


@pytest.mark.parametrize("name", ["embeddings.distillation_token", "encoder.layer.1.lambda_1"])
def test_a_relative_of_the_vit_is_refused(written, name):
    assert name in refusal(written(arrays={f"vit.{name}": torch.zeros(1)}))


@pytest.mark.parametrize(
    "arrays",
    [
        {"vit.embeddings.position_embeddings": None},
        {"vit.embeddings.position_embeddings": torch.zeros(5, 16)},
        {"vit.embeddings.patch_embeddings.projection.weight": torch.zeros(16, 48)},
        {"vit.embeddings.patch_embeddings.projection.weight": torch.zeros(16, 1, 4, 4)},
        {"vit.encoder.layer.1.output.dense.bias": None},
        {"vit.encoder.layer.0.intermediate.dense.weight": torch.zeros(32)},
        {"classifier.weight": torch.zeros(3)},
        {"vit.layernorm.weight": torch.zeros(15)},
    ],
)
def test_incomplete_arrays_are_refused(written, arrays):
    assert "model.safetensors: " in refusal(written(arrays=arrays))


CROPPED = {"do_center_crop": True, "crop_size": {"height": 8, "width": 8}}
BIT = {"image_processor_type": "BitImageProcessor"}
AS_CLIP = {
    "height": 8,
    "width": 8,
    "interpolation": "bicubic",
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
}
PREPARED = [
    (None, ImageSpec(height=8, width=8)),
    ({}, ImageSpec(height=8, width=8)),
    ({"size": 8, "resample": 3}, ImageSpec(height=8, width=8, interpolation="bicubic")),
    ({"size": 10, **CROPPED, **BIT}, ImageSpec(fit=CentralCrop(fraction=0.8), **AS_CLIP)),
    ({"size": 8, **CROPPED, "feature_extractor_type": "ViTFeatureExtractor"}, ImageSpec(height=8, width=8)),
    ({"size": {"shortest_edge": 10}, **CROPPED}, ImageSpec(height=8, width=8, fit=CentralCrop(fraction=0.8))),
    (
        {"size": {"shortest_edge": 10}, "do_center_crop": True},
        ImageSpec(height=8, width=8, fit=CentralCrop(fraction=0.8)),
    ),
    ({**PREPROCESSOR, **CROPPED, "crop_size": 8}, ImageSpec(height=8, width=8)),
    ({**PREPROCESSOR, "do_normalize": False}, ImageSpec(height=8, width=8, mean=(0, 0, 0), std=(1, 1, 1))),
    (
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.2, 0.3, 0.4]},
        ImageSpec(height=8, width=8, mean=(0.1, 0.2, 0.3), std=(0.2, 0.3, 0.4)),
    ),
    ({"do_resize": False, "size": 99}, ImageSpec(height=8, width=8, fit=Squash())),
    ({"rescale_factor": 0.00392156862745098, "resample": None}, ImageSpec(height=8, width=8)),
]


@pytest.mark.parametrize(("preprocessor", "spec"), PREPARED)
def test_the_preparation_of_images_is_read(written, preprocessor, spec):
    assert load(written(preprocessor=preprocessor)).image_spec == spec


@pytest.mark.parametrize("name", ["BitImageProcessor", "CLIPImageProcessorFast", "ViTHybridImageProcessor"])
@pytest.mark.parametrize("field", ["image_processor_type", "feature_extractor_type"])
def test_what_a_named_processor_does_not_say_is_its_own_default(written, name, field):
    config = CONFIG | {"image_size": 224, "patch_size": 112}
    shape = {"image_size": Size(224, 224), "stem": Patches(patch_size=Size(112, 112))}
    spec = load(written(config, {field: name}, **shape)).image_spec
    assert spec == ImageSpec(fit=CentralCrop(fraction=1.0), **AS_CLIP | {"height": 224, "width": 224})
    assert load(written(config, {field: "ViTImageProcessor"}, **shape)).image_spec == ImageSpec()
    assert "a crop after a resize to a fixed size" in refusal(written(config, {field: "DeiTFeatureExtractor"}, **shape))


@pytest.mark.parametrize(
    ("preprocessor", "says"),
    [
        ({"size": 10, **CROPPED}, "a crop after a resize to a fixed size"),
        ({"size": 10, **CROPPED, "feature_extractor_type": "DeiTFeatureExtractor"}, "a crop after a resize to a fixed"),
        ({"size": 10, **CROPPED, "feature_extractor_type": "ViTFeatureExtractor"}, "a crop after a resize to a fixed"),
        ({"size": 8, **BIT, "do_center_crop": False}, "shortest_edge 8 without a smaller square crop"),
        ({"image_processor_type": "ViTImageProcessor"}, "gives images of 224×224, the model is for 8×8"),
        (
            {"image_processor_type": "ConvNextImageProcessor"},
            "is for a ConvNextImageProcessor, which is not known here",
        ),
        ({"resample": 0}, "resample 0 is not known here, only 2 (bilinear) and 3 (bicubic)"),
        ({"rescale_factor": 1.0}, "rescale_factor 1.0 is not known here"),
        ({"do_rescale": False}, "do_rescale false is not known here"),
        ({"size": 9}, "gives images of 9×9, the model is for 8×8"),
        ({"size": {"shortest_edge": 8}}, "shortest_edge 8 without a smaller square crop"),
        ({"size": {"shortest_edge": 7}, **CROPPED}, "shortest_edge 7 without a smaller square crop"),
        ({"size": 10, **CROPPED, "crop_size": 9}, "gives images of 9×9"),
        ({"size": {"height": 10, "width": 10}, **CROPPED}, "a crop after a resize to a fixed size"),
        ({"image_mean": [0.5]}, "'image_mean"),
        ({"image_std": [0, 1, 1]}, "'image_std"),
        ({"size": "large"}, "'size"),
        ({"size": 10**400, **CROPPED}, "'size"),
        ({"crop_pct": 1e-320, "size": 10, **CROPPED}, "'crop_pct'"),
    ],
)
def test_another_preparation_is_refused_by_name(written, preprocessor, says):
    message = refusal(written(preprocessor=preprocessor))
    assert "preprocessor_config.json: " in message
    assert says in message


def write(model, folder):
    arrays, config, preprocessor = export(model)
    (folder / "model.safetensors").write_bytes(safetensors.torch.save(arrays, {"format": "pt"}))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"activation": "gelu", "norm_eps": 1e-12, "dropout": 0.1},
        {"qkv_bias": False, "image_size": Size(8, 12)},
        {"image_size": Size(11, 9)},
        {"num_classes": None},
        {"num_classes": None, "representation_dim": 6},
    ],
)
@pytest.mark.parametrize(
    "preparation",
    [
        {},
        {"interpolation": "bicubic", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
        {"fit": CentralCrop(fraction=0.9), "height": 8, "width": 8},
    ],
)
def test_what_is_written_is_read_as_it_was(tmp_path, make_model, changes, preparation):
    if "fit" in preparation:
        changes = changes | {"image_size": Size(8, 8)}
    model = make_model(classes=() if "num_classes" in changes else ("ant", "bee", "ant"), **changes)
    model.image_spec = model.image_spec.model_copy(update=preparation)
    loaded = load_with_report(write(model, tmp_path))
    assert (loaded.report.missing, loaded.report.extra, loaded.report.resized) == ([], [], [])
    assert loaded.model.settings == model.settings
    assert loaded.model.image_spec == model.image_spec
    assert loaded.model.classes == model.classes
    ours = dict(model.named_parameters())
    assert all(torch.equal(parameter, ours[name]) for name, parameter in loaded.model.named_parameters())


@pytest.mark.parametrize(("fraction", "edge"), [(0.9, 248), (0.875, 256), (0.95, 235), (224 / 242, 242), (1.0, 224)])
def test_the_edge_of_a_crop_is_rounded_down_as_timm_does(make_model, fraction, edge):
    model = make_model(image_size=Size(224, 224), stem=Patches(patch_size=Size(112, 112)))
    model.image_spec = ImageSpec(fit=CentralCrop(fraction=fraction))
    assert export(model)[2]["size"] == {"shortest_edge": edge}


def test_the_config_of_a_case_is_written_as_transformers_wrote_it(golden):
    for name in ("vit_cls", "vit_gelutanh_eps1e6", "vit_model_pooler"):
        case = golden(f"hf/{name}")
        said = json.loads(case.path("config").read_text())
        model = vitlab.load(case.path("params_safetensors"))
        if "gelutanh" in name:  # it shares the weights of another
            model.settings = model.settings.model_copy(update={"activation": "gelu_tanh", "norm_eps": 1e-6})
        arrays, config, _ = export(model)
        assert config == said
        stored = safetensors.torch.load_file(case.path("params_safetensors"))
        assert arrays.keys() == stored.keys()
        assert all(torch.equal(arrays[key], stored[key]) for key in stored)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"stem": ResNetStem(depths=(1,), root_width=32)}, "no ResNet as its stem"),
        ({"stem": Patches(patch_size=Size(2, 4))}, "no patches of 2×4"),
        ({"attention": Axial(), "pool": Mean(), "position": Learned1D()}, "no axial attention"),
        ({"position": SinCos2D()}, "no position SinCos2D"),
        ({"position": Learned1D(place="layers")}, "no positions in every layer"),
        ({"position": Learned1D(class_token=False)}, "no positions of patches only"),
        ({"pool": Mean()}, "no pool Mean"),
        ({"registers": 2}, "no registers"),
        ({"layer_scale": 0.1}, "no layer scale"),
        ({"representation_dim": 6}, "both a representation layer and a head"),
    ],
)
def test_what_transformers_cannot_have_is_refused(make_settings, changes, says):
    with pytest.raises(WeightsError, match=says) as caught:
        export(build(make_settings(**changes)))
    assert "; use vitlab convert --to vitlab" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_resnet_is_no_vit():
    with pytest.raises(WeightsError, match="a ResNet"):
        export(build(ResNetSettings(image_size=Size(8, 8), depths=(1,), root_width=32, num_classes=2)))


def test_a_crop_that_is_not_square_is_refused(make_model):
    model = make_model(image_size=Size(8, 12))
    model.image_spec = model.image_spec.model_copy(update={"fit": CentralCrop()})
    with pytest.raises(WeightsError, match="cuts no 8×12"):
        export(model)
