"""An ONNX graph while it is written: nodes, weights, and the sizes that only a run knows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import NodeProto, helper
from torch import Tensor, nn

OPSET = 20
"""The first with GELU in both forms; onnxruntime knows it since 1.17."""

Value = str
"""The name of a tensor in the graph."""
Dim = int | Value
"""A size: a number, or where only a run knows it the name of an int64 tensor [1]."""


class Graph:
    """Nodes in their order and weights by their names; every method that returns a `Value` adds what computes it.

    `modules` are the names of a model's modules, which its weights get too.
    """

    def __init__(self, model: nn.Module) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, NDArray[Any]] = {}
        self.modules = {module: name for name, module in model.named_modules()}

    def op(self, kind: str, *inputs: Value, name: str = "", **attributes: Any) -> Value:
        """Add a node and return its output, which has its name."""
        name = name or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def weight(self, name: str, values: Tensor | NDArray[Any]) -> Value:
        """Add a constant and return its name."""
        if isinstance(values, Tensor):
            values = values.detach().to("cpu", torch.float32).contiguous().numpy()
        assert name not in self.weights, name
        self.weights[name] = values
        return name

    def parameter(self, module: nn.Module, leaf: str, values: Tensor) -> Value:
        """Add what a parameter of `module` became, under its name; a module that is used twice has it once."""
        name = f"{self.modules[module]}.{leaf}"
        return name if name in self.weights else self.weight(name, values)

    def number(self, value: float) -> Value:
        """Return a float32 constant."""
        name = f"number_{value!r}"
        return name if name in self.weights else self.weight(name, np.array(value, np.float32))

    def ints(self, *values: int) -> Value:
        """Return an int64 constant [count]."""
        name = "ints_" + "_".join(map(str, values))
        return name if name in self.weights else self.weight(name, np.array(values, np.int64))

    def size(self, value: Value, axis: int) -> Value:
        """Return the size of `value` along `axis`, as a run finds it: int64 [1]."""
        return self.op("Shape", value, start=axis, end=axis + 1)

    def shape(self, *dims: Dim) -> Value:
        """Return a shape: int64 [count]."""
        if all(isinstance(dim, int) for dim in dims):
            return self.ints(*(int(dim) for dim in dims))
        return self.op("Concat", *(self.ints(dim) if isinstance(dim, int) else dim for dim in dims), axis=0)

    def reshape(self, value: Value, *dims: Dim) -> Value:
        """Return `value` in another shape; 0 keeps a size, -1 takes what is left."""
        return self.op("Reshape", value, self.shape(*dims))

    def transpose(self, value: Value, *order: int) -> Value:
        """Return `value` with its axes in another order."""
        return self.op("Transpose", value, perm=list(order))

    def slice(self, value: Value, axis: int, start: int, end: int) -> Value:
        """Return the part of `value` from `start` to before `end` along `axis`."""
        return self.op("Slice", value, self.ints(start), self.ints(end), self.ints(axis))

    def mean(self, value: Value, *axes: int) -> Value:
        """Return the mean of `value` over `axes`, which disappear."""
        return self.op("ReduceMean", value, self.ints(*axes), keepdims=0)

    def join(self, values: Sequence[Value], axis: int) -> Value:
        """Return `values` one behind the other along `axis`."""
        return values[0] if len(values) == 1 else self.op("Concat", *values, axis=axis)

    def floats(self, size: Dim) -> Value:
        """Return 0, 1, … below `size`: float32 [size]."""
        if isinstance(size, int):
            name = f"range_{size}"
            return name if name in self.weights else self.weight(name, np.arange(size, dtype=np.float32))
        return self.op("Range", self.number(0.0), self.op("Squeeze", self.as_float(size)), self.number(1.0))

    def as_float(self, value: Value) -> Value:
        """Return `value` as float32."""
        return self.op("Cast", value, to=1)

    def as_int(self, value: Value) -> Value:
        """Return `value` as int64."""
        return self.op("Cast", value, to=7)
