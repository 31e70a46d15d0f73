import numpy as np
import pytest
import torch

from vitlab.models.classifier import empty
from vitlab.nn.grid import Size
from vitlab.nn.patches import Patches
from vitlab.nn.pooling import Mean
from vitlab.nn.stem import ResNetStem
from vitlab.weights.official import (
    LINEN,
    RELEASED,
    file_shape,
    name_table,
    to_official,
    to_ours,
)

SMALL = [
    {},
    {"representation_dim": 6},
    {"pool": Mean()},
    {"num_classes": None},
    {"stem": Patches(patch_size=Size(2, 4)), "num_heads": 4},
    {"stem": ResNetStem(depths=(1, 2), root_width=32, patch_size=Size(1, 2)), "image_size": Size(32, 64)},
]


def parameters(settings):
    return {name: tuple(parameter.shape) for name, parameter in empty(settings).named_parameters()}


@pytest.mark.parametrize("naming", [RELEASED, LINEN])
@pytest.mark.parametrize("changes", SMALL)
def test_every_parameter_has_one_name_in_the_file(make_settings, changes, naming):
    settings = make_settings(**changes)
    table = name_table(settings, naming)
    assert set(table) == set(parameters(settings))
    assert len(set(table.values())) == len(table)


@pytest.mark.parametrize("changes", SMALL)
def test_an_array_of_the_file_comes_back_from_ours(make_settings, make_arrays, changes):
    settings = make_settings(**changes)
    arrays, table = make_arrays(settings), name_table(settings)
    for name, shape in parameters(settings).items():
        array = arrays[table[name]]
        np.testing.assert_array_equal(to_official(name, to_ours(name, array, shape), settings), array, err_msg=name)


@pytest.mark.parametrize("changes", SMALL)
def test_our_parameter_comes_back_from_the_file(make_settings, changes):
    settings = make_settings(**changes)
    for name, shape in parameters(settings).items():
        tensor = torch.randn(shape)
        array = to_official(name, tensor, settings)
        assert array.shape == file_shape(name, settings, shape)
        assert torch.equal(to_ours(name, array, shape), tensor), name


def test_matrices_are_transposed_and_heads_lie_side_by_side(make_settings, make_arrays):
    settings = make_settings(num_heads=4)
    arrays, shapes = make_arrays(settings), parameters(settings)
    attention = "Transformer/encoderblock_1/MultiHeadDotProductAttention_1"
    head, place, channel = 2, 3, 5
    row = head * 4 + place
    query = to_ours("encoder.blocks.1.attention.query.weight", arrays[f"{attention}/query/kernel"], (16, 16))
    assert float(query[row, channel]) == arrays[f"{attention}/query/kernel"][channel, head, place]
    out = to_ours("encoder.blocks.1.attention.out.weight", arrays[f"{attention}/out/kernel"], (16, 16))
    assert float(out[channel, row]) == arrays[f"{attention}/out/kernel"][head, place, channel]
    bias = to_ours("encoder.blocks.1.attention.key.bias", arrays[f"{attention}/key/bias"], (16,))
    assert float(bias[row]) == arrays[f"{attention}/key/bias"][head, place]
    stem = to_ours("stem.projection.weight", arrays["embedding/kernel"], shapes["stem.projection.weight"])
    assert float(stem.reshape(16, 3, 4, 4)[7, 2, 1, 3]) == arrays["embedding/kernel"][1, 3, 2, 7]
