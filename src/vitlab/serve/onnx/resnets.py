"""The layers of ResNets and of the hybrids' stem as nodes; kernels are standardised once, when the graph is written."""

from typing import Any, cast

from torch import nn

from vitlab.nn.axial_resnet import AxialUnit, AxisAttention
from vitlab.nn.patches import PatchEmbedding
from vitlab.nn.resnet import PostActivationUnit, PreActivationUnit, Root, StdConv
from vitlab.nn.stem import ResNetEmbedding
from vitlab.serve.onnx.graph import Dim, Graph, Value
from vitlab.serve.onnx.positions import shares

_ALMOST_ZERO = 1e-30
"""onnxruntime (1.31) joins zeros around an image with the pool behind them, which then ignores what is outside."""


def convolution(g: Graph, x: Value, layer: StdConv) -> Value:
    """Return a standardised convolution."""
    weight = g.parameter(layer, "weight", layer.standardised())
    strides = [layer.stride, layer.stride]
    if layer.style.same and layer.stride > 1:
        return g.op("Conv", x, weight, strides=strides, auto_pad="SAME_UPPER")
    return g.op("Conv", x, weight, strides=strides, pads=[layer.kernel // 2] * 4)


def group_norm(g: Graph, x: Value, norm: nn.Module, axes: int) -> Value:
    """Return a GroupNorm of x, whose channels are followed by `axes` others: of each group, then scaled channel by channel."""
    layer = cast(nn.GroupNorm, norm)
    ones, zeros = f"ones_{layer.num_groups}", f"zeros_{layer.num_groups}"
    if ones not in g.weights:
        g.weight(ones, layer.weight.new_ones(layer.num_groups))
        g.weight(zeros, layer.weight.new_zeros(layer.num_groups))
    groups = g.reshape(x, 0, layer.num_groups, -1)
    groups = g.op("InstanceNormalization", groups, ones, zeros, epsilon=layer.eps)
    normed, shape = g.op("Reshape", groups, g.op("Shape", x)), (-1, *(1,) * axes)
    scaled = g.op("Mul", normed, g.parameter(layer, "weight", layer.weight.reshape(shape)))
    return g.op("Add", scaled, g.parameter(layer, "bias", layer.bias.reshape(shape)))


def _activated(g: Graph, x: Value, norm: nn.Module) -> Value:
    return g.op("Relu", group_norm(g, x, norm, 2))


def root(g: Graph, x: Value, layer: Root) -> Value:
    """Return the features of the first stage."""
    x = convolution(g, x, layer.conv)
    if layer.norm is not None:
        x = _activated(g, x, layer.norm)
    window: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2]}
    match layer.pool:
        case "same":
            return g.op("MaxPool", x, auto_pad="SAME_UPPER", **window)
        case "zeros":
            padded = g.op("Pad", x, g.ints(0, 0, 1, 1, 0, 0, 1, 1), g.number(_ALMOST_ZERO))
            return g.op("MaxPool", padded, **window)
        case "ignored":
            return g.op("MaxPool", x, pads=[1] * 4, **window)
        case "none":
            return g.op("MaxPool", x, **window)


def stages(g: Graph, x: Value, layers: nn.ModuleList) -> Value:
    """Return the features after all units."""
    for stage in layers:
        for unit in cast(nn.ModuleList, stage):
            x = _unit(g, x, unit)
    return x


def _unit(g: Graph, x: Value, unit: nn.Module) -> Value:
    match unit:
        case PreActivationUnit():
            y = _activated(g, x, unit.norm1)
            residual = x if unit.conv_proj is None else convolution(g, y, unit.conv_proj)
            y = _activated(g, convolution(g, y, unit.conv1), unit.norm2)
            y = _activated(g, convolution(g, y, unit.conv2), unit.norm3)
            return g.op("Add", residual, convolution(g, y, unit.conv3))
        case PostActivationUnit():
            y = _activated(g, convolution(g, x, unit.conv1), unit.norm1)
            y = _activated(g, convolution(g, y, unit.conv2), unit.norm2)
        case AxialUnit():
            y = g.op("Relu", _axial(g, _activated(g, convolution(g, x, unit.conv1), unit.norm1), unit))
        case _:
            raise TypeError(f"no ONNX nodes for {type(unit).__name__}")
    residual = x
    if unit.conv_proj is not None and unit.norm_proj is not None:
        residual = group_norm(g, convolution(g, x, unit.conv_proj), unit.norm_proj, 2)
    return g.op("Relu", g.op("Add", residual, group_norm(g, convolution(g, y, unit.conv3), unit.norm3, 2)))


