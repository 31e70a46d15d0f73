"""Limits: what one image may cost, and the errors of an image that costs more or is damaged."""

from typing import Annotated

from pydantic import Field

from vitlab.config import Settings
from vitlab.errors import ImageError, VitlabError

_ALLOW = "--max-pixels N, in training --set image_spec.limits.max_pixels=N"
REPLACE = "fetch it again, or remove it"


class Limits(Settings):
    """What one image may cost. The defaults admit every camera picture and refuse files built to exhaust a machine."""

    max_bytes: Annotated[int, Field(gt=0)] = 256 << 20
    max_pixels: Annotated[int, Field(gt=0)] = 64_000_000  # 192 MB as RGB
    max_side: Annotated[int, Field(gt=0)] = 65_535
    max_scans: Annotated[int, Field(gt=0)] = 64  # of a progressive JPEG; encoders write about 10, and each costs a pass


LIMITS = Limits()


def limits_of(max_pixels: int | None) -> Limits:
    """Return the limits with another `max_pixels`; the usual ones for None."""
    return LIMITS if max_pixels is None else LIMITS.model_copy(update={"max_pixels": max_pixels})


def damaged(name: str, what: str) -> ImageError:
    """Return the error of an image file that cannot be repaired."""
    return ImageError(name, what, REPLACE)


def no_memory(name: str) -> VitlabError:
    """Return the error of an image for which there is no memory now: nothing is wrong with it, so it is never skipped."""
    return VitlabError(
        name, "needs more memory than there is", "use fewer --workers, or refuse such images by --max-pixels"
    )


def check_size(size: tuple[int, int], name: str, limits: Limits) -> None:
    """Refuse a size that is zero or too large; called before anything of that size is allocated."""
    width, height = size
    if not (width and height):
        raise damaged(name, f"claims a size of {width} × {height} pixels")
    if width * height > limits.max_pixels:
        what = f"has {width} × {height} pixels, more than {limits.max_pixels:,}"
        raise ImageError(name, what, f"shrink it, or allow more: {_ALLOW}")
    if max(width, height) > limits.max_side:
        what = f"has {width} × {height} pixels, a side of more than {limits.max_side:,}"
        raise ImageError(name, what, "shrink it, or raise image_spec.limits.max_side")
