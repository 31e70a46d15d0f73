"""A whole model as an ONNX graph: uint8 images in, logits and features out.

It is written from the modules instead of being traced: in a tenth of a second where a trace of S/16 takes eight, for any size of
images where a trace would hold the one it saw, with the work that only some tokens need left out.
"""

from collections.abc import Mapping

import numpy as np
import torch
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper
from torch import nn

from vitlab.data.preprocess import ImageSpec
from vitlab.models.classifier import Classifier
from vitlab.models.vit import CHANNELS, ViT
from vitlab.serve.onnx import layers, resnets
from vitlab.serve.onnx.graph import OPSET, Graph, Value
from vitlab.serve.onnx.positions import Layout, patch_rows, prefix_rows

IMAGES, LOGITS, FEATURES = "images", "logits", "features"
IR_VERSION = 9
ALIGNMENT = 4096
"""Of each tensor in a file beside the graph: a page, so that it can be mapped."""
SMALL = 1024
"""Bytes of a tensor that is always in the graph itself: shapes have to be."""


@torch.no_grad()
def draw(model: Classifier, *, dynamic_size: bool = False) -> Graph:
    """Return the graph of `model`, for batches of any size, and with `dynamic_size` for images of any size."""
    g = Graph(model)
    pixels = normalised(g, model.image_spec)
    features = _vit(g, pixels, model, dynamic_size) if isinstance(model, ViT) else _resnet(g, pixels, model)
    if isinstance(model.head, nn.Linear):
        g.op("Identity", layers.linear(g, features, model.head), name=LOGITS)
    g.op("Identity", features, name=FEATURES)
    return g


def normalised(g: Graph, spec: ImageSpec) -> Value:
    """Return the images in the model's value range."""
    mean, std = (np.array(each, np.float32).reshape(1, -1, 1, 1) * 255 for each in (spec.mean, spec.std))
    pixels = g.op("Sub", g.as_float(IMAGES), g.weight("mean", mean))
    return g.op("Div", pixels, g.weight("std", std))


def _vit(g: Graph, pixels: Value, model: ViT, dynamic_size: bool) -> Value:
    s, prefix = model.settings, model.settings.num_prefix
    cells = resnets.embedding(g, pixels, model.stem)
    rows, columns = (g.size(cells, 2), g.size(cells, 3)) if dynamic_size else s.grid
    layout = Layout(rows, columns, s.grid, prefix)
    x = g.transpose(g.reshape(cells, 0, s.width, -1), 0, 2, 1)
    position = model.position if s.position.place == "stem" else None
    if position is not None:
        x = g.op("Add", x, patch_rows(g, position, layout))
    if prefix:
        own = [token.detach().cpu() for token in (model.class_token, model.registers) if token is not None]
        first = g.weight("prefix", torch.cat(own, dim=1) + prefix_rows(position, prefix, s.width))
        x = g.join([g.op("Expand", first, g.shape(g.size(IMAGES, 0), 1, 1)), x], axis=1)
    x = layers.encoder(g, x, model.encoder, layout, s.pool.num_inputs)
    x = layers.pooling(g, x, model.pooling)
    return x if model.representation is None else g.op("Tanh", layers.linear(g, x, model.representation))


def _resnet(g: Graph, pixels: Value, model: Classifier) -> Value:
    assert not isinstance(model, ViT)
    x = resnets.stages(g, resnets.root(g, pixels, model.root), model.stages)
    if model.norm is not None:
        x = g.op("Relu", resnets.group_norm(g, x, model.norm, 2))
    return g.mean(x, 2, 3)


def to_proto(
    g: Graph, model: Classifier, metadata: Mapping[str, str], *, dynamic_size: bool = False, beside: str | None = None
) -> tuple[ModelProto, list[str]]:
    """Return the graph as ONNX has it, and the names of the weights that are not in it but in a file `beside` it, in its order."""
    size = model.settings.image_size
    sides = ["height", "width"] if dynamic_size else list(size)
    images = helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, ["batch", CHANNELS, *sides])
    graph = helper.make_graph(g.nodes, "vitlab", [images], _outputs(model))
    outside, offset = list[str](), 0
    for name, values in g.weights.items():
        if beside is None or values.nbytes <= SMALL:
            graph.initializer.append(numpy_helper.from_array(values, name))
            continue
        tensor = graph.initializer.add(name=name, dims=values.shape, data_location=TensorProto.EXTERNAL)
        tensor.data_type = helper.np_dtype_to_tensor_dtype(values.dtype)
        for key, value in (("location", beside), ("offset", offset), ("length", values.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        outside.append(name)
        offset += -(-values.nbytes // ALIGNMENT) * ALIGNMENT
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="vitlab")
    proto.ir_version = IR_VERSION
    helper.set_model_props(proto, dict(metadata))
    return proto, outside


def _outputs(model: Classifier) -> list[ValueInfoProto]:
    """Return what a graph gives: logits, where the model has a head, and features."""
    s = model.settings
    width = int(model.head.in_features) if isinstance(model.head, nn.Linear) else None
    found = [helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["batch", width])]
    if s.num_classes:
        found.insert(0, helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["batch", s.num_classes]))
    return found
