"""Weights and images that are drawn again instead of stored; the recipe is in golden/README.md."""

import zlib

import numpy as np
import torch


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


def input_of(recipe):
    """Draw the images that a recipe asks for."""
    return draw_images(*(recipe["input"][key] for key in ("seed", "n", "h", "w")))


@torch.no_grad()
def fill(model, table, recipe, to_ours):
    """Give an empty model the weights of a recipe; `table` has its names for ours, `to_ours` (name, array, shape) its layout."""
    assert set(table.values()) == set(recipe["params"])
    model.to_empty(device="cpu")
    for ours, parameter in model.named_parameters():
        array = draw(table[ours], recipe)
        if check := recipe["checks"].get(table[ours]):
            drawn = [array.flat[0], array.flat[-1], array.sum(dtype=np.float64)]
            np.testing.assert_allclose(drawn, [check["first"], check["last"], check["sum"]], rtol=1e-6, atol=1e-6)
        parameter.copy_(to_ours(ours, array, tuple(parameter.shape)))
    return model.eval()
