"""Every kind of every part of a model as a small example; the kinds are read from the settings themselves.

A kind that is added to a union is an example of its own at once, with its default options. Where those are too large, or refused
beside the other defaults, SMALL and WITH say what to take; `test_examples` fails until they do.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import torch
from pydantic import ValidationError

from vitlab.config import Settings
from vitlab.models.classifier import AnySettings, Classifier, build
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import Axial, ViTSettings
from vitlab.nn.axial_resnet import AxialAttention
from vitlab.nn.grid import Size
from vitlab.nn.patches import Patches
from vitlab.nn.pooling import Mean
from vitlab.nn.resnet import PostActivation, PreActivation
from vitlab.nn.stem import ResNetStem

Changes = dict[str, Any]

SQUARE, ODD = Size(32, 32), Size(43, 61)
"""The two sizes; at the second one no stem divides both sides."""
SIZES = (SQUARE, ODD)

FAMILIES: tuple[type[Settings], ...] = get_args(AnySettings)

SMALL: dict[type[Settings], Changes] = {
    ViTSettings: {"width": 16, "depth": 2, "num_heads": 2, "mlp_dim": 32, "num_classes": 5},
    ResNetSettings: {"depths": (1, 2), "root_width": 32, "num_classes": 5},
    Patches: {"patch_size": Size(8, 8)},
    ResNetStem: {"depths": (1, 1), "root_width": 32},
    AxialAttention: {"num_heads": 4},
}
"""What makes an example of a family or a kind small."""
MORE: dict[type[Settings], list[Changes]] = {
    Patches: [{"patch_size": Size(8, 16)}],
    ResNetStem: [{"depths": (), "root_width": 32, "patch_size": Size(2, 2)}],
    PreActivation: [{"variance_eps": 1e-8}],
    PostActivation: [{"variance_eps": 1e-8, "std_eps": 0.0, "norm_eps": 1e-5}],
}
"""Further examples of a kind."""
WITH: dict[type[Settings], Changes] = {Axial: {"pool": Mean()}}
"""What a kind cannot be without."""

OPTIONS: Changes = {
    "registers": 2,
    "representation_dim": 12,
    "stochastic_depth": 0.2,
    "layer_scale": 0.1,
    "dropout": 0.1,
    "num_classes": None,
}
"""A value besides the default of each option that is no union and no choice of words."""
DIMENSIONS = {
    "type",
    "image_size",
    "width",
    "depth",
    "num_heads",
    "mlp_dim",
    "norm_eps",
    "depths",
    "root_width",
    "head_bias",
}
"""The plain numbers that every example sets, or that change no shape and no branch."""


def kinds(annotation: Any) -> list[type[Settings]]:
    """Return the settings classes of a union, none where `annotation` is something else."""
    parts = get_args(annotation) or (annotation,)
    return [part for part in parts if isinstance(part, type) and issubclass(part, Settings)]


def parts_of(family: type[Settings]) -> dict[str, list[type[Settings]]]:
    """Return the fields of `family` that come in kinds, with the kinds."""
    found = {name: kinds(field.annotation) for name, field in family.model_fields.items()}
    return {name: classes for name, classes in found.items() if classes}


def words_of(family: type[Settings]) -> dict[str, tuple[Any, ...]]:
    """Return the fields of `family` that are a choice of words, or of yes and no, with the default first."""
    found: dict[str, tuple[Any, ...]] = {}
    for name, field in family.model_fields.items():
        if name != "type" and field.annotation is bool:
            found[name] = (field.default, not field.default)
        elif name != "type" and get_origin(field.annotation) is Literal:
            found[name] = get_args(field.annotation)
    return found


def variants(kind: type[Settings]) -> Iterator[Settings]:
    """Yield `kind` small, once for each combination of its own words and of the kinds of its own parts."""
    inner: dict[str, list[Any]] = {name: list(words) for name, words in words_of(kind).items()}
    inner |= {name: [v for each in classes for v in variants(each)] for name, classes in parts_of(kind).items()}
    for chosen in itertools.product(*inner.values()):
        yield kind(**SMALL.get(kind, {}) | dict(zip(inner, chosen, strict=True)))
    for changes in MORE.get(kind, []):
        yield kind(**SMALL.get(kind, {}) | changes)


@dataclass(frozen=True)
class Example:
    """A small model of one family; `name` says what it is an example of."""

    name: str
    family: type[Settings]
    changes: Changes

    def settings(self, size: Size = SQUARE) -> AnySettings:
        """Return the settings for images of `size`."""
        return self.family(**SMALL.get(self.family, {}) | self.changes | {"image_size": size})

    def __str__(self) -> str:
        return self.name


def describe(part: Any) -> str:
    """Return a kind and its options, in short."""
    words = [part.type]
    for name in part.model_dump(exclude={"type"}, exclude_defaults=True):
        value = getattr(part, name)
        shown = describe(value) if isinstance(value, Settings) else f"{value}".replace(" ", "")
        words.append(f"{name}={shown}" if isinstance(value, bool) else shown)
    return "-".join(words)


def candidates(family: type[Settings]) -> Iterator[tuple[str, Changes]]:
    """Yield what differs from the defaults in each example of `family`."""
    yield "defaults", {name: next(variants(classes[0])) for name, classes in parts_of(family).items()}
    for name, classes in parts_of(family).items():
        for kind in classes:
            for part in variants(kind):
                yield f"{name}={describe(part)}", WITH.get(kind, {}) | {name: part}
    for name, words in words_of(family).items():
        yield from ((f"{name}={word}", {name: word}) for word in words)
    yield from ((f"{name}={value}", {name: value}) for name, value in OPTIONS.items() if name in family.model_fields)


def collect() -> tuple[list[Example], dict[str, str]]:
    """Return an example of everything, each once, and why the others cannot be built."""
    examples: list[Example] = []
    refused: dict[str, str] = {}
    for family in FAMILIES:
        try:
            pairs = list(candidates(family))
        except ValidationError as error:  # a kind without defaults
            refused[family.__name__] = str(error)
            continue
        small = pairs[0][1]
        for name, changes in pairs:
            example = Example(f"{family.__name__.removesuffix('Settings')}:{name}", family, small | changes)
            try:
                if example.settings() not in [other.settings() for other in examples]:
                    examples.append(example)
            except ValidationError as error:
                refused[example.name] = str(error)
    return examples, refused


EXAMPLES, REFUSED = collect()


def make(settings: AnySettings, seed: int = 0) -> Classifier:
    """Return a model in which no parameter is zero, so that every part of it shows in the output."""
    model = build(settings, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def images_for(size: Size, count: int = 3) -> torch.Tensor:
    """Return `count` random images of `size`."""
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))
