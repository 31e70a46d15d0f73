import itertools
import math

import pytest
import torch

from vitlab.inspection.attention import attention_by_layer
from vitlab.inspection.distance import attention_distance, even_distance, patch_distances
from vitlab.nn.grid import Grid, Size
from vitlab.nn.pooling import Mean


def blind(model):
    """Make every token attend to all alike."""
    with torch.no_grad():
        for block in model.encoder.layers:
            block.attention.query.weight.zero_()
            block.attention.query.bias.zero_()
    return model


def test_even_attention_on_the_grid_of_b16_is_116_pixels(make_model):
    model = blind(make_model(image_size=Size(14, 14), stem={"type": "Patches", "patch_size": 1}, pool=Mean()))
    found = attention_distance(model, torch.zeros(1, 3, 14, 14))
    torch.testing.assert_close(found * 16, torch.full((1, 2, 2), 116.49), atol=0.005, rtol=0)


def test_what_goes_to_the_class_token_and_registers_is_not_shared_out(make_model):
    """The author's code drops their rows and columns and does not divide by what is left."""
    sizes = {"image_size": Size(8, 12), "stem": {"type": "Patches", "patch_size": (4, 2)}}
    images = torch.randn(2, 3, 8, 12)
    even = patch_distances(Grid(2, 6), Size(4, 2)).mean()
    for changes, prefix in (({"pool": Mean()}, 0), ({}, 1), ({"registers": 3}, 4)):
        model = blind(make_model(**sizes, **changes))
        torch.testing.assert_close(attention_distance(model, images), (even * 12 / (12 + prefix)).expand(2, 2, 2))
        assert even_distance(model) == pytest.approx(float(even) * 12 / (12 + prefix))


def test_a_distance_is_the_mean_over_patches_of_the_weighted_distance(make_model):
    model = make_model(image_size=Size(8, 12), registers=1)
    images = torch.randn(2, 3, 8, 12)
    expected = torch.zeros(2, 2, 2)
    for layer, weights in enumerate(attention_by_layer(model, images)):
        for query, key in itertools.product(range(6), repeat=2):
            between = 4 * math.hypot(query // 3 - key // 3, query % 3 - key % 3)
            expected[:, layer] += weights[:, :, 2 + query, 2 + key] * between / 6
    torch.testing.assert_close(attention_distance(model, images), expected)


def test_distances_are_in_pixels_on_grids_and_patches_that_are_not_square():
    between = patch_distances(Grid(2, 3), Size(10, 4))
    assert between[0].tolist() == pytest.approx([0, 4, 8, 10, 116**0.5, 164**0.5])
    torch.testing.assert_close(between, between.T)
