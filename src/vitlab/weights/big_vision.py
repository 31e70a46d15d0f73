"""Read every tree of arrays that Google's ViT code saved (.npz): the paper's, and those of its successor big_vision.

One model has been saved in many layouts: bare or behind a prefix (the optimizer's, a two-tower model's); its blocks numbered, or
stacked along a first axis; its position table with a row for the class token, without, or computed and not in the file; the
attention pooling in a layer of its own or inlined. big_vision's ResNets are read too.

A file does not say what it does not hold: without a class token or attention pooling the patches are averaged, though big_vision
could also read the first one (its pool "0") or none.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from vitlab.config import parse
from vitlab.errors import WeightsError
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import ViTSettings
from vitlab.nn.grid import Size
from vitlab.nn.patches import Patches
from vitlab.nn.pooling import AttentionPool, ClassToken, Mean, Pool
from vitlab.nn.position import Learned1D, Position, SinCos2D
from vitlab.nn.resnet import PostActivation, PreActivation
from vitlab.nn.stem import ResNetStem, Stem
from vitlab.weights.bit import PRETRAINED_SIZE
from vitlab.weights.layout import SAY_SIZE, Beside, Contents, Piece, Shape, Shapes, lay_out, refuse_foreign, square_size
from vitlab.weights.official import (
    LINEN,
    RELEASED,
    BlockNames,
    file_shape,
    name_table,
    pair,
    parts_table,
    post_activation_table,
    to_ours,
)

PREFIXES = ("", "params/", "opt/target/", "img/", "params/img/", "opt/target/img/")
"""What stands before a model's arrays; what else is in the file, an optimizer's state or a tower for text, is no part of it."""
OFFICIAL_POSITION, POSITION = "Transformer/posembed_input/pos_embedding", "pos_embedding"
PRE_ACTIVATION_ROOT, POST_ACTIVATION_ROOT = "root_block/conv_root/kernel", "conv_root/kernel"
STACKED = "Transformer/encoderblock/"


@dataclass(frozen=True)
class Layout:
    """How a ViT lies in its file; `position` and `map_head` begin the names of its position table and its attention pooling."""

    block: BlockNames
    stacked: bool
    position: str | None
    map_head: str | None


def is_tree(names: Iterable[str]) -> bool:
    """Return whether array `names` are those of a model that Google's ViT code saved."""
    return prefix_of(names) is not None


def prefix_of(names: Iterable[str]) -> str | None:
    """Return what stands before the names of the model's arrays, None where there is no such model."""
    known = set(names)
    for prefix in PREFIXES:
        bare = {name.removeprefix(prefix) for name in known if name.startswith(prefix)}
        if _is_vit(bare) or _is_resnet(bare):
            return prefix
    return None


def contents_of(path: Path, shapes: Shapes, beside: Beside) -> Contents:
    """Return what such a file holds.

    Raises:
        WeightsError: an array that decides a setting is missing or has an impossible shape, or the image size cannot be told.
        SettingsError: no model has such settings.
    """
    prefix = prefix_of(shapes) or ""
    bare = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
    if _is_vit(bare):
        vit = settings_of(path, bare, beside.trained_size)
        contents = lay_out(vit, shapes, _pieces_of_vit(vit, layout_of(bare), prefix))
        inside = (f"{prefix}Transformer/", f"{prefix}MAPHead_0/")
    else:
        resnet = _resnet_settings(path, bare, beside.trained_size)
        contents, inside = lay_out(resnet, shapes, _pieces_of_resnet(resnet, prefix)), (f"{prefix}block",)
    refuse_foreign(path, contents, inside)
    return contents


def _is_vit(names: Iterable[str]) -> bool:
    return {"embedding/kernel", "Transformer/encoder_norm/scale"} <= set(names)


def _is_resnet(names: Iterable[str]) -> bool:
    known = set(names)
    if any(name.startswith("Transformer/") for name in known):  # a hybrid of which something is missing
        return False
    return PRE_ACTIVATION_ROOT in known or {POST_ACTIVATION_ROOT, "gn_root/scale"} <= known


# --- ViTs


def layout_of(names: Iterable[str]) -> Layout:
    """Return how the arrays called `names`, without prefix, lie in the file."""
    known = set(names)
    linen = any(re.match(r"Transformer/encoderblock(_\d+)?/MlpBlock_0/", name) for name in known)
    return Layout(
        block=LINEN if linen else RELEASED,
        stacked=any(name.startswith(STACKED) for name in known),
        position=next((name for name in (OFFICIAL_POSITION, POSITION) if name in known), None),
        map_head=next((head for head in ("MAPHead_0/", "") if f"{head}probe" in known), None),
    )


