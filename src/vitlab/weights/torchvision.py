"""The names and layouts of torchvision's ViTs.

A file there is a state dict alone: it has no config beside it and says neither heads, nor how images are prepared, nor classes.
How images are prepared is told by the model and its size, but not for B/16 and L/16 at 224 pixels: of those there are also SWAG's
linear weights (IMAGENET1K_SWAG_LINEAR_V1: bicubic, the middle 1.0), with arrays of the same names and shapes as those that
torchvision trained itself. They are taken for the latter, and the report says so.
"""

import math
from collections.abc import Mapping
from pathlib import Path

from vitlab.config import parse
from vitlab.data.preprocess import CentralCrop, ImageSpec
from vitlab.errors import WeightsError
from vitlab.models.vit import CHANNELS, ViTSettings
from vitlab.nn.grid import Size
from vitlab.nn.patches import Patches
from vitlab.weights.layout import SAY_HEADS, SAY_SIZE, Beside, Contents, Piece, Shape, Shapes, lay_out, refuse_foreign
from vitlab.weights.timm import Place, to_ours

HEADS = {768: 12, 1024: 16, 1280: 16}
"""How many heads torchvision's ViTs of a width have."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TRAINED_THERE = Size(224, 224)
"""The size of the weights that torchvision trained itself; it prepares images for those of other sizes (SWAG) otherwise."""
EDGES = {(1024, 16): 242, (1280, 14): None}
"""To what the shorter side is resized for them, by width and patch, where it is not to 256; of H/14 there are only SWAG's."""
LAYERS = "encoder.layers.encoder_layer_"
QKV = ("query", "key", "value")


def is_torchvision(shapes: Shapes) -> bool:
    """Return whether arrays of `shapes` are those of a ViT of torchvision."""
    return {"conv_proj.weight", f"{LAYERS}0.self_attention.in_proj_weight"} <= set(shapes)


def contents_of(path: Path, shapes: Shapes, beside: Beside) -> Contents:
    """Return what a file of torchvision holds.

    GELU is the exact one and epsilons are 1e-6, as there. Images of 224 pixels are prepared as for the weights trained there
    (bilinear, the middle 0.875; of L/16 the middle 224 of 242), those of other sizes and of H/14 as for SWAG's (bicubic, cut to a
    square).

    Raises:
        WeightsError: an array is missing, has an impossible shape, or belongs to no model that is known here.
        SettingsError: no model has such settings.
    """
    mlp = ("mlp.linear_1", "mlp.linear_2") if f"{LAYERS}0.mlp.linear_1.weight" in shapes else ("mlp.0", "mlp.3")
    try:
        settings = _settings(path, shapes, mlp[0], beside)
    except (KeyError, IndexError) as error:
        raise WeightsError(path, f"is not a complete ViT of torchvision ({error})", "get the file again") from None
    table = name_table(settings, mlp)

    def piece_of(name: str, shape: Shape) -> Piece:
        place, patch = table[name], settings.stem.patch_size
        stored = (place.parts * shape[0], *shape[1:])
        if name == "stem.projection.weight":
            stored = (shape[0], CHANNELS, *patch)
        return Piece(place.source, stored, lambda array: to_ours(array, place, shape))

    edge = EDGES.get((settings.width, settings.stem.cell.height), 256) if settings.image_size == TRAINED_THERE else None
    heads = () if beside.num_heads else (f"num_heads {settings.num_heads}",)
    images = (
        f"resized to {edge} and cut, bilinear, not as for SWAG's linear weights" if edge else "as for SWAG's weights"
    )
    guessed = (*heads, f"images {images}")
    contents = lay_out(settings, shapes, piece_of, image_spec=_spec(settings.image_size, edge), guessed=guessed)
    refuse_foreign(path, contents, ("",))
    return contents


def name_table(settings: ViTSettings, mlp: tuple[str, str] = ("mlp.0", "mlp.3")) -> Mapping[str, Place]:
    """Return our parameter names mapped to where they are in a file that calls the layers of its MLPs `mlp`."""
    modules = {
        "stem.projection": "conv_proj",
        "encoder.norm": "encoder.ln",
        "representation": "heads.pre_logits",
        "head": "heads.head",
    }
    table = {"class_token": Place("class_token", 0, 1), "position.table": Place("encoder.pos_embedding", 0, 1)}
    for layer in range(settings.depth):
        ours, theirs = f"encoder.blocks.{layer}", f"{LAYERS}{layer}"
        modules |= {f"{ours}.norm1": f"{theirs}.ln_1", f"{ours}.norm2": f"{theirs}.ln_2"}
        modules |= {f"{ours}.mlp.hidden": f"{theirs}.{mlp[0]}", f"{ours}.mlp.out": f"{theirs}.{mlp[1]}"}
        modules[f"{ours}.attention.out"] = f"{theirs}.self_attention.out_proj"
        for part, name in enumerate(QKV):
            for leaf in ("weight", "bias"):
                source = f"{theirs}.self_attention.in_proj_{leaf}"
                table[f"{ours}.attention.{name}.{leaf}"] = Place(source, part, len(QKV))
    for ours, theirs in modules.items():
        table |= {f"{ours}.{leaf}": Place(f"{theirs}.{leaf}", 0, 1) for leaf in ("weight", "bias")}
    return table


def _settings(path: Path, shapes: Shapes, mlp: str, beside: Beside) -> ViTSettings:
    """Return the settings of the model that arrays of `shapes` belong to."""
    width, channels, *patch = shapes["conv_proj.weight"]
    if channels != CHANNELS:
        raise WeightsError(path, f"is for images of {channels} channels", "only RGB models can be read")
    stem = parse(Patches, {"patch_size": tuple(patch)}, path)
    rows = shapes["encoder.pos_embedding"][1]
    num_heads = beside.num_heads or HEADS.get(width)
    if num_heads is None:
        raise WeightsError(path, f"does not say how many heads share a width of {width}", SAY_HEADS)
    head, representation = shapes.get("heads.head.weight"), shapes.get("heads.pre_logits.weight")
    settings = {
        "image_size": _size(path, rows - 1, stem, beside.trained_size),
        "stem": stem,
        "width": width,
        "depth": len({name.split(".")[2] for name in shapes if name.startswith(LAYERS)}),
        "num_heads": num_heads,
        "mlp_dim": shapes[f"{LAYERS}0.{mlp}.weight"][0],
        "representation_dim": representation[0] if representation else None,
        "activation": "gelu",
        "num_classes": head[0] if head else None,
    }
    return parse(ViTSettings, settings, path)


def _size(path: Path, cells: int, stem: Patches, trained_size: Size | None) -> Size:
    """Return the image size that has so many patches: what the caller says, or a square."""
    side = math.isqrt(max(cells, 0))
    size = trained_size or Size(side * stem.cell.height, side * stem.cell.width)
    if cells < 1 or stem.grid(size).cells != cells:
        raise WeightsError(path, f"has {cells} positions of patches, not those of {size} pixels", SAY_SIZE)
    return size


def _spec(size: Size, edge: int | None) -> ImageSpec:
    """Return how images are prepared whose shorter side is resized to `edge`, None for SWAG's."""
    return ImageSpec(
        height=size.height,
        width=size.width,
        fit=CentralCrop(fraction=size.height / edge if edge else 1.0),
        interpolation="bilinear" if edge else "bicubic",
        mean=MEAN,
        std=STD,
    )
