import numpy as np
import pytest
import torch

from tests.contract.checks import images_of
from tests.contract.examples import EXAMPLES, make
from vitlab.errors import WeightsError
from vitlab.inspection import figures
from vitlab.inspection.attention import attends_globally, attention_by_layer, rollout
from vitlab.models.vit import Global, ViT


def is_global(example):
    return isinstance(getattr(example.settings(), "attention", None), Global)


GLOBAL = [example for example in EXAMPLES if is_global(example)]
OTHERS = [example for example in EXAMPLES if not is_global(example)]
each_global = pytest.mark.parametrize("example", GLOBAL, ids=str)


def test_both_sorts_of_model_are_there():
    assert {example.family.__name__ for example in OTHERS} == {"ViTSettings", "ResNetSettings"}
    assert len(GLOBAL) >= 15


@each_global
def test_rollout_is_a_map_on_the_grid_of_patches(model, size):
    maps = rollout(model, images_of(model))
    assert maps.shape == (3, *model.settings.grid)
    assert bool((maps >= 0).all())
    torch.testing.assert_close(maps.amax(dim=(1, 2)), torch.ones(3))
    torch.testing.assert_close(rollout(model, images_of(model)[1:2]), maps[1:2])


@each_global
@torch.inference_mode()
def test_the_weights_of_a_layer_are_those_that_its_attention_uses(model):
    """The fused attention shows no weights; with these it gives the same output."""
    seen = []
    for block in model.encoder.layers:
        block.attention.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    images = images_of(model)
    weights = list(attention_by_layer(model, images))
    assert len(weights) == len(seen) == model.settings.depth
    for given, (block, (tokens, output)) in zip(weights, zip(model.encoder.layers, seen, strict=True), strict=True):
        torch.testing.assert_close(given.sum(dim=3), torch.ones(given.shape[:3]))
        value = block.attention.value(tokens).unflatten(2, (model.settings.num_heads, -1)).transpose(1, 2)
        read = block.attention.out((given @ value).transpose(1, 2).flatten(2))
        torch.testing.assert_close(read, output, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(block.attention.read(given, tokens), output, atol=1e-5, rtol=1e-4)


@each_global
def test_what_a_model_looks_at_can_be_laid_over_its_image(model):
    image = np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)
    prepared, shown = figures.rollout_overlay(model, image)
    assert shown.shape == prepared.shape == (*model.settings.image_size, 3)


@pytest.mark.parametrize("example", OTHERS, ids=str)
def test_rollout_refuses_a_model_without_attention_between_all_patches(example):
    model = make(example.settings())
    assert not attends_globally(model)
    with pytest.raises(WeightsError, match="no attention between all of its patches") as error:
        figures.rollout(model, np.zeros((8, 8, 3), np.uint8))
    assert "\n" not in str(error.value)


def test_rollout_is_drawn_for_a_hybrid():
    example = next(each for each in GLOBAL if "stem=ResNetStem" in each.name)
    model = make(example.settings())
    assert isinstance(model, ViT)
    assert figures.rollout(model, np.zeros((8, 8, 3), np.uint8)).svg().startswith("<svg")
