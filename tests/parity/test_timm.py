"""ViTs, hybrids and BiT against timm."""

import pytest
import torch

from tests.parity.names import fill, timm_resnet, timm_vit
from vitlab.models.classifier import build
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import ViTSettings
from vitlab.nn.grid import Size
from vitlab.nn.patches import Patches
from vitlab.nn.pooling import AttentionPool, Mean
from vitlab.nn.position import Learned1D
from vitlab.nn.resnet import PostActivation, PreActivation
from vitlab.nn.stem import ResNetStem

VITS = {
    "vit_token": {},
    "vit_avg_fcnorm": {"pool": Mean(norm="mean")},
    "vit_avg_finalnorm": {"pool": Mean(class_token=True)},
    "vit_map_siglip": {"pool": AttentionPool()},
    "vit_nohead": {},
    "vit_no_embed_class": {"position": Learned1D(class_token=False)},
    "vit_noqkvbias_p4": {"qkv_bias": False},
}
UNIT = PostActivation(variance_eps=1e-8, std_eps=0.0, norm_eps=1e-5)
HYBRIDS = {
    "hybrid_r11": ResNetStem(depths=(1, 1), root_width=32, unit=UNIT),
    "hybrid_stem_p8": ResNetStem(depths=(), root_width=32, patch_size=Size(8, 8), unit=UNIT),
}


def vit_settings(config, **changes):
    patch = Size(config["patch_size"], config["patch_size"])
    common = {
        "image_size": Size(*config["img_size"]),
        "stem": Patches(patch_size=patch),
        "width": config["embed_dim"],
        "depth": config["depth"],
        "num_heads": config["num_heads"],
        "mlp_dim": int(config["mlp_ratio"] * config["embed_dim"]),
        "activation": "gelu",
        "norm_eps": config["layer_norm_eps"],
        "num_classes": config["num_classes"] or None,
    }
    return ViTSettings(**common | changes)


def agree_with_vit(case, changes, agree, to_images):
    settings, io = vit_settings(case.config, **changes), case.arrays("io")
    model = fill(build(settings), case.path("params_safetensors"), timm_vit(settings))
    stages = f"{case.name} stages"
    with torch.inference_mode():
        images = to_images(io["input"])
        agree(stages, model.stem(images), io["patch_embed"], **case.tolerance)
        agree(stages, model.encode(model.embed(images)), io["tokens"], **case.tolerance)
        agree(stages, model.features(images), io["pre_logits"], **case.tolerance)
        agree(f"{case.name} logits", model(images), io["output"], **case.tolerance)
        exact = model.double()(images.double())
        agree(f"{case.name} float64", exact, io["output_float64"], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", VITS)
def test_every_stage_of_a_vit_is_that_of_timm(golden, agree, to_images, name):
    agree_with_vit(golden(f"timm/{name}"), VITS[name], agree, to_images)


@pytest.mark.parametrize("name", HYBRIDS)
def test_every_stage_of_a_hybrid_is_that_of_timm(golden, agree, to_images, name):
    agree_with_vit(golden(f"timm/{name}"), {"stem": HYBRIDS[name]}, agree, to_images)


@pytest.mark.parametrize("name", ["bit_21", "bit_21_odd"])
def test_a_bit_is_that_of_timm(golden, agree, to_images, name):
    case = golden(f"timm/{name}")
    config, io = case.config, case.arrays("io")
    settings = ResNetSettings(
        image_size=Size(*config["image"]),
        depths=tuple(config["layers"]),
        root_width=config["stem_chs"],
        unit=PreActivation(variance_eps=config["std_conv_eps"]),
        num_classes=config["num_classes"],
    )
    model = fill(build(settings), case.path("params_safetensors"), timm_resnet(settings))
    with torch.inference_mode():
        images = to_images(io["input"])
        agree(f"{case.name} stages", model.feature_map(images), io["features"], **case.tolerance)
        agree(f"{case.name} stages", model.features(images), io["pre_logits"], **case.tolerance)
        agree(f"{case.name} logits", model(images), io["output"], **case.tolerance)
        exact = model.double()(images.double())
        agree(f"{case.name} float64", exact, io["output_float64"], atol=1e-10, rtol=1e-10)
