"""The names of models: the paper's sizes with any patch size, "B/16"."""

import re
from typing import NamedTuple

from vitlab.config import nearest
from vitlab.errors import SettingsError
from vitlab.models.vit import ViT, ViTSettings, build, empty
from vitlab.nn.grid import Size, as_size
from vitlab.nn.patches import Patches


class Shape(NamedTuple):
    """The dimensions of an encoder and where they come from."""

    depth: int
    width: int
    mlp_dim: int
    num_heads: int
    origin: str


SHAPES = {
    "Mini": Shape(4, 128, 512, 4, "ours: minutes on a laptop"),
    "Ti": Shape(12, 192, 768, 3, "Steiner et al. 2021 (AugReg)"),
    "S": Shape(12, 384, 1536, 6, "Steiner et al. 2021 (AugReg)"),
    "B": Shape(12, 768, 3072, 12, "table 1"),
    "L": Shape(24, 1024, 4096, 16, "table 1"),
    "H": Shape(32, 1280, 5120, 16, "table 1"),
}
PUBLISHED = ("Ti/16", "S/32", "S/16", "B/32", "B/16", "B/8", "L/32", "L/16", "H/14")
NAMES = ("Mini/4", "Mini/8", "Mini/16", *PUBLISHED)


def settings_for(
    name: str, num_classes: int | None = 1000, image_size: int | tuple[int, int] | Size = 224
) -> ViTSettings:
    """Return the settings of the model called `name`: a size and a patch size in pixels, "B/16" (also "ViT-B/16", "ViT-B_16").

    Raises:
        SettingsError: no such size, or the image is smaller than a patch.
    """
    parts = re.fullmatch(r"(?:ViT-)?([A-Za-z]+)[/_](\d+)", name)
    if parts is None or parts[1] not in SHAPES:
        sizes = [f"{size}/{parts[2] if parts else 16}" for size in SHAPES]
        raise SettingsError(
            "model", f"there is no model '{name}'", nearest(name, [*NAMES, *sizes]) + "; see `vitlab models`"
        )
    shape, patch = SHAPES[parts[1]], int(parts[2])
    size = as_size(image_size)
    if patch == 0 or min(size) < patch:
        raise SettingsError("image_size", f"{size} pixels are smaller than one patch of {name}", f"use {patch} or more")
    return ViTSettings(
        image_size=size,
        stem=Patches(patch_size=as_size(patch)),
        width=shape.width,
        depth=shape.depth,
        num_heads=shape.num_heads,
        mlp_dim=shape.mlp_dim,
        num_classes=num_classes,
    )


def build_named(
    name: str, num_classes: int | None = 1000, image_size: int | tuple[int, int] = 224, seed: int = 0
) -> ViT:
    """Return the model called `name` with fresh weights; `image_size` is a side or (height, width).

    Raises:
        SettingsError: no such name, or the image is smaller than a patch.
    """
    return build(settings_for(name, num_classes, image_size), seed)


def list_models() -> list[dict[str, str | int]]:
    """Return one row a named model: its dimensions, and its parameters at 224 pixels and 1,000 classes."""
    rows: list[dict[str, str | int]] = []
    for name in NAMES:
        settings = settings_for(name)
        rows.append(
            {
                "name": name,
                "depth": settings.depth,
                "width": settings.width,
                "mlp_dim": settings.mlp_dim,
                "num_heads": settings.num_heads,
                "patch": settings.stem.patch_size.height,
                "parameters": sum(parameter.numel() for parameter in empty(settings).parameters()),
                "from": SHAPES[name.split("/")[0]].origin,
            }
        )
    return rows
