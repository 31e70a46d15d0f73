"""The names and layouts of timm's ViTs, hybrids and BiTs.

Queries, keys and values lie in one matrix there, and what the arrays do not say is in a config.json beside them. Without one, as
timm has it: the exact GELU, an epsilon of 1e-6, images bicubic with the middle 0.9 (BiT: bilinear, 0.875), mean and std 0.5.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vitlab.config import Json, parse
from vitlab.errors import WeightsError
from vitlab.models.classifier import AnySettings, Classifier
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import CHANNELS, ViTSettings
from vitlab.nn.grid import Size
from vitlab.nn.patches import Patches
from vitlab.nn.pooling import AttentionPool
from vitlab.nn.position import Learned1D, NoPosition
from vitlab.nn.stem import ResNetStem, Stem
from vitlab.weights import timm_config, timm_writing
from vitlab.weights.layout import SAY_SIZE, Beside, Contents, Piece, Shape, Shapes, lay_out, square_size
from vitlab.weights.timm_config import Config

BACKBONE = "patch_embed.backbone."
ROOTS = (f"{BACKBONE}stem.conv.weight", f"{BACKBONE}conv.weight")
"""The first convolution of a hybrid, whose ResNet has stages or none."""
BIT_SIZE = Size(224, 224)
"""A BiT works at any size; without a config its file does not say one."""
LAYER_SCALE = 1e-5
"""What layer scale starts at unless the config says it; the arrays hold what it became."""
NO_PARAMETERS = frozenset({"mask_token"})
"""Arrays that were for pre-training; any other that we have no parameter for would make another model."""

BLOCK = {
    "norm1": "norm1",
    "attention.query": "attn.qkv",
    "attention.key": "attn.qkv",
    "attention.value": "attn.qkv",
    "attention.out": "attn.proj",
    "branch1.scale": "ls1.gamma",
    "norm2": "norm2",
    "mlp.hidden": "mlp.fc1",
    "mlp.out": "mlp.fc2",
    "branch2.scale": "ls2.gamma",
}
POOL = {
    "probe": "latent",
    "attention.query": "q",
    "attention.key": "kv",
    "attention.value": "kv",
    "attention.out": "proj",
    "norm": "norm",
    "mlp.hidden": "mlp.fc1",
    "mlp.out": "mlp.fc2",
}
UNIT = {
    **{f"{kind}{number}": f"{kind}{number}" for kind in ("conv", "norm") for number in (1, 2, 3)},
    "conv_proj": "downsample.conv",
    "norm_proj": "downsample.norm",
}
FUSED = {"qkv": ("query", "key", "value"), "kv": ("key", "value")}


class Place(NamedTuple):
    """Where one of our parameters is: the array's name, and which of its `parts` along the first axis."""

    source: str
    part: int
    parts: int


