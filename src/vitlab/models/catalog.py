"""The names of models: "B/16", "R50+L/32", "BiT-R152x2", "Axial-B/16", "AxialResNet-50"."""

import re
from typing import Any, NamedTuple

from vitlab.config import nearest, parse
from vitlab.errors import SettingsError
from vitlab.models.classifier import AnySettings, Classifier, build, empty
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import Axial, ViTSettings
from vitlab.nn.axial_resnet import AxialAttention
from vitlab.nn.grid import Size, as_size
from vitlab.nn.patches import Patches
from vitlab.nn.pooling import Mean
from vitlab.nn.position import Learned2D
from vitlab.nn.resnet import PostActivation, PreActivation
from vitlab.nn.stem import ResNetStem


class Shape(NamedTuple):
    """The dimensions of an encoder and where they come from: a place in the paper, AugReg (Steiner et al. 2021), or ours."""

    depth: int
    width: int
    mlp_dim: int
    num_heads: int
    origin: str


SHAPES = {
    "Mini": Shape(4, 128, 512, 4, "ours"),
    "Ti": Shape(12, 192, 768, 3, "AugReg"),
    "S": Shape(12, 384, 1536, 6, "AugReg"),
    "B": Shape(12, 768, 3072, 12, "table 1"),
    "L": Shape(24, 1024, 4096, 16, "table 1"),
    "H": Shape(32, 1280, 5120, 16, "table 1"),
    "b": Shape(12, 384, 1536, 6, "figure 4"),
    "Scaling": Shape(8, 1024, 2048, 16, "figure 8"),
}
DEPTHS = {"50": (3, 4, 6, 3), "101": (3, 4, 23, 3), "152": (3, 8, 36, 3), "200": (3, 24, 36, 3)}
"""The units in the stages of a ResNet, by its number of layers."""
STEMS = {
    ("R50", 16): ResNetStem(depths=(3, 4, 9)),
    ("R50", 32): ResNetStem(depths=(3, 4, 6, 3)),
    ("R26", 32): ResNetStem(depths=(2, 2, 2, 2)),
    ("R", 16): ResNetStem(depths=(), patch_size=Size(8, 8)),
}
"""The hybrids' stems by the names they were published under; "R…/16" has patches of 8 cells of 4 pixels, 32 pixels in all."""

VITS = ("Ti/16", "S/32", "S/16", "b/32", "B/32", "B/16", "B/8", "L/32", "L/16", "H/14", "Scaling/32")
HYBRIDS = ("R+Ti/16", "R26+S/32", "R26+B/32", "R50+B/32", "R50+B/16", "R50+L/32", "R50+L/16")
BITS = ("R50x1", "R50x2", "R50x3", "R101x1", "R101x3", "R152x1", "R152x2", "R152x4", "R200x3")
NAMES = (
    *("Mini/4", "Mini/8", "Mini/16", *VITS),
    *HYBRIDS,
    *("Axial-B/32", "Axial-B/16"),
    *(f"BiT-{name}" for name in BITS),
    *("ResNet-R50x1", "AxialResNet-50"),
)
_VIT = re.compile(r"(?:ViT-)?([A-Za-z]+)[/_](\d+)")
_HYBRID = re.compile(r"(R\d*)\+(?:ViT-)?([A-Za-z]+)[/_](\d+)")
_AXIAL = re.compile(r"Axial-(?:ViT-)?([A-Za-z]+)[/_](\d+)")
_RESNET = re.compile(r"(BiT|ResNet)-R(\d+)x(\d)")


def settings_for(
    name: str, num_classes: int | None = 1000, image_size: int | tuple[int, int] | Size = 224
) -> AnySettings:
    """Return the settings of the model called `name`.

    "B/16" is a size and a patch size in pixels (also "ViT-B/16", "ViT-B_16"); "R50+B/16" a hybrid; "BiT-R50x1" a ResNet as
    released, "ResNet-R50x1" its post-activation form. Any size goes with any patch size, any depth of ResNet with any width.

    Raises:
        SettingsError: no such model, or the image is too small for it.
    """
    common = {"image_size": as_size(image_size), "num_classes": num_classes}
    if (parts := _VIT.fullmatch(name)) and parts[1] in SHAPES and int(parts[2]):
        stem = Patches(patch_size=as_size(int(parts[2])))
        return parse(ViTSettings, common | _encoder(parts[1]) | {"stem": stem}, name)
    if (parts := _HYBRID.fullmatch(name)) and parts[2] in SHAPES and (parts[1], int(parts[3])) in STEMS:
        return parse(ViTSettings, common | _encoder(parts[2]) | {"stem": STEMS[parts[1], int(parts[3])]}, name)
    if (parts := _AXIAL.fullmatch(name)) and parts[1] in SHAPES and int(parts[2]):
        stem = Patches(patch_size=as_size(int(parts[2])))
        axial = {"attention": Axial(), "position": Learned2D(), "pool": Mean(), "stem": stem}
        return parse(ViTSettings, common | _encoder(parts[1]) | axial, name)
    if (parts := _RESNET.fullmatch(name)) and parts[2] in DEPTHS and int(parts[3]):
        unit = PreActivation() if parts[1] == "BiT" else PostActivation()
        shape = {"depths": DEPTHS[parts[2]], "root_width": 64 * int(parts[3]), "unit": unit}
        return parse(ResNetSettings, common | shape, name)
    if name == "AxialResNet-50":
        return parse(ResNetSettings, common | {"unit": AxialAttention()}, name)
    patch = name.rpartition("/")[2].lstrip("0")
    known = [*NAMES, *(f"{shape}/{patch if patch.isdecimal() else 16}" for shape in SHAPES)]
    raise SettingsError("model", f"there is no model '{name}'", nearest(name, known) + "; see `vitlab models`")


def _encoder(size: str) -> dict[str, Any]:
    shape = SHAPES[size]
    return {"depth": shape.depth, "width": shape.width, "mlp_dim": shape.mlp_dim, "num_heads": shape.num_heads}


def build_named(
    name: str, num_classes: int | None = 1000, image_size: int | tuple[int, int] = 224, seed: int = 0
) -> Classifier:
    """Return the model called `name` with fresh weights; `image_size` is a side or (height, width).

    Raises:
        SettingsError: no such name, or the image is too small for it.
    """
    return build(settings_for(name, num_classes, image_size), seed)


class Row(NamedTuple):
    """One line of the list of models; a ResNet's width is that of its first convolution. BiT is Kolesnikov et al. 2020."""

    name: str
    layers: int
    width: int
    mlp_dim: int | None
    num_heads: int | None
    parameters: int
    origin: str


def list_models() -> list[Row]:
    """Return one row a named model: its dimensions, and its parameters at 224 pixels and 1,000 classes."""
    return [_row(name) for name in NAMES]


def _row(name: str) -> Row:
    settings = settings_for(name)
    parameters = sum(parameter.numel() for parameter in empty(settings).parameters())
    if isinstance(settings, ResNetSettings):
        kind = "appendix D.6" if isinstance(settings.unit, AxialAttention) else "BiT"
        return Row(name, settings.num_layers, settings.root_width, None, None, parameters, kind)
    origin = SHAPES[re.split(r"[+-]", name.split("/")[0])[-1]].origin
    if isinstance(settings.stem, ResNetStem):
        origin = "section 3.1" if name.startswith("R50") else "AugReg"
    elif isinstance(settings.attention, Axial):
        origin = "appendix D.6"
    return Row(name, settings.num_layers, settings.width, settings.mlp_dim, settings.num_heads, parameters, origin)
