"""Classifier: what the floors above need to know of a model."""

from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from vitlab.config import Settings
from vitlab.data.preprocess import ImageSpec


class Classifier(Protocol):
    """A model from images to features to logits, with the transform and the class names that belong to its weights."""

    image_spec: ImageSpec
    classes: tuple[str, ...]

    @property
    def settings(self) -> Settings:
        """The settings that build this model."""
        ...

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b r"]:
        """Return what the head reads: the representation that transfer and few-shot evaluation use."""
        ...

    def __call__(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Return the logits."""
        ...