def settings_of(path: Path, shapes: Shapes, trained_size: Size | None = None) -> ViTSettings:
    """Return the settings of the ViT that arrays of `shapes`, named without prefix, belong to.

    The file does not say its image size. Unless `trained_size` does, the position table is taken for a square grid, as the
    paper's code takes it.

    Raises:
        WeightsError: an array that decides a setting is missing or has an impossible shape, or the image size cannot be told.
        SettingsError: no model has such settings.
    """
    layout = layout_of(shapes)
    first, lead = (STACKED, 1) if layout.stacked else ("Transformer/encoderblock_0/", 0)
    try:
        height, width_of_patch, channels, width = shapes["embedding/kernel"]
        _, num_heads, _ = shapes[f"{first}{layout.block.attention}/query/kernel"][lead:]
        _, mlp_dim = shapes[f"{first}{layout.block.mlp}/Dense_0/kernel"][lead:]
        _, _, image_channels, _ = shapes.get(POST_ACTIVATION_ROOT, (0, 0, channels, 0))
        head = shapes.get("head/kernel")
        representation = shapes.get("pre_logits/kernel")
        num_classes = head[1] if head else None
        representation_dim = representation[1] if representation else None
        depth = shapes[f"{STACKED}{layout.block.norm1}/scale"][0] if layout.stacked else _count_layers(shapes)
        rows = _rows(shapes, layout)
    except (KeyError, ValueError, IndexError) as error:
        raise WeightsError(path, f"is not a complete ViT ({error})", "get the file again") from None
    if image_channels != 3:
        raise WeightsError(path, f"is for images of {image_channels} channels", "only RGB models can be read")
    stem = _stem(path, shapes, Size(height, width_of_patch))
    pool = _pool(shapes, layout)
    position = _position(pool, layout)
    of_class = pool.num_prefix if isinstance(position, Learned1D) and position.class_token else 0
    cells = None if rows is None else rows - of_class
    settings = {
        "image_size": _image_size(path, cells, stem, trained_size),
        "stem": stem,
        "width": width,
        "depth": depth,
        "num_heads": num_heads,
        "mlp_dim": mlp_dim,
        "position": position,
        "pool": pool,
        "representation_dim": representation_dim,
        "num_classes": num_classes,
    }
    return parse(ViTSettings, settings, path)


def _rows(shapes: Shapes, layout: Layout) -> int | None:
    """Return how many rows the position table has, None where positions are computed, which only big_vision does."""
    if layout.position is None and layout.block == LINEN:
        return None
    _, rows, _ = shapes[layout.position or OFFICIAL_POSITION]
    return rows


def _count_layers(names: Iterable[str]) -> int:
    return len({match[1] for name in names if (match := re.match(r"Transformer/encoderblock_(\d+)/", name))})


def _stem(path: Path, shapes: Shapes, patch: Size) -> Stem:
    """Return the stem that the arrays are for: patches, or a ResNet with as many stages and units as there are."""
    if POST_ACTIVATION_ROOT not in shapes:
        return parse(Patches, {"patch_size": patch}, path)
    root_width = shapes[POST_ACTIVATION_ROOT][-1]
    return parse(ResNetStem, {"depths": _depths(shapes), "root_width": root_width, "patch_size": patch}, path)


def _pool(names: Iterable[str], layout: Layout) -> Pool:
    if layout.map_head is not None:
        return AttentionPool()
    return ClassToken() if "cls" in set(names) else Mean()


def _position(pool: Pool, layout: Layout) -> Position:
    """Return the kind of positions; big_vision adds them before it puts the class token in front."""
    if layout.position is None:
        return SinCos2D()
    return Learned1D(class_token=layout.position == OFFICIAL_POSITION or not pool.num_prefix)


def _image_size(path: Path, cells: int | None, stem: Stem, trained_size: Size | None) -> Size:
    """Return the size that the caller says, which must fit as many positions as there are, else that of a square grid of them."""
    if trained_size is not None:
        grid = stem.grid(trained_size)
        if cells is not None and grid.cells != cells:
            what = f"has {cells} positions, not the {grid} of {trained_size} pixels"
            raise WeightsError(path, what, "check trained_size")
        return trained_size
    if cells is None:
        raise WeightsError(path, "does not say its image size: its positions are computed, not stored", SAY_SIZE)
    size = square_size(cells, stem)
    if size is None:
        raise WeightsError(path, f"has {cells} positions, not a square grid", SAY_SIZE)
    return size


