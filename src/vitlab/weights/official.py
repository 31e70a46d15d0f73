"""The names and layouts of the ViT files that the paper's authors released (.npz), in both directions.

The files were written before Flax numbered layers by class, so a block's parts are LayerNorm_0, MultiHeadDotProductAttention_1,
LayerNorm_2, MlpBlock_3; trees saved since say LayerNorm_0, MultiHeadDotProductAttention_0, LayerNorm_1, MlpBlock_0. Both are read.
Kernels are [in, out] (convolutions [height, width, in, out]); ours are [out, in].
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitlab.config import parse
from vitlab.errors import WeightsError
from vitlab.models.vit import ViTSettings
from vitlab.nn.grid import Grid, Size
from vitlab.nn.patches import Patches
from vitlab.nn.pooling import ClassToken, Mean
from vitlab.nn.stem import ResNetStem, Stem
from vitlab.weights.layout import Beside, Contents, Piece, Shape, Shapes, lay_out

CONVOLUTIONS = ("conv.weight", "conv1.weight", "conv2.weight", "conv3.weight", "conv_proj.weight")


@dataclass(frozen=True)
class BlockNames:
    """What a block's four parts are called in a file."""

    norm1: str
    attention: str
    norm2: str
    mlp: str


RELEASED = BlockNames("LayerNorm_0", "MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")
LINEN = BlockNames("LayerNorm_0", "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")


def is_official(names: Iterable[str]) -> bool:
    """Return whether array `names` are those of a released ViT."""
    return {"embedding/kernel", "Transformer/encoder_norm/scale"} <= set(names)


def contents_of(path: Path, shapes: Shapes, beside: Beside) -> Contents:
    """Return what a released ViT's file holds.

    Raises:
        WeightsError: an array that decides a setting is missing or has an impossible shape, or the grid is not square.
        SettingsError: no model has such settings.
    """
    settings = settings_of(path, shapes, beside.trained_size)
    table = name_table(settings, block_names(shapes))

    def piece_of(name: str, shape: Shape) -> Piece:
        return Piece(table[name], file_shape(name, settings, shape), lambda array: to_ours(name, array.numpy(), shape))

    return lay_out(settings, shapes, piece_of)


def name_table(settings: ViTSettings, block: BlockNames = RELEASED) -> dict[str, str]:
    """Return our parameter names mapped to the file's for a model of `settings`."""
    table = {
        **_pair(_embedding(settings), "embedding", "kernel"),
        "position.table": "Transformer/posembed_input/pos_embedding",
        **_pair("encoder.norm", "Transformer/encoder_norm", "scale"),
    }
    if isinstance(settings.stem, ResNetStem):
        table |= post_activation_table(settings.stem.depths, "stem.")
    if isinstance(settings.pool, ClassToken):
        table["class_token"] = "cls"
    if settings.representation_dim:
        table |= _pair("representation", "pre_logits", "kernel")
    if settings.num_classes:
        table |= _pair("head", "head", "kernel")
    for layer in range(settings.depth):
        ours, theirs = f"encoder.blocks.{layer}", f"Transformer/encoderblock_{layer}"
        table |= _pair(f"{ours}.norm1", f"{theirs}/{block.norm1}", "scale")
        table |= _pair(f"{ours}.norm2", f"{theirs}/{block.norm2}", "scale")
        for part in ("query", "key", "value", "out"):
            table |= _pair(f"{ours}.attention.{part}", f"{theirs}/{block.attention}/{part}", "kernel")
        table |= _pair(f"{ours}.mlp.hidden", f"{theirs}/{block.mlp}/Dense_0", "kernel")
        table |= _pair(f"{ours}.mlp.out", f"{theirs}/{block.mlp}/Dense_1", "kernel")
    return table


def post_activation_table(depths: Sequence[int], prefix: str = "") -> dict[str, str]:
    """Return the names of a post-activation ResNet's parameters, ours behind `prefix`, mapped to the file's."""
    table = {f"{prefix}root.conv.weight": "conv_root/kernel", **_pair(f"{prefix}root.norm", "gn_root", "scale")}
    for stage, depth in enumerate(depths):
        for unit in range(depth):
            ours, theirs = f"{prefix}stages.{stage}.{unit}", f"block{stage + 1}/unit{unit + 1}"
            parts = ("1", "2", "3", "_proj") if unit == 0 else ("1", "2", "3")
            for part in parts:
                table[f"{ours}.conv{part}.weight"] = f"{theirs}/conv{part}/kernel"
                table |= _pair(f"{ours}.norm{part}", f"{theirs}/gn{part}", "scale")
    return table


def block_names(names: Iterable[str]) -> BlockNames:
    """Return which of the two naming schemes a file uses."""
    return LINEN if any("/MlpBlock_0/" in name for name in names) else RELEASED


