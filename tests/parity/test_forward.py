"""The forward pass against the paper authors' code, through every public stage."""

import pytest
import torch

from vitlab.weights.load import load

RELEASED, LINEN = "params_released_naming", "params_linen_naming"
POOLED = {
    "token_p16": None,
    "token_p16_rep": None,
    "gap_p16": None,
    "gap_p14_rep": None,
    "token_p4_nohead": None,
    "token_p14_nonsquare": (42, 70),
    "token_p4_nonsquare_rep": (20, 12),
    "token_p16_oddsize": (70, 50),
}


@pytest.mark.parametrize(("name", "naming"), [*((name, RELEASED) for name in POOLED), ("token_p16", LINEN)])
def test_logits_are_those_of_the_official_code(golden, agree, to_images, name, naming):
    case = golden(f"official_vit/{name}")
    model, io = load(case.path(naming), trained_size=POOLED[name]).eval(), case.arrays("io")
    assert tuple(model.settings.image_size) == io["input"].shape[1:3]
    with torch.inference_mode():
        agree(f"{case.name} logits", model(to_images(io["input"])), io["output"], **case.tolerance)


@pytest.mark.parametrize("name", POOLED)
def test_every_stage_is_that_of_the_official_code(golden, agree, to_images, name):
    case = golden(f"official_vit/{name}")
    model, io = load(case.path(RELEASED), trained_size=POOLED[name]).eval(), case.arrays("io")
    images = to_images(io["input"])
    stage = f"{case.name} stages"
    with torch.inference_mode():
        patches = model.stem(images).unflatten(1, tuple(model.settings.grid))
        agree(stage, patches, io["embedding_grid"], **case.tolerance)
        tokens = model.embed(images)
        agree(stage, tokens, io["with_posembed"], **case.tolerance)
        through = tokens
        for index, block in enumerate(model.encoder.layers):
            through = block(through)
            agree(stage, through, io[f"block_{index:02d}"], **case.tolerance)
        encoded = model.encode(tokens)
        agree(stage, encoded, io["encoded"], **case.tolerance)
        if "pooled" in io:
            agree(stage, model.pooling(encoded), io["pooled"], **case.tolerance)
        agree(stage, model.pool(encoded), io["pre_head"], **case.tolerance)
        agree(stage, model.features(images), io["pre_head"], **case.tolerance)


@pytest.mark.parametrize("name", ["unpooled_p16", "token_unpooled_p16"])
def test_the_head_on_every_token_is_the_official_unpooled_classifier(golden, agree, to_images, name):
    case = golden(f"official_vit/{name}")
    model, io = load(case.path(RELEASED)).eval(), case.arrays("io")
    with torch.inference_mode():
        encoded = model.encode(model.embed(to_images(io["input"])))
        agree(case.name, encoded, io["encoded"], **case.tolerance)
        agree(case.name, model.head(encoded), io["output"], **case.tolerance)


@pytest.mark.parametrize("name", ["token_p16", "gap_p14_rep"])
def test_exact_gelu_is_not_what_the_official_code_computes(golden, to_images, name):
    """The tolerance of these tests tells the two forms of GELU apart."""
    case = golden(f"official_vit/{name}")
    model, io = load(case.path(RELEASED)).eval(), case.arrays("io")
    for block in model.encoder.layers:
        block.mlp.approximate = "none"
    with torch.inference_mode():
        wrong = model(to_images(io["input"]))
    assert not torch.allclose(wrong, torch.from_numpy(io["output"]), **case.tolerance)
