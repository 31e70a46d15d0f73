"""ViTs, hybrids and BiT against timm: its files read, and every stage of the models."""

import json
import shutil

import pytest
import torch

import vitlab
from vitlab.models.classifier import empty
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import ViTSettings
from vitlab.nn.grid import Size
from vitlab.nn.patches import Patches
from vitlab.nn.pooling import AttentionPool, Mean
from vitlab.nn.position import Learned1D
from vitlab.nn.resnet import PostActivation, PreActivation
from vitlab.nn.stem import ResNetStem
from vitlab.weights.layout import Beside
from vitlab.weights.timm import contents_of, is_timm

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
VITS_AND_HYBRIDS = VITS | {
    "hybrid_r11": {"stem": ResNetStem(depths=(1, 1), root_width=32, unit=UNIT)},
    "hybrid_stem_p8": {"stem": ResNetStem(depths=(), root_width=32, patch_size=Size(8, 8), unit=UNIT)},
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


def resnet_settings(config):
    return ResNetSettings(
        image_size=Size(*config["image"]),
        depths=tuple(config["layers"]),
        root_width=config["stem_chs"],
        unit=PreActivation(variance_eps=config["std_conv_eps"]),
        num_classes=config["num_classes"],
    )


@pytest.fixture
def loaded(tmp_path):
    """The model of a case's file, with the config.json that lies beside such files; all of it is used."""

    def make(case):
        config = case.config
        path = shutil.copy(case.path("params_safetensors"), tmp_path / "model.safetensors")
        said = {name: config[name] for name in ("num_heads", "global_pool") if name in config}
        said["img_size"] = config["image"] if "image" in config else config["img_size"]
        (tmp_path / "config.json").write_text(json.dumps({"num_classes": config["num_classes"], "model_args": said}))
        model, report = (result := vitlab.load_with_report(path)).model, result.report
        assert report.lines() == [f"{len(report.matched)} parameters matched"]
        return model.eval()

    return make


def agree_with_output(case, model, images, io, agree):
    agree(f"{case.name} logits", model(images), io["output"], **case.tolerance)
    exact = model.double()(images.double())
    agree(f"{case.name} float64", exact, io["output_float64"], atol=1e-10, rtol=1e-10)


# timm/vit_dynamic_size and timm/posemb_* are left out: there timm resizes positions by a bicubic of its own, we as the paper does.
@pytest.mark.parametrize("name", VITS_AND_HYBRIDS)
def test_every_stage_of_a_vit_or_hybrid_is_that_of_timm(golden, agree, to_images, loaded, name):
    case = golden(f"timm/{name}")
    model, io, stages = loaded(case), case.arrays("io"), f"{case.name} stages"
    assert model.settings == vit_settings(case.config, **VITS_AND_HYBRIDS[name])
    with torch.inference_mode():
        images = to_images(io["input"])
        agree(stages, model.stem(images), io["patch_embed"], **case.tolerance)
        agree(stages, model.encode(model.embed(images)), io["tokens"], **case.tolerance)
        agree(stages, model.features(images), io["pre_logits"], **case.tolerance)
        agree_with_output(case, model, images, io, agree)


@pytest.mark.parametrize("name", ["bit_21", "bit_21_odd"])
def test_every_stage_of_a_bit_is_that_of_timm(golden, agree, to_images, loaded, name):
    case = golden(f"timm/{name}")
    model, io = loaded(case), case.arrays("io")
    assert model.settings == resnet_settings(case.config)
    with torch.inference_mode():
        images = to_images(io["input"])
        agree(f"{case.name} stages", model.feature_map(images), io["features"], **case.tolerance)
        agree(f"{case.name} stages", model.features(images), io["pre_logits"], **case.tolerance)
        agree_with_output(case, model, images, io, agree)


RESNETS = [f"resnetv2_{depth}_bit" for depth in ("50x1", "50x3", "101x1", "101x3", "152x2", "152x4")]
WITH_BACKBONE = ["base_r50_s16_384", "base_r50_s16_224", "large_r50_s32_224", "small_r26_s32_224", "tiny_r_s16_p8_224"]
PLAIN = [f"base_patch{kind}" for kind in ("16_224", "16_384", "32_224", "8_224", "16_siglip_224")]
PLAIN += [f"large_patch{kind}" for kind in ("16_224", "32_224", "32_384")]
PLAIN += ["huge_patch14_224", "tiny_patch16_224", "small_patch16_224", "small_patch32_224"]


@pytest.mark.parametrize("name", [*RESNETS, *(f"vit_{name}" for name in (*PLAIN, *WITH_BACKBONE))])
def test_names_and_shapes_are_those_of_timm(golden, tmp_path, name):
    listing = golden(f"timm/listing_{name}").json()
    shapes = {name: tuple(shape) for name, shape in listing["state_dict"].items()}
    assert is_timm(shapes)
    contents = contents_of(tmp_path, shapes, Beside())
    assert (contents.missing, contents.extra) == ((), ())
    assert all(shapes[piece.source] == piece.shape for piece in contents.pieces.values())
    assert sum(parameter.numel() for parameter in empty(contents.settings).parameters()) == listing["num_params"]
    if "_224" in name or "_384" in name:
        assert contents.settings.image_size.height == int(name.rpartition("_")[2])
