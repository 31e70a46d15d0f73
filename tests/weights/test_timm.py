"""timm's files: ours written and read again, and what is refused."""

import json

import pytest
import torch

from vitlab.data.preprocess import CentralCrop, ImageSpec, Squash
from vitlab.errors import WeightsError
from vitlab.models.classifier import build, empty
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import Axial
from vitlab.nn.grid import Size
from vitlab.nn.patches import Patches
from vitlab.nn.pooling import AttentionPool, ClassToken, FirstPatch, Mean
from vitlab.nn.position import Learned1D, Learned2D, NoPosition, Relative, SinCos2D
from vitlab.nn.stem import ResNetStem
from vitlab.weights.convert import convert
from vitlab.weights.load import load_with_report, read
from vitlab.weights.timm import export
from vitlab.weights.timm_config import BIT_UNIT, HYBRID_UNIT
from vitlab.weights.timm_writing import architecture_of, config_of

POOLS = [
    ClassToken(),
    AttentionPool(),
    *(Mean(class_token=token, norm=norm) for token in (False, True) for norm in ("tokens", "mean")),
]
SMALL = [
    {},
    {"num_classes": None},
    {"qkv_bias": False, "activation": "gelu"},
    {"layer_scale": 0.1, "dropout": 0.1, "stochastic_depth": 0.2, "head_bias": -10.0},
    {"image_size": Size(8, 13), "stem": Patches(patch_size=Size(4, 3)), "mlp_dim": 37, "width": 22, "num_heads": 2},
    {"registers": 2, "position": Learned1D(class_token=False)},
    {"registers": 2, "pool": Mean()},
    {"position": NoPosition(), "registers": 1},
    {"stem": ResNetStem(depths=(), patch_size=Size(2, 1), unit=HYBRID_UNIT), "image_size": Size(13, 16)},
    {"stem": ResNetStem(depths=(2, 2, 2, 2), unit=HYBRID_UNIT), "image_size": Size(32, 50)},
    *({"pool": pool} for pool in POOLS),
]
SPEC = ImageSpec(fit=CentralCrop(fraction=0.9), interpolation="bicubic", mean=(0.1, 0.2, 1 / 3), std=(0.3, 0.5, 0.7))


def check_round_trip(model, path):
    again = load_with_report(path)
    assert again.report.lines() == [f"{len(again.report.matched)} parameters matched"]
    assert again.model.settings == model.settings
    assert again.model.image_spec == model.image_spec
    assert again.model.classes == model.classes
    theirs = dict(again.model.named_parameters())
    assert list(theirs) == [name for name, _ in model.named_parameters()]
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, theirs[name]), name


@pytest.mark.parametrize("changes", SMALL)
@pytest.mark.parametrize("fit", [Squash(), CentralCrop(fraction=0.875)])
def test_what_is_written_comes_back_to_the_bit(make_model, write_timm, changes, fit):
    model = make_model(classes=() if "num_classes" in changes else ("ant", "bee", "cat"), **changes)
    size = model.settings.image_size
    model.image_spec = SPEC.model_copy(update={"fit": fit, "height": size.height, "width": size.width})
    check_round_trip(model, write_timm(model))


def test_a_bit_comes_back_to_the_bit(write_timm):
    settings = ResNetSettings(image_size=Size(32, 48), depths=(3, 4, 6, 3), unit=BIT_UNIT, num_classes=2)
    model = build(settings, classes=("ant", "bee"))
    path = write_timm(model)
    assert json.loads(path.with_name("config.json").read_text())["architecture"] == "resnetv2_50x1_bit"
    check_round_trip(model, path)


@pytest.mark.parametrize("changes", [changes for changes in SMALL if "position" not in changes])
def test_without_a_word_of_ours_the_same_model_is_read(make_model, write_timm, changes):
    model = make_model(**changes)
    path = write_timm(model, vitlab=None)
    found, settings = read(path).settings, model.settings
    for field in ("image_size", "stem", "width", "depth", "num_heads", "mlp_dim", "pool", "registers", "activation"):
        assert getattr(found, field) == getattr(settings, field), field
    images = torch.randn(2, 3, *settings.image_size, dtype=torch.float64)
    with torch.inference_mode():
        again = load_with_report(path).model.eval().double()
        assert torch.allclose(again(images), model.double()(images), rtol=0, atol=1e-12)


