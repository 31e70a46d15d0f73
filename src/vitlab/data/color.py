"""Colour: the samples of any image that Pillow opens as 8-bit sRGB over white."""

import io
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, TiffImagePlugin

from vitlab.errors import ImageError

_WHITE = 255


def eight_bit(image: ImageFile.ImageFile, name: str) -> Image.Image:
    """Return an image of 8-bit samples; Pillow alone would clip 16-bit grey at 255."""
    if image.mode in ("I", "F") and image.format != "PPM":
        what = "has 32-bit or signed samples, and the file does not say which values are black and white"
        raise ImageError(name, what, "scale them to the range you want and save it with 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    values: NDArray[np.integer] = np.asarray(image)
    tags: Mapping[int, Any] = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    bits = int(tags.get(258, (16,))[0])
    grey = (values >> (bits - 8)).astype(np.uint8)
    scaled = Image.fromarray(_WHITE - grey if tags.get(262) == 0 else grey)  # 0: white is zero
    scaled.info = {key: value for key, value in image.info.items() if key == "icc_profile"}
    key = image.info.get("transparency")
    if key is not None:
        scaled.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return scaled


def srgb(image: Image.Image) -> Image.Image:
    """Return `image` as RGB: its profile converted to sRGB, what is transparent over white."""
    alpha = None
    color = image
    if image.has_transparency_data:
        whole = image.convert("RGBA")
        alpha = whole.getchannel("A")
        color = image.getchannel("L") if image.mode == "LA" else whole.convert("RGB")
    elif image.mode not in ("RGB", "L", "CMYK"):
        color = image.convert("RGB")
    profile = image.info.get("icc_profile")
    transform = to_srgb(profile, color.mode) if profile else None
    if transform:
        color = cast(Image.Image, ImageCms.applyTransform(color, transform))
    elif color.mode != "RGB":
        color = color.convert("RGB")
    if alpha is not None and alpha.getextrema() != (255, 255):
        white = Image.new("RGB", color.size, (_WHITE, _WHITE, _WHITE))
        white.paste(color, mask=alpha)
        return white
    return color


@lru_cache(maxsize=32)
def to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the conversion of pixels of `mode` to sRGB; None where it is not needed, or the profile cannot be used."""
    try:
        source: Any = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != {"L": "GRAY"}.get(mode, mode):
            return None
        srgb: Any = cast(Any, ImageCms).createProfile("sRGB")
        transform = ImageCms.buildTransform(source, srgb, mode, "RGB")
        if mode == "CMYK":
            return transform
        steps = np.arange(0, 256, 15, dtype=np.uint8)
        colors = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 1, 3) if mode == "RGB" else steps[:, None]
        before = Image.fromarray(colors)
        after = ImageCms.applyTransform(before, transform)
        moved = np.abs(np.asarray(before.convert("RGB"), np.int16) - np.asarray(after, np.int16)).max()
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None
    return transform if moved > 2 else None  # nearly every profile found in photos is sRGB itself
