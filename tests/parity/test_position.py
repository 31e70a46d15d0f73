"""Positions and poolings against big_vision."""

import pytest
import torch

from vitlab.nn.grid import Grid
from vitlab.nn.position import sincos
from vitlab.weights.load import load

VITS = ["vit_sincos_gap", "vit_sincos_map_rep", "vit_learn_map", "vit_learn_gap", "vit_learn_tok"]


@pytest.mark.parametrize("name", ["14x14x64", "7x7x32", "3x5x8", "24x24x192"])
def test_sines_and_cosines_are_those_of_big_vision(golden, agree, name):
    case = golden(f"posemb/sincos2d_{name}")
    config = case.config
    ours = sincos(Grid(config["h"], config["w"]), config["width"], config["temperature"])
    agree(case.name, ours[None], case.arrays("npz")["pos"], **case.tolerance)


@pytest.mark.parametrize("name", VITS)
def test_every_stage_is_that_of_big_vision(golden, agree, to_images, name):
    case = golden(f"big_vision/{name}")
    model, io = load(case.path("params"), trained_size=tuple(case.config["image"])).eval(), case.arrays("io")
    images, stage, prefix = to_images(io["input"]), f"{case.name} stages", model.settings.num_prefix
    with torch.inference_mode():
        patches = model.stem(images).unflatten(1, tuple(model.settings.grid))
        agree(stage, patches, io["stem"], **case.tolerance)
        through = model.embed(images)
        agree(stage, through[:, prefix:], io["with_posemb"], **case.tolerance)
        for index, block in enumerate(model.encoder.layers):
            through = block(through)
            agree(stage, through, io[f"block{index:02d}"], **case.tolerance)
        encoded = model.encode(model.embed(images))
        agree(stage, encoded, io["encoded"], **case.tolerance)
        agree(stage, model.pooling(encoded), io["head_input"], **case.tolerance)
        agree(stage, model.features(images), io["pre_logits"], **case.tolerance)
        agree(f"{case.name} logits", model(images), io["output"], **case.tolerance)