def test_the_config_is_what_timm_and_transformers_read(make_model):
    tensors, config = export(make_model(classes=("ant", "bee", "cat")))
    assert list(config) == [
        *("architecture", "num_classes", "num_features", "global_pool", "label_names"),
        *("model_args", "pretrained_cfg", "vitlab"),
    ]
    assert config["label_names"] == ["ant", "bee", "cat"] and config["num_features"] == 16
    assert "num_classes" not in config["model_args"]
    assert config["pretrained_cfg"] == {
        "tag": "vitlab",
        "custom_load": False,
        "input_size": [3, 8, 8],
        "fixed_input_size": True,
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "num_classes": 3,
        "pool_size": None,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    assert json.loads(json.dumps(config)) == config
    assert tensors["blocks.0.attn.qkv.weight"].shape == (48, 16)
    assert all(tensor.is_contiguous() for tensor in tensors.values())


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"width": 768, "depth": 12, "num_heads": 12, "stem": Patches()}, "vit_base_patch16_384"),
        ({"width": 1280, "depth": 32, "num_heads": 16, "stem": Patches(patch_size=14)}, "vit_huge_patch14_224"),
        ({"width": 384, "depth": 12, "num_heads": 6, "stem": Patches(patch_size=32)}, "vit_small_patch32_384"),
        ({"stem": Patches()}, "vit_base_patch16_224"),
        ({"stem": ResNetStem(unit=HYBRID_UNIT)}, "vit_base_r50_s16_224"),
    ],
)
def test_a_shape_that_timm_knows_has_its_name(make_settings, changes, name):
    assert architecture_of(make_settings(image_size=384, **changes)) == name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"representation_dim": 6}, "a representation layer; use vitlab convert --to vitlab or --to huggingface$"),
        ({"pool": FirstPatch()}, "pooling of the kind FirstPatch"),
        ({"position": Relative()}, "positions of the kind Relative"),
        ({"position": Learned2D()}, "positions of the kind Learned2D"),
        ({"position": SinCos2D()}, "positions of the kind SinCos2D"),
        ({"position": Learned1D(place="layers")}, "positions of the kind Learned1D in that place"),
        ({"position": NoPosition(), "pool": Mean(), "attention": Axial()}, "axial attention"),
        ({"registers": 2}, "registers without positions"),
        ({"norm_eps": 1e-5}, "an epsilon of 1e-05"),
        ({"stem": ResNetStem(depths=())}, "constants of the paper"),
        ({"stem": ResNetStem(depths=(1,), unit=HYBRID_UNIT)}, r"\(1,\) units"),
        ({"stem": ResNetStem(depths=(), unit=HYBRID_UNIT, patch_size=2), "image_size": 12}, "a feature map of 3×3"),
    ],
)
def test_what_timm_has_not_is_refused_in_one_line(make_settings, changes, message):
    settings = make_settings(**{"image_size": 16, **changes})
    with pytest.raises(WeightsError, match=message) as error:
        export(empty(settings))
    assert "\n" not in str(error.value) and "; use vitlab convert --to vitlab" in str(error.value)


@pytest.mark.parametrize("settings", [ResNetSettings(), ResNetSettings(depths=(1,), unit=BIT_UNIT)])
def test_a_resnet_that_timm_has_not_is_refused(settings):
    with pytest.raises(WeightsError, match=r"; use vitlab convert --to vitlab$"):
        export(empty(settings))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"patch_embed.backbone.conv1.0.weight": torch.zeros(8, 3, 3, 3)},
            r"a stem that no .*\('patch_embed.backbone.conv1",
        ),
        ({"norm.bias": None}, "'encoder.norm.bias' is missing"),
        ({"blocks.1.attn.qkv.weight": torch.zeros(16, 16)}, r"has shape \[16, 16\], not \[48, 16\]"),
        ({"blocks.0.mlp.fc1.weight": None}, "not a complete model of timm"),
        ({"pos_embed": None}, "has no positions, nor says that it has none"),
        ({"pos_embed": torch.zeros(1, 7, 16)}, "has 7 positions, not a square grid"),
        ({"pos_embed": torch.zeros(())}, "not a complete model of timm"),
        ({"norm_pre.weight": torch.zeros(16)}, "has 'norm_pre.weight', which no model known here has"),
        ({"attn_pool.latent": torch.zeros(1, 1, 16)}, "a class token beside attention pooling"),
        ({"patch_embed.proj.weight": torch.zeros(16, 1, 4, 4)}, "images of 1 channels; only RGB models can be read"),
        ({"reg_token": torch.zeros(1, 4, 16), "pos_embed": torch.zeros(1, 9, 16)}, "registers with positions"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_in_one_line(bare_timm, arrays, message):
    with pytest.raises(WeightsError, match=message) as error:
        load_with_report(bare_timm(arrays))
    assert "\n" not in str(error.value)


def test_no_parameter_keeps_the_matrix_that_it_lay_in(make_model, write_timm):
    for name, parameter in load_with_report(write_timm(make_model())).model.named_parameters():
        assert parameter.untyped_storage().nbytes() == parameter.nbytes, name


def test_our_record_of_more_layers_than_there_are_arrays_is_not_believed(make_model, tmp_path):
    """Or a model of that depth would be laid out."""
    model = make_model()
    folder = convert(model, tmp_path / "out", "timm")
    deep = model.settings.model_copy(update={"depth": 900})
    (folder / "config.json").write_text(json.dumps(config_of(deep, model.image_spec, ())))
    assert read(folder / "model.safetensors").settings.depth == model.settings.depth