def settings_of(path: Path, shapes: Shapes, trained_size: Size | None = None) -> ViTSettings:
    """Return the settings of the model that arrays of `shapes` belong to.

    The file does not say its image size. Unless `trained_size` does, the position table is taken for a square grid, as the
    paper's code takes it.

    Raises:
        WeightsError: an array that decides a setting is missing or has an impossible shape, or the grid is not square.
        SettingsError: no model has such settings.
    """
    try:
        height, width_of_patch, channels, width = shapes["embedding/kernel"]
        block = block_names(shapes)
        first = "Transformer/encoderblock_0"
        _, num_heads, _ = shapes[f"{first}/{block.attention}/query/kernel"]
        _, mlp_dim = shapes[f"{first}/{block.mlp}/Dense_0/kernel"]
        _, rows, _ = shapes["Transformer/posembed_input/pos_embedding"]
        _, _, image_channels, _ = shapes.get("conv_root/kernel", (0, 0, channels, 0))
        head = shapes.get("head/kernel")
        representation = shapes.get("pre_logits/kernel")
        num_classes = head[1] if head else None
        representation_dim = representation[1] if representation else None
    except (KeyError, ValueError, IndexError) as error:
        raise WeightsError(path, f"is not a complete ViT ({error})", "get the file again") from None
    if image_channels != 3:
        raise WeightsError(path, f"is for images of {image_channels} channels", "only RGB models can be read")
    layers = {int(match[1]) for name in shapes if (match := re.match(r"Transformer/encoderblock_(\d+)/", name))}
    pool = ClassToken() if "cls" in shapes else Mean()
    stem = _stem(path, shapes, Size(height, width_of_patch))
    grid = _grid(path, rows - pool.num_prefix, stem, trained_size)
    settings = {
        "image_size": trained_size or Size(grid.rows * stem.cell.height, grid.columns * stem.cell.width),
        "stem": stem,
        "width": width,
        "depth": len(layers),
        "num_heads": num_heads,
        "mlp_dim": mlp_dim,
        "pool": pool,
        "representation_dim": representation_dim,
        "num_classes": num_classes,
    }
    return parse(ViTSettings, settings, path)


def _stem(path: Path, shapes: Shapes, patch: Size) -> Stem:
    """Return the stem that the arrays are for: patches, or a ResNet with as many stages and units as there are."""
    if "conv_root/kernel" not in shapes:
        return parse(Patches, {"patch_size": patch}, path)
    found = {
        (int(match[1]), int(match[2])) for name in shapes if (match := re.match(r"block(\d+)/unit(\d+)/conv1/", name))
    }
    stages = sorted({stage for stage, _ in found})
    depths = tuple(sum(stage == wanted for stage, _ in found) for wanted in stages)
    root_width = shapes["conv_root/kernel"][-1]
    return parse(ResNetStem, {"depths": depths, "root_width": root_width, "patch_size": patch}, path)


def _embedding(settings: ViTSettings) -> str:
    return "stem.embedding.projection" if isinstance(settings.stem, ResNetStem) else "stem.projection"


def file_shape(name: str, settings: ViTSettings, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that our parameter `name` of `shape` has in the file."""
    heads = settings.num_heads
    per_head = settings.width // heads
    if name.startswith("stem.") and len(shape) == 4:
        return (*shape[2:], shape[1], shape[0])
    if name == f"{_embedding(settings)}.weight":
        patch = settings.stem.patch_size
        return (patch.height, patch.width, shape[1] // (patch.height * patch.width), shape[0])
    if re.search(r"attention\.(query|key|value)\.", name):
        return (settings.width, heads, per_head) if len(shape) == 2 else (heads, per_head)
    if name.endswith("attention.out.weight"):
        return (heads, per_head, settings.width)
    return shape[::-1] if len(shape) == 2 else shape


def to_ours(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> Tensor:
    """Return a file's array as our parameter `name` of `shape`, in float32."""
    values = np.ascontiguousarray(array, np.float32)
    if values.ndim == 4 and name.endswith(("projection.weight", *CONVOLUTIONS)):
        values = values.transpose(3, 2, 0, 1).reshape(shape)
    elif len(shape) == 2:
        values = values.reshape(shape[::-1]).T
    return torch.from_numpy(np.ascontiguousarray(values.reshape(shape)))


def to_official(name: str, tensor: Tensor, settings: ViTSettings) -> NDArray[np.float32]:
    """Return our parameter as the file's array: the inverse of `to_ours`."""
    shape = file_shape(name, settings, tuple(tensor.shape))
    values: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    if len(shape) == 4:
        height, width, channels, dim = shape
        return np.ascontiguousarray(values.reshape(dim, channels, height, width).transpose(2, 3, 1, 0))
    return np.ascontiguousarray((values.T if values.ndim == 2 else values).reshape(shape))


def _pair(ours: str, theirs: str, weight: str) -> dict[str, str]:
    return {f"{ours}.weight": f"{theirs}/{weight}", f"{ours}.bias": f"{theirs}/bias"}


def _grid(path: Path, cells: int, stem: Stem, trained_size: Size | None) -> Grid:
    if trained_size is not None:
        grid = stem.grid(trained_size)
        if grid.cells != cells:
            raise WeightsError(
                path, f"has {cells} positions, not the {grid} of {trained_size} pixels", "check trained_size"
            )
        return grid
    side = math.isqrt(max(cells, 0))
    if side == 0 or side * side != cells:
        raise WeightsError(
            path,
            f"has {cells} positions, not a square grid",
            "load it in Python with vitlab.load(..., trained_size=(height, width)) and vitlab.save it",
        )
    return Grid(side, side)