def is_timm(shapes: Shapes) -> bool:
    """Return whether arrays of `shapes` are those of a ViT, a hybrid or a BiT of timm."""
    return {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= set(shapes) or _is_bit(shapes)


def contents_of(path: Path, shapes: Shapes, beside: Beside) -> Contents:
    """Return what a file of timm holds, by its arrays and the config.json beside it.

    Raises:
        WeightsError: an array is missing, has an impossible shape, or belongs to no model that is known here, or the config says
            such a model or contradicts the arrays.
        SettingsError: no model has such settings.
    """
    bit = _is_bit(shapes)
    try:
        _check_images(path, shapes)
        config = timm_config.config_of(path, beside, "ResNet" if bit else "ViT")
        settings = timm_writing.recorded(beside.config, len(shapes))
        if settings is None:
            settings = (_resnet if bit else _vit)(path, shapes, config, beside)
    except (KeyError, IndexError) as error:
        raise WeightsError(path, f"is not a complete model of timm ({error})", "get the file again") from None
    table = name_table(settings)

    def piece_of(name: str, shape: Shape) -> Piece:
        place = place_of(table, name)
        return Piece(
            place.source, file_shape(name, settings, shape, place.parts), lambda array: to_ours(array, place, shape)
        )

    crop_pct, interpolation = (0.875, "bilinear") if bit else (0.9, "bicubic")
    spec = timm_config.spec_of(path, config, settings.image_size, crop_pct=crop_pct, interpolation=interpolation)
    classes = timm_config.classes_of(path, config, settings.num_classes)
    guessed = (
        () if config.model_fields_set else _guessed(settings, beside, f"images {interpolation}, the middle {crop_pct}")
    )
    contents = lay_out(settings, shapes, piece_of, image_spec=spec, classes=classes, guessed=guessed)
    if other := set(contents.extra) - NO_PARAMETERS:
        raise WeightsError(path, f"has '{min(other)}', which no model known here has", "see the README")
    return contents


def export(model: Classifier) -> tuple[dict[str, Tensor], Json]:
    """Return the tensors of `model` by timm's names, and the config.json to lie beside them.

    The folder of both loads in timm, in transformers, and here as it was.

    Raises:
        WeightsError: timm has no such model.
    """
    settings = model.settings
    config, table = timm_writing.config_of(settings, model.image_spec, model.classes), name_table(settings)
    found: dict[str, dict[int, Tensor]] = {}
    for name, parameter in model.named_parameters():
        place, tensor = place_of(table, name), parameter.detach().cpu()
        found.setdefault(place.source, {})[place.part] = tensor.reshape(file_shape(name, settings, tuple(tensor.shape)))
    tensors = {source: torch.cat([parts[part] for part in sorted(parts)]) for source, parts in found.items()}
    return tensors, config


def name_table(settings: AnySettings) -> dict[str, str]:
    """Return our names of a model's parts, or of single parameters, mapped to timm's."""
    if isinstance(settings, ResNetSettings):
        table = {"root.conv": "stem.conv", "norm": "norm", "head": "head.fc"}
        return table | _unit_table(settings.depths, "", "")
    table = {
        "class_token": "cls_token",
        "registers": "reg_token",
        "position.table": "pos_embed",
        "stem.projection": "patch_embed.proj",
        "stem.embedding.projection": "patch_embed.proj",
        "encoder.norm": "norm",
        "pooling.norm": "fc_norm",
        "head": "head",
    }
    if isinstance(settings.pool, AttentionPool):
        table |= {f"pooling.{ours}": f"attn_pool.{theirs}" for ours, theirs in POOL.items()}
    if isinstance(settings.stem, ResNetStem):
        root = f"{BACKBONE}stem" if settings.stem.depths else BACKBONE.rstrip(".")
        table |= {"stem.root.conv": f"{root}.conv", "stem.root.norm": f"{root}.norm"}
        table |= _unit_table(settings.stem.depths, "stem.", BACKBONE)
    for layer in range(settings.depth):
        table |= {f"encoder.blocks.{layer}.{ours}": f"blocks.{layer}.{theirs}" for ours, theirs in BLOCK.items()}
    return table


def place_of(table: Mapping[str, str], name: str) -> Place:
    """Return where our parameter `name` is in a file whose names `table` maps."""
    module, _, leaf = name.rpartition(".")
    source = table[name] if name in table else f"{table[module]}.{leaf}"
    fused = FUSED.get(source.split(".")[-2]) if "." in source else None
    return Place(source, fused.index(module.rpartition(".")[2]), len(fused)) if fused else Place(source, 0, 1)


def file_shape(name: str, settings: AnySettings, shape: Shape, parts: int = 1) -> Shape:
    """Return the shape of the array that our parameter `name` of `shape` is in, one of its `parts`."""
    if name == "head.weight" and isinstance(settings, ResNetSettings):
        return (*shape, 1, 1)
    if name.endswith("projection.weight") and isinstance(settings, ViTSettings):
        patch = settings.stem.patch_size
        return (shape[0], shape[1] // (patch.height * patch.width), *patch)
    return (parts * shape[0], *shape[1:])


def to_ours(array: Tensor, place: Place, shape: Shape) -> Tensor:
    """Return our parameter of `shape` from the array that it is in."""
    if place.parts == 1:
        return array.reshape(shape)
    return array.chunk(place.parts)[place.part].clone()  # or each third would keep the whole in memory


def _is_bit(shapes: Shapes) -> bool:
    return {"stem.conv.weight", "stages.0.blocks.0.conv1.weight"} <= set(shapes)


def _vit(path: Path, shapes: Shapes, config: Config, beside: Beside) -> ViTSettings:
    """Return the settings of the ViT that arrays of `shapes` and a config tell."""
    width, head = shapes["patch_embed.proj.weight"][0], shapes.get("head.weight")
    names = frozenset(shapes)
    stem = _stem(path, shapes)
    pool = timm_config.pool_of(path, config, names)
    registers = shapes["reg_token"][1] if "reg_token" in names else 0
    position, size = _position(path, shapes, stem, (pool.num_prefix, registers), config, beside)
    layer_scale = config.model_args.init_values or LAYER_SCALE
    settings = {
        "image_size": size,
        "stem": stem,
        "width": width,
        "depth": len({name.split(".")[1] for name in names if name.startswith("blocks.")}),
        "num_heads": timm_config.heads_of(path, config, beside, width),
        "mlp_dim": shapes["blocks.0.mlp.fc1.weight"][0],
        "position": position,
        "pool": pool,
        "registers": registers,
        "activation": timm_config.activation_of(path, config),
        "qkv_bias": "blocks.0.attn.qkv.bias" in names,
        "layer_scale": layer_scale if "blocks.0.ls1.gamma" in names else None,
        "num_classes": head[0] if head else None,
    }
    return parse(ViTSettings, settings, path)


def _check_images(path: Path, shapes: Shapes) -> None:
    """Refuse stems that are not known here, and images that are not RGB."""
    first = next(name for name in (*ROOTS, "stem.conv.weight", "patch_embed.proj.weight") if name in shapes)
    backbone = [name for name in shapes if name.startswith(BACKBONE)]
    if backbone and first not in ROOTS:
        raise WeightsError(path, f"has a stem that no model known here has ('{min(backbone)}')", "see the README")
    if shapes[first][1] != CHANNELS:
        raise WeightsError(path, f"is for images of {shapes[first][1]} channels", "only RGB models can be read")


def _guessed(settings: AnySettings, beside: Beside, images: str) -> tuple[str, ...]:
    """Return what is as most of timm's models have it where neither a config nor the caller says it."""
    if isinstance(settings, ResNetSettings):
        return (*(() if beside.trained_size else (f"image_size {settings.image_size}",)), images)
    heads = () if beside.num_heads else (f"num_heads {settings.num_heads}",)
    return (*heads, f"activation {settings.activation}", images)


def _stem(path: Path, shapes: Shapes) -> Stem:
    """Return the stem: patches, or a ResNet with as many stages and units as there are."""
    patch, root = shapes["patch_embed.proj.weight"][2:], next((name for name in ROOTS if name in shapes), None)
    if root is None:
        return parse(Patches, {"patch_size": tuple(patch)}, path)
    stem = {"depths": _depths(shapes, BACKBONE), "root_width": shapes[root][0], "patch_size": tuple(patch)}
    return parse(ResNetStem, {**stem, "unit": timm_config.HYBRID_UNIT}, path)


def _position(
    path: Path, shapes: Shapes, stem: Stem, prefix: tuple[int, int], config: Config, beside: Beside
) -> tuple[Learned1D | NoPosition, Size]:
    """Return the kind of positions, and the image size; `prefix` counts class tokens and registers."""
    class_tokens, registers = prefix
    size = timm_config.size_of(config, beside)
    if "pos_embed" not in shapes:
        if config.model_args.pos_embed not in ("", "none") or size is None:
            remedy = "give the config.json with model_args.pos_embed 'none' and model_args.img_size"
            raise WeightsError(path, "has no positions, nor says that it has none", remedy)
        return NoPosition(), size
    rows = shapes["pos_embed"][1]
    counts = dict.fromkeys(
        (rows - class_tokens - registers, rows)
    )  # with rows for the tokens before the patches, or without
    if size is None:
        size = next((square for cells in counts if (square := square_size(cells, stem))), None)
        if size is None:
            raise WeightsError(path, f"has {rows} positions, not a square grid", SAY_SIZE)
    cells = stem.grid(size).cells
    if cells not in counts:
        remedy = "check trained_size, or img_size in the config.json beside it"
        raise WeightsError(path, f"has {rows} positions, not the {stem.grid(size)} of {size} pixels", remedy)
    if registers and cells != rows:
        raise WeightsError(path, "has registers with positions", "only registers without can be read (no_embed_class)")
    return Learned1D(class_token=not class_tokens or cells != rows), size


def _resnet(path: Path, shapes: Shapes, config: Config, beside: Beside) -> ResNetSettings:
    """Return the settings of the BiT that arrays of `shapes` tell."""
    head = shapes.get("head.fc.weight")
    settings = {
        "image_size": timm_config.size_of(config, beside) or BIT_SIZE,
        "depths": _depths(shapes, ""),
        "root_width": shapes["stem.conv.weight"][0],
        "unit": timm_config.BIT_UNIT,
        "num_classes": head[0] if head else None,
    }
    return parse(ResNetSettings, settings, path)


def _depths(shapes: Shapes, prefix: str) -> tuple[int, ...]:
    """Return how many units each stage has."""
    unit = re.compile(rf"{re.escape(prefix)}stages\.(\d+)\.blocks\.\d+\.conv1\.weight")
    found = [int(match[1]) for name in shapes if (match := unit.fullmatch(name))]
    return tuple(found.count(stage) for stage in sorted(set(found)))


def _unit_table(depths: Sequence[int], ours: str, theirs: str) -> dict[str, str]:
    """Return the names of a ResNet's units, ours and theirs behind a prefix."""
    return {
        f"{ours}stages.{stage}.{unit}.{part}": f"{theirs}stages.{stage}.blocks.{unit}.{name}"
        for stage, depth in enumerate(depths)
        for unit in range(depth)
        for part, name in UNIT.items()
    }
