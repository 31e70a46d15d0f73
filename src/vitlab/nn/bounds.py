"""How large a model may be: a few bytes of a file or of a command can claim any number, and to lay it out would never end."""

from typing import Annotated

from pydantic import Field

MAX_LAYERS = 1000
"""The deepest published ViT has 48."""
MAX_TOKEN_VALUES = 1 << 26
"""Tokens times width of an image (65,536 tokens of width 1,024 are that many)."""

Dimension = Annotated[int, Field(gt=0, le=1 << 24)]
"""A width, or a number of parts or classes; the products of three of them are still numbers to torch."""
Count = Annotated[int, Field(ge=0, le=1 << 24)]
"""The same where there may be none."""
Side = Annotated[int, Field(gt=0, le=1 << 16)]
"""The side of an image or a patch in pixels, or the channels of a ResNet's root, which its stages multiply by 64."""


def check_layers(layers: int) -> None:
    """Refuse a stack that is deeper than any model.

    Raises:
        ValueError: it is.
    """
    if layers > MAX_LAYERS:
        raise ValueError(f"{layers:,} layers are more than a model can hold; use at most {MAX_LAYERS:,}")
