import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from vitlab.nn.axial_resnet import AXIAL, AxialAttention, AxialUnit, AxisAttention, resize_relative
from vitlab.nn.grid import Size

HEADS, LENGTH, CHANNELS = 4, 5, 32
DIM = CHANNELS // HEADS


def randomised(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + 0.1)
    return module


@pytest.fixture
def attention():
    return randomised(AxisAttention(CHANNELS, LENGTH, HEADS, AXIAL))


def by_hand(attention, x):
    """One image, head, query and key at a time: q · k + q · r_key + k · r_query, values joined by r_value."""
    out = torch.zeros(x.shape[0], CHANNELS, LENGTH)
    half = DIM // 2
    r_query, r_key, r_value = attention.relative[:half], attention.relative[half:DIM], attention.relative[DIM:]
    for image, qkv in enumerate(attention.norm_qkv(attention.qkv(x).transpose(1, 2))):
        for head in range(HEADS):
            own = qkv[2 * DIM * head : 2 * DIM * (head + 1)]
            query, key, value = own[:half], own[half:DIM], own[DIM:]
            for i in range(LENGTH):
                logits = torch.stack(
                    [
                        query[:, i] @ key[:, j]
                        + query[:, i] @ r_key[:, i - j + LENGTH - 1]
                        + key[:, j] @ r_query[:, j - i + LENGTH - 1]
                        for j in range(LENGTH)
                    ]
                )
                weights = torch.softmax(logits, dim=0)
                read = sum(weights[j] * (value[:, j] + r_value[:, i - j + LENGTH - 1]) for j in range(LENGTH))
                out[image, DIM * head : DIM * (head + 1), i] = read
    return attention.norm_out(out).transpose(1, 2)


def test_attention_along_an_axis_is_that_by_hand(attention):
    x = torch.randn(2, LENGTH, CHANNELS)
    torch.testing.assert_close(attention(x), by_hand(attention, x), rtol=1e-4, atol=1e-4)


def test_there_are_vectors_for_every_offset_and_half_as_many_for_queries_and_keys(attention):
    assert attention.relative.shape == (2 * DIM, 2 * LENGTH - 1)
    assert attention.qkv.weight.shape == (2 * CHANNELS, CHANNELS)
    assert attention.qkv.bias is None


def test_gradients_reach_every_vector(attention):
    attention(torch.randn(2, LENGTH, CHANNELS)).square().mul(torch.rand(CHANNELS)).sum().backward()
    assert bool((attention.relative.grad != 0).all())


@pytest.mark.parametrize("size", [Size(4, 6), Size(5, 3)])
def test_a_unit_attends_along_the_height_and_then_along_the_width(size):
    unit = randomised(AxialUnit(32, 32, 1, size, HEADS))
    x = torch.randn(2, 32, *size)
    y = functional.relu(unit.norm1(unit.conv1(x)))
    down = torch.stack([unit.rows(y[:, :, :, w].transpose(1, 2)).transpose(1, 2) for w in range(size.width)], dim=3)
    across = torch.stack(
        [unit.columns(down[:, :, h].transpose(1, 2)).transpose(1, 2) for h in range(size.height)], dim=2
    )
    expected = unit.norm_proj(unit.conv_proj(x)) + unit.norm3(unit.conv3(functional.relu(across)))
    torch.testing.assert_close(unit(x), functional.relu(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [Size(4, 6), Size(5, 3), Size(1, 7)])
def test_a_unit_of_stride_two_averages_the_cells_that_there_are(size):
    unit = randomised(AxialUnit(32, 32, 2, size, HEADS))
    read, x = [], torch.randn(1, 32, *size)
    unit.columns.register_forward_hook(lambda _, __, output: read.append(output.reshape(*size, 32)))
    unit.conv3.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0][0]))
    out = unit(x)
    rows, columns = math.ceil(size.height / 2), math.ceil(size.width / 2)
    assert out.shape == (1, 128, rows, columns)
    for row in range(rows):
        for column in range(columns):
            cells = read[0][2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            expected = functional.relu(cells.mean(dim=(0, 1)))
            torch.testing.assert_close(read[1][:, row, column], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("old", "new"), [(7, 12), (7, 4), (5, 5), (3, 9)])
def test_resizing_keeps_the_ends_and_the_centre(old, new):
    relative = torch.randn(6, 2 * old - 1)
    resized = resize_relative(relative, new)
    assert resized.shape == (6, 2 * new - 1)
    for before, after in ((0, 0), (old - 1, new - 1), (-1, -1)):
        torch.testing.assert_close(resized[:, after], relative[:, before])


def test_a_line_of_offsets_stays_a_line():
    line = torch.linspace(-1, 1, 9)[None]
    torch.testing.assert_close(resize_relative(line, 8), torch.linspace(-1, 1, 15)[None])


def test_an_attention_without_neighbours_returns_the_value(attention):
    alone = randomised(AxisAttention(CHANNELS, 1, HEADS, AXIAL))
    nn.init.zeros_(alone.relative)
    x = torch.randn(3, 1, CHANNELS)
    value = alone.norm_qkv(alone.qkv(x).transpose(1, 2)).unflatten(1, (HEADS, 2 * DIM))[:, :, DIM:].flatten(1, 2)
    torch.testing.assert_close(alone(x), alone.norm_out(value).transpose(1, 2))
    assert AxialAttention().num_heads == 8
