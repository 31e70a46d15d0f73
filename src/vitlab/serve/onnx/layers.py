"""The Transformer's layers as nodes (equations 2–4), for inference: without dropout and stochastic depth."""

from typing import cast

import torch
from torch import Tensor, nn

from vitlab.nn.attention import SelfAttention
from vitlab.nn.axial import AxialBlock
from vitlab.nn.encoder import MLP, Block, Branch, Encoder
from vitlab.nn.pooling import AttentionPooling, OneToken, PatchMean
from vitlab.serve.onnx.graph import Graph, Value
from vitlab.serve.onnx.positions import Layout, added_rows, relative_logits


def linear(g: Graph, x: Value, layer: nn.Linear, scale: float = 1.0) -> Value:
    """Return `layer` of the last axis of x, times `scale`."""
    product = g.op("MatMul", x, g.parameter(layer, "weight", layer.weight.T * scale), name=g.modules[layer])
    bias = cast(Tensor | None, layer.bias)
    return product if bias is None else g.op("Add", product, g.parameter(layer, "bias", bias * scale))


def layer_norm(g: Graph, x: Value, norm: nn.Module) -> Value:
    """Return a LayerNorm over the last axis, or x where there is none."""
    if not isinstance(norm, nn.LayerNorm):
        return x
    weight, bias = g.parameter(norm, "weight", norm.weight), g.parameter(norm, "bias", norm.bias)
    return g.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=norm.eps)


def mlp(g: Graph, x: Value, layer: MLP) -> Value:
    """Return two linear layers with a GELU between."""
    return linear(g, g.op("Gelu", linear(g, x, layer.hidden), approximate=layer.approximate), layer.out)


def attend(g: Graph, queries: Value, x: Value, layer: SelfAttention, layout: Layout | None) -> Value:
    """Return what each of `queries` reads from the tokens x; the division by √e is in the weights of the queries."""
    width = layer.query.in_features
    dim = width // layer.num_heads
    query, key, value = (
        g.transpose(g.reshape(linear(g, given, part, scale), 0, 0, layer.num_heads, dim), *order)
        for given, part, scale, order in (
            (queries, layer.query, dim**-0.5, (0, 2, 1, 3)),
            (x, layer.key, 1.0, (0, 2, 3, 1)),
            (x, layer.value, 1.0, (0, 2, 1, 3)),
        )
    )
    logits = g.op("MatMul", query, key)
    if layer.relative is not None and layout is not None:
        logits = g.op("Add", logits, relative_logits(g, query, layer.relative, layout))
    read = g.op("MatMul", g.op("Softmax", logits, axis=-1), value)
    return linear(g, g.reshape(g.transpose(read, 0, 2, 1, 3), 0, 0, width), layer.out)


def block(g: Graph, x: Value, layer: Block, layout: Layout, outputs: int | None = None) -> Value:
    """Return the first `outputs` tokens after a block (all when None)."""
    if layer.position is not None:
        x = g.op("Add", x, added_rows(g, layer.position, layout))
    normed = layer_norm(g, x, layer.norm1)
    queries = normed if outputs is None else g.slice(normed, 1, 0, outputs)
    x = x if outputs is None else g.slice(x, 1, 0, outputs)
    x = g.op("Add", x, _branch(g, attend(g, queries, normed, layer.attention, layout), layer.branch1))
    return g.op("Add", x, _branch(g, mlp(g, layer_norm(g, x, layer.norm2), layer.mlp), layer.branch2))


def _branch(g: Graph, x: Value, branch: Branch) -> Value:
    return x if branch.scale is None else g.op("Mul", x, g.parameter(branch, "scale", branch.scale))


def _axial_block(g: Graph, x: Value, layer: AxialBlock, layout: Layout) -> Value:
    """Return the tokens after attention within columns, then within rows."""
    rows, columns, width = layout.rows, layout.columns, layer.row.norm1.normalized_shape[0]
    tall = g.transpose(g.reshape(x, 0, rows, columns, width), 0, 2, 1, 3)
    tall = block(g, g.reshape(tall, -1, rows, width), layer.row, layout)
    tall = g.transpose(g.reshape(tall, -1, columns, rows, width), 0, 2, 1, 3)
    wide = block(g, g.reshape(tall, -1, columns, width), layer.column, layout)
    return g.op("Reshape", wide, g.op("Shape", x))


def encoder(g: Graph, x: Value, layers: Encoder, layout: Layout, outputs: int | None) -> Value:
    """Return the first `outputs` encoded tokens (all when None); the last block leaves out the others."""
    last = len(layers.blocks) - 1
    for index, layer in enumerate(layers.blocks):
        if isinstance(layer, AxialBlock):
            x = _axial_block(g, x, layer, layout)
        else:
            x = block(g, x, cast(Block, layer), layout, outputs if index == last else None)
    return layer_norm(g, x, layers.norm)


def pooling(g: Graph, x: Value, layer: nn.Module) -> Value:
    """Return one vector an image: [b, d].

    Raises:
        TypeError: the kind of pooling has no nodes.
    """
    end = torch.iinfo(torch.int64).max
    match layer:
        case OneToken():
            return g.op("Squeeze", g.slice(x, 1, layer.index, layer.index + 1), g.ints(1))
        case PatchMean():
            return layer_norm(g, g.mean(g.slice(x, 1, layer.prefix, end) if layer.prefix else x, 1), layer.norm)
        case AttentionPooling():
            width = layer.attention.query.in_features
            probe = g.parameter(layer, "probe", layer.probe)
            probe = g.op("Expand", probe, g.shape(g.size(x, 0), 1, width))
            patches = g.slice(x, 1, layer.prefix, end) if layer.prefix else x
            read = attend(g, probe, patches, layer.attention, None)
            return g.op("Squeeze", g.op("Add", read, mlp(g, layer_norm(g, read, layer.norm), layer.mlp)), g.ints(1))
        case _:
            raise TypeError(f"no ONNX nodes for {type(layer).__name__}")
