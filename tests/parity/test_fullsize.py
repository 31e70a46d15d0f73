"""Whole models at their published sizes; the weights come from the recipe in golden/README.md."""

import zlib

import numpy as np
import pytest
import torch

from vitlab.models.catalog import settings_for
from vitlab.models.classifier import empty
from vitlab.weights.official import LINEN, name_table, to_ours

SMALL = ["ViT-S_16_160x224", "ViT-B_16_224x224", "ViT-B_32_224x224_i21k_rep"]
LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in ("ViT-L_32_224x224", "ViT-H_14_224x224")]


def draw(name, recipe):
    entry = recipe["params"][name]
    random = np.random.RandomState((zlib.crc32(name.encode()) + recipe["seed"]) & 0xFFFFFFFF)
    steps = random.randint(-64, 65, size=entry["shape"])
    return (entry["base"] + entry["amp"] * (steps / 64.0)).astype(np.float32)


def draw_images(seed, n, h, w):
    random = np.random.RandomState(seed)
    yy, xx = np.meshgrid(np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij")
    out = np.empty((n, h, w, 3))
    for i in range(n):
        for j in range(3):
            a, b, p, _ = random.uniform(-4, 4, 4)
            out[i, :, :, j] = 0.5 * np.sin(a * xx + b * yy + p) + 0.5 * random.uniform(-1, 1, (h, w))
    return np.float32(np.round(np.clip(out, -1, 1) * 128) / 128)


@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_a_published_size_gives_the_logits_of_the_official_code(golden, agree, to_images, name):
    case = golden(f"fullsize/{name}")
    recipe, io, config = case.json("recipe"), case.arrays("io"), case.config
    settings = settings_for(config["model_name"], config["num_classes"], tuple(config["image"]))
    settings = settings.model_copy(update={"representation_dim": config["representation_size"]})
    table, model = name_table(settings, LINEN), empty(settings).to_empty(device="cpu").eval()
    assert set(table.values()) == set(recipe["params"])
    with torch.inference_mode():
        for ours, parameter in model.named_parameters():
            array = draw(table[ours], recipe)
            if check := recipe["checks"].get(table[ours]):
                drawn = [array.flat[0], array.flat[-1], array.sum(dtype=np.float64)]
                np.testing.assert_allclose(drawn, [check["first"], check["last"], check["sum"]], rtol=1e-6, atol=1e-6)
            parameter.copy_(to_ours(ours, array, tuple(parameter.shape)))
        images = recipe["input"]
        features = model.features(to_images(draw_images(images["seed"], images["n"], images["h"], images["w"])))
        agree(case.name, features, io["pre_head"], **case.tolerance)
        agree(case.name, model.head(features), io["output"], **case.tolerance)
    assert sum(parameter.numel() for parameter in model.parameters()) == case.entry["num_params"]