def _axial(g: Graph, x: Value, unit: AxialUnit) -> Value:
    """Return attention along the height, then along the width, at half the size where the unit halves it."""
    channels = unit.rows.norm_out.num_channels
    rows, columns = g.size(x, 2), g.size(x, 3)
    x = g.reshape(g.transpose(x, 0, 3, 2, 1), -1, rows, channels)
    x = g.reshape(_axis_attention(g, x, unit.rows, rows), -1, columns, rows, channels)
    x = g.reshape(g.transpose(x, 0, 2, 1, 3), -1, columns, channels)
    x = g.reshape(_axis_attention(g, x, unit.columns, columns), -1, rows, columns, channels)
    x = g.transpose(x, 0, 3, 1, 2)
    if unit.stride == 1:
        return x
    window: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}
    return g.op("AveragePool", x, auto_pad="SAME_UPPER", count_include_pad=0, **window)


def _axis_attention(g: Graph, x: Value, layer: AxisAttention, length: Dim) -> Value:
    """Return the attended values of every cell of an axis [b, n, c] with its relative positions."""
    heads, channels = layer.num_heads, layer.norm_out.num_channels
    dim = channels // heads
    qkv = g.op("MatMul", x, g.parameter(layer.qkv, "weight", layer.qkv.weight.T), name=g.modules[layer.qkv])
    qkv = group_norm(g, g.transpose(qkv, 0, 2, 1), layer.norm_qkv, 1)
    qkv = g.reshape(qkv, 0, heads, 2 * dim, length)
    query, key, value = (g.slice(qkv, 2, *part) for part in _thirds(dim))
    offsets = _offsets(g, layer, length)
    r_query, r_key, r_value = (g.slice(offsets, 0, *part) for part in _thirds(dim))
    logits = g.op("MatMul", g.transpose(query, 0, 1, 3, 2), key)
    logits = g.op("Add", logits, g.op("Einsum", query, r_key, equation="bmdi,dij->bmij"))
    logits = g.op("Add", logits, g.op("Einsum", key, r_query, equation="bmdj,dji->bmij"))
    weights = g.op("Softmax", logits, axis=-1)
    read = g.op("MatMul", value, g.transpose(weights, 0, 1, 3, 2))
    read = g.op("Add", read, g.op("Einsum", weights, r_value, equation="bmij,dij->bmdi"))
    return g.transpose(group_norm(g, g.reshape(read, 0, channels, length), layer.norm_out, 1), 0, 2, 1)


def _thirds(dim: int) -> list[tuple[int, int]]:
    """Return where the rows of queries, keys and values begin and end."""
    return [(0, dim // 2), (dim // 2, dim), (dim, 2 * dim)]


def _offsets(g: Graph, layer: AxisAttention, length: Dim) -> Value:
    """Return the vector for each pair of cells: [2d, n, n], resampled as `nn.axial_resnet.resize_relative` does."""
    table = g.parameter(layer, "relative", layer.relative)
    if not isinstance(length, int):
        count = g.op("Sub", g.op("Add", length, length), g.ints(1))
        table = g.op("MatMul", table, g.transpose(shares(g, count, 2 * layer.length - 1), 1, 0))
    place = g.floats(length)
    down, across = g.op("Unsqueeze", place, g.ints(1)), g.op("Unsqueeze", place, g.ints(0))
    last = g.number(float(length - 1)) if isinstance(length, int) else g.op("Sub", g.as_float(length), g.number(1.0))
    index = g.as_int(g.op("Add", g.op("Sub", down, across), last))
    return g.op("Gather", table, index, axis=1)


def embedding(g: Graph, x: Value, stem: nn.Module) -> Value:
    """Return the tokens of the patches where they are: [b, d, rows, columns].

    Raises:
        TypeError: the kind of stem has no nodes.
    """
    if isinstance(stem, ResNetEmbedding):
        return embedding(g, stages(g, root(g, x, stem.root), stem.stages), stem.embedding)
    if not isinstance(stem, PatchEmbedding):
        raise TypeError(f"no ONNX nodes for {type(stem).__name__}")
    layer, (height, width) = stem.projection, stem.patch_size
    weight = layer.weight.reshape(layer.out_features, -1, height, width)
    parts = g.parameter(layer, "weight", weight), g.parameter(layer, "bias", layer.bias)
    return g.op("Conv", x, *parts, strides=[height, width], name=g.modules[layer])
