"""The names and layouts of the BiT files that were released (.npz).

Kernels are [height, width, in, out], the head's too; ours are [out, in, height, width]. Some files number the convolutions
("standardized_conv2d_12"), which says nothing.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitlab.config import parse
from vitlab.errors import WeightsError
from vitlab.models.resnet import ResNetSettings
from vitlab.nn.grid import Size
from vitlab.weights.layout import Beside, Contents, Piece, Shape, Shapes, lay_out, refuse_foreign

ROOT, HEAD = "resnet/root_block/standardized_conv2d/kernel", "resnet/head/conv2d"
PRETRAINED_SIZE = Size(224, 224)
"""The files do not say their image size; BiT was pre-trained at this one, and works at any."""


def canonical(name: str) -> str:
    """Return an array's name without the number of its convolution."""
    return re.sub(r"standardized_conv2d_\d+/", "standardized_conv2d/", name)


def is_bit(names: Iterable[str]) -> bool:
    """Return whether array `names` are those of a released BiT."""
    return ROOT in {canonical(name) for name in names}


def contents_of(path: Path, shapes: Shapes, beside: Beside) -> Contents:
    """Return what a released BiT's file holds.

    Raises:
        WeightsError: an array that decides a setting has an impossible shape.
        SettingsError: no model has such settings.
    """
    written = {canonical(name): name for name in shapes}
    settings = settings_of(path, {name: shapes[theirs] for name, theirs in written.items()}, beside.trained_size)
    table = name_table(settings)

    def piece_of(name: str, shape: Shape) -> Piece:
        source = written.get(table[name], table[name])
        return Piece(source, file_shape(shape), lambda array: to_ours(array.numpy(), shape))

    contents = lay_out(settings, shapes, piece_of)
    refuse_foreign(path, contents, ("resnet/",))
    return contents


def name_table(settings: ResNetSettings) -> dict[str, str]:
    """Return our parameter names mapped to the file's for a model of `settings`."""
    table = {
        "root.conv.weight": ROOT,
        "norm.weight": "resnet/group_norm/gamma",
        "norm.bias": "resnet/group_norm/beta",
    }
    if settings.num_classes:
        table |= {"head.weight": f"{HEAD}/kernel", "head.bias": f"{HEAD}/bias"}
    for stage, depth in enumerate(settings.depths):
        for unit in range(depth):
            ours, theirs = f"stages.{stage}.{unit}", f"resnet/block{stage + 1}/unit{unit + 1:02d}"
            for number, letter in enumerate("abc", start=1):
                table[f"{ours}.conv{number}.weight"] = f"{theirs}/{letter}/standardized_conv2d/kernel"
                table[f"{ours}.norm{number}.weight"] = f"{theirs}/{letter}/group_norm/gamma"
                table[f"{ours}.norm{number}.bias"] = f"{theirs}/{letter}/group_norm/beta"
            if unit == 0:
                table[f"{ours}.conv_proj.weight"] = f"{theirs}/a/proj/standardized_conv2d/kernel"
    return table


def settings_of(path: Path, shapes: Shapes, trained_size: Size | None = None) -> ResNetSettings:
    """Return the settings of the model that arrays of `shapes` (by canonical names) belong to.

    Raises:
        WeightsError: an array that decides a setting has an impossible shape.
        SettingsError: no model has such settings.
    """
    units = {
        (int(match[1]), int(match[2]))
        for name in shapes
        if (match := re.match(r"resnet/block(\d+)/unit(\d+)/a/standardized", name))
    }
    stages = sorted({stage for stage, _ in units})
    head = shapes.get(f"{HEAD}/kernel")
    try:
        root_width, num_classes = shapes[ROOT][-1], head[-1] if head is not None else None
    except IndexError as error:
        raise WeightsError(path, f"is not a complete BiT ({error})", "get the file again") from None
    depths = tuple(sum(stage == wanted for stage, _ in units) for wanted in stages)
    shape = {"depths": depths, "root_width": root_width, "num_classes": num_classes}
    return parse(ResNetSettings, {"image_size": trained_size or PRETRAINED_SIZE, **shape}, path)


def file_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that our parameter of `shape` has in the file."""
    if len(shape) == 2:
        return (1, 1, shape[1], shape[0])
    return (*shape[2:], shape[1], shape[0]) if len(shape) == 4 else shape


def to_ours(array: NDArray[Any], shape: tuple[int, ...]) -> Tensor:
    """Return a file's array as our parameter of `shape`, in float32."""
    values = np.ascontiguousarray(array, np.float32)
    if values.ndim == 4:
        values = values.transpose(3, 2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(values.reshape(shape)))
