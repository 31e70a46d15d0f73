"""Hybrids against the paper authors' code: every stage of the ResNet, then every stage of the ViT that reads it."""

import pytest
import torch

from vitlab.weights.load import load

RELEASED, LINEN = "params_released_naming", "params_linen_naming"
SIZES = {"hybrid_r111_p1": None, "hybrid_r21_p2_odd": (75, 53), "hybrid_stem_p8": (96, 64)}


def channels_last(features):
    """Return the features of the first image as golden feature maps are stored: [1, h, w, c]."""
    return features[:1].permute(0, 2, 3, 1)


@pytest.mark.parametrize(("name", "naming"), [*((name, RELEASED) for name in SIZES), ("hybrid_r21_p2_odd", LINEN)])
def test_logits_are_those_of_the_official_code(golden, agree, to_images, name, naming):
    case = golden(f"official_vit/{name}")
    model, io = load(case.path(naming), trained_size=SIZES[name]).eval(), case.arrays("io")
    assert tuple(model.settings.image_size) == io["input"].shape[1:3]
    with torch.inference_mode():
        agree(f"{case.name} logits", model(to_images(io["input"])), io["output"], **case.tolerance)


@pytest.mark.parametrize("name", SIZES)
def test_the_file_says_how_the_stem_is_built(golden, name):
    case = golden(f"official_vit/{name}")
    stem, resnet = load(case.path(RELEASED), trained_size=SIZES[name]).settings.stem, case.config["resnet"]
    assert stem.depths == tuple(resnet["num_layers"])
    assert stem.root_width == 64 * resnet["width_factor"]
    assert stem.patch_size == tuple(case.config["patch"])


@pytest.mark.parametrize("name", ["hybrid_r111_p1", "hybrid_r21_p2_odd"])
def test_the_feature_maps_are_those_of_the_official_resnet(golden, agree, to_images, name):
    case = golden(f"official_vit/{name}")
    model, io = load(case.path(RELEASED), trained_size=SIZES[name]).eval(), case.arrays("io")
    images, stem = to_images(io["input"]), model.stem
    with torch.inference_mode():
        if "gn_root" in io:
            normed = stem.root.norm(stem.root.conv(images))
            agree(f"{case.name} features", channels_last(normed), io["gn_root"], **case.tolerance)
        features = stem.root(images)
        for number, stage in enumerate(stem.stages, start=1):
            features = stage(features)
            agree(f"{case.name} features", channels_last(features), io[f"resnet_block{number}"], **case.tolerance)
    assert number == len(case.config["resnet"]["num_layers"])


@pytest.mark.parametrize("name", SIZES)
def test_every_stage_is_that_of_the_official_code(golden, agree, to_images, name):
    case = golden(f"official_vit/{name}")
    model, io = load(case.path(RELEASED), trained_size=SIZES[name]).eval(), case.arrays("io")
    images, stage = to_images(io["input"]), f"{case.name} stages"
    with torch.inference_mode():
        grid = model.stem(images).unflatten(1, tuple(model.settings.grid))
        agree(stage, grid, io["embedding_grid"], **case.tolerance)
        through = model.embed(images)
        agree(stage, through, io["with_posembed"], **case.tolerance)
        for index, block in enumerate(model.encoder.layers):
            through = block(through)
            agree(stage, through, io[f"block_{index:02d}"], **case.tolerance)
        agree(stage, model.encode(model.embed(images)), io["encoded"], **case.tolerance)
        agree(stage, model.features(images), io["pre_head"], **case.tolerance)