def _pieces_of_vit(settings: ViTSettings, layout: Layout, prefix: str) -> Callable[[str, Shape], Piece]:
    table = name_table(settings, layout.block) | {"position.table": layout.position or ""}
    if layout.map_head is not None:
        table |= _map_table(layout.map_head)

    def piece_of(name: str, shape: Shape) -> Piece:
        theirs, stored = table[name], file_shape(name, settings, shape)
        block = re.match(r"Transformer/encoderblock_(\d+)/(.*)", theirs) if layout.stacked else None
        if block is None:
            return Piece(prefix + theirs, stored, lambda array: to_ours(name, array.numpy(), shape))
        layer, part = int(block[1]), block[2]
        stack = (settings.depth, *stored)
        return Piece(prefix + STACKED + part, stack, lambda array: to_ours(name, array[layer].numpy(), shape))

    return piece_of


def _map_table(head: str) -> dict[str, str]:
    """Return the names of the attention pooling's parameters; its names in the file begin with `head`."""
    return {
        "pooling.probe": f"{head}probe",
        **pair("pooling.norm", f"{head}LayerNorm_0", "scale"),
        **parts_table("pooling", f"{head}MultiHeadDotProductAttention_0", f"{head}MlpBlock_0"),
    }


# --- ResNets


def resnet_table(settings: ResNetSettings) -> dict[str, str]:
    """Return our names of a ResNet's parameters mapped to big_vision's, without prefix."""
    head = pair("head", "head", "kernel") if settings.num_classes else {}
    if isinstance(settings.unit, PostActivation):
        return post_activation_table(settings.depths) | head
    table = {"root.conv.weight": PRE_ACTIVATION_ROOT, **pair("norm", "norm-pre-head", "scale"), **head}
    for stage, depth in enumerate(settings.depths):
        for unit in range(depth):
            ours, theirs = f"stages.{stage}.{unit}", f"block{stage + 1}/unit{unit + 1:02d}"
            for part in ("1", "2", "3", "_proj") if unit == 0 else ("1", "2", "3"):
                table[f"{ours}.conv{part}.weight"] = f"{theirs}/conv{part}/kernel"
                table |= {} if part == "_proj" else pair(f"{ours}.norm{part}", f"{theirs}/gn{part}", "scale")
    return table


def resnet_shape(shape: Shape) -> Shape:
    """Return the shape that our parameter of `shape` has in the file; norms may have three axes of one more in front."""
    return (*shape[2:], shape[1], shape[0]) if len(shape) == 4 else shape[::-1]


def _resnet_settings(path: Path, shapes: Shapes, trained_size: Size | None) -> ResNetSettings:
    pre = PRE_ACTIVATION_ROOT in shapes
    head = shapes.get("head/kernel")
    try:
        root_width = shapes[PRE_ACTIVATION_ROOT if pre else POST_ACTIVATION_ROOT][-1]
        num_classes = head[-1] if head is not None else None
    except IndexError as error:
        raise WeightsError(path, f"is not a complete ResNet ({error})", "get the file again") from None
    settings = {
        "image_size": trained_size or PRETRAINED_SIZE,
        "depths": _depths(shapes),
        "root_width": root_width,
        "unit": PreActivation(padding="ignored") if pre else PostActivation(),
        "num_classes": num_classes,
    }
    return parse(ResNetSettings, settings, path)


def _depths(names: Iterable[str]) -> tuple[int, ...]:
    """Return how many units each stage has."""
    found = {
        (int(match[1]), int(match[2])) for name in names if (match := re.match(r"block(\d+)/unit(\d+)/conv1/", name))
    }
    stages = sorted({stage for stage, _ in found})
    return tuple(sum(stage == wanted for stage, _ in found) for wanted in stages)


def _pieces_of_resnet(settings: ResNetSettings, prefix: str) -> Callable[[str, Shape], Piece]:
    table = resnet_table(settings)

    def piece_of(name: str, shape: Shape) -> Piece:
        return Piece(prefix + table[name], resnet_shape(shape), lambda array: to_ours(name, array.numpy(), shape))

    return piece_of
