"""Classifier: any model, by what the floors above need of it."""

import logging
from typing import Annotated, overload

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from vitlab.data.labels import Probabilities
from vitlab.data.preprocess import ImageSpec
from vitlab.models import resnet, vit
from vitlab.models.resnet import ResNet, ResNetSettings
from vitlab.models.vit import ViT, ViTSettings
from vitlab.nn.initial import Initialisers, initialise, resnet_table, vit_table

Classifier = ViT | ResNet
"""A model from images to features to logits, with what belongs to its weights: the transform of images, the class names, and
whether the probabilities of its classes exclude each other (softmax) or not (sigmoid, for several labels an image)."""
AnySettings = ViTSettings | ResNetSettings
"""What builds a model."""
ModelSettings = Annotated[AnySettings, Field(discriminator="type")]
"""The same as a field of other settings."""

log = logging.getLogger("vitlab")


@overload
def empty(settings: ViTSettings, image_spec: ImageSpec | None = None, classes: tuple[str, ...] = ()) -> ViT: ...
@overload
def empty(settings: ResNetSettings, image_spec: ImageSpec | None = None, classes: tuple[str, ...] = ()) -> ResNet: ...
@overload
def empty(settings: AnySettings, image_spec: ImageSpec | None = None, classes: tuple[str, ...] = ()) -> Classifier: ...
def empty(settings: AnySettings, image_spec: ImageSpec | None = None, classes: tuple[str, ...] = ()) -> Classifier:
    """Return a model on the meta device: shapes without memory, for counting parameters or to be filled."""
    with torch.device("meta"):
        if isinstance(settings, ResNetSettings):
            return ResNet(settings, image_spec, classes)
        return ViT(settings, image_spec, classes)


@overload
def build(settings: ViTSettings, seed: int = 0, classes: tuple[str, ...] = ()) -> ViT: ...
@overload
def build(settings: ResNetSettings, seed: int = 0, classes: tuple[str, ...] = ()) -> ResNet: ...
@overload
def build(settings: AnySettings, seed: int = 0, classes: tuple[str, ...] = ()) -> Classifier: ...
def build(settings: AnySettings, seed: int = 0, classes: tuple[str, ...] = ()) -> Classifier:
    """Return a model with fresh weights, a pure function of `settings` and `seed`."""
    model = empty(settings, classes=classes)
    initialise(model, initialisers(settings), seed)
    say_remainder(settings)
    return model


def initialisers(settings: AnySettings) -> Initialisers:
    """Return how each parameter of a model starts."""
    if isinstance(settings, ResNetSettings):
        return resnet_table(settings.head_bias, last_scale=0.0 if settings.unit.activated_root else 1.0)
    return vit_table(settings.head_bias, settings.layer_scale)


def resize(name: str, values: Tensor, old: AnySettings, new: AnySettings) -> Tensor | None:
    """Return the parameter `name` for the image size of `new`, None when it does not depend on the size."""
    if isinstance(old, ResNetSettings) and isinstance(new, ResNetSettings):
        return resnet.resize(name, values, new)
    if isinstance(old, ViTSettings) and isinstance(new, ViTSettings):
        return vit.resize(name, values, old, new)
    return None


def probabilities_of(model: Classifier, logits: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
    """Return the probability of every class, as `model.probabilities` says: of one class in each image, or of each by itself."""
    return to_probabilities(logits, model.probabilities)


def to_probabilities(logits: Float[Tensor, "b k"], kind: Probabilities) -> Float[Tensor, "b k"]:
    """Return the probability of every class: of one class in each image ("softmax"), or of each by itself ("sigmoid")."""
    return logits.float().sigmoid() if kind == "sigmoid" else functional.softmax(logits.float(), dim=1)


def head_of(model: Classifier) -> str:
    """Return how many classes a model can tell apart, in words for messages."""
    classes = model.settings.num_classes
    return "the model has no head" if classes is None else f"the model's head has {classes} outputs"


def say_remainder(settings: AnySettings) -> None:
    """Log which pixels a ViT never sees because they fill no patch."""
    if isinstance(settings, ResNetSettings):
        return
    rows, columns = settings.stem.remainder(settings.image_size)
    if rows or columns:
        log.warning(
            "image size %s is not a multiple of patch size %s: %d rows at the bottom and %d columns at the right are not seen",
            settings.image_size,
            settings.stem.cell,
            rows,
            columns,
        )
