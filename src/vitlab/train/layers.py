"""Which layer a parameter belongs to: what layers that learn more slowly, or not at all, are told apart by."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BeforeValidator

from vitlab.errors import SettingsError
from vitlab.models.classifier import AnySettings
from vitlab.models.resnet import ResNetSettings


def _is_part(value: object) -> object:
    if value == "trunk" or (type(value) is int and value >= 0):
        return value
    raise ValueError('neither "trunk" nor a number of layers')  # one reason instead of one for each half of the union


Frozen = Annotated[Literal["trunk"] | int, BeforeValidator(_is_part)]
"""What is not trained: the embedding and so many first layers, or everything below the head."""

_EMBEDDING = ("stem.", "class_token", "registers", "position.", "root.")


def count_layers(settings: AnySettings) -> int:
    """Return how many layers a model has: blocks of a ViT, units of a ResNet. A hybrid's ResNet is part of its embedding."""
    return sum(settings.depths) if isinstance(settings, ResNetSettings) else settings.depth


def layer_of(name: str, settings: AnySettings) -> int:
    """Return the layer of the parameter `name`, from 1 up; 0 is the embedding, with tokens and positions, or the root of a ResNet.

    What comes after the last layer (norm, pooling, head, and what a task has of its own) is one more than the last. That is BEiT's
    rule (Bao et al. 2022); timm has the last norm in the last layer.
    """
    if name.startswith(_EMBEDDING):
        return 0
    parts = name.split(".")
    if isinstance(settings, ResNetSettings) and parts[0] == "stages":
        return 1 + sum(settings.depths[: int(parts[1])]) + int(parts[2])
    if parts[:2] == ["encoder", "blocks"]:
        return 1 + int(parts[2])
    return count_layers(settings) + 1


def rate_scales(names: Iterable[str], settings: AnySettings, decay: float) -> dict[str, float]:
    """Return what the rate of each parameter is multiplied by: 1 after the last layer, `decay` once more for each layer below."""
    last = count_layers(settings) + 1
    return {name: decay ** (last - layer_of(name, settings)) for name in names}


def frozen_names(names: Iterable[str], settings: AnySettings, frozen: Frozen | None) -> frozenset[str]:
    """Return which parameters are not trained: none where `frozen` is None.

    Raises:
        SettingsError: the model has fewer layers than are to be frozen.
    """
    if frozen is None:
        return frozenset()
    if frozen == "trunk":
        return frozenset(name for name in names if not name.startswith(("head.", "task.")))
    if frozen > count_layers(settings):
        what = f"{frozen} layers are more than the {count_layers(settings)} of the model"
        raise SettingsError("train.frozen", what, f"use {count_layers(settings)} or fewer, or trunk")
    return frozenset(name for name in names if layer_of(name, settings) <= frozen)
