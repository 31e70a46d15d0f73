"""preprocessor_config.json, in which transformers says how an image is prepared, in both directions."""

import re
from collections.abc import Mapping
from math import isclose
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, PositiveFloat

from vitlab.config import Json, Settings, parse
from vitlab.data.fit import resized_edge
from vitlab.data.preprocess import CentralCrop, ImageSpec, Squash
from vitlab.data.resize import Interpolation
from vitlab.errors import SettingsError, WeightsError
from vitlab.nn.grid import Size
from vitlab.weights.layout import KEEP, PREPROCESSOR

INTERPOLATIONS: dict[int, Interpolation] = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, which transformers writes."""
RESCALE = 1 / 255
REMEDY = f"correct or remove {PREPROCESSOR}, and prepare the images yourself"
CROPPED: Json = {
    "size": 224,
    "resample": 3,
    "do_center_crop": True,
    "crop_size": 224,
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
}
DEFAULTS: Mapping[str, Json] = {
    "": {},
    "ViT": {"size": 224},
    "DeiT": {"size": 256, "resample": 3, "do_center_crop": True, "crop_size": 224},
    "Bit": CROPPED,
    "CLIP": CROPPED,
    "ViTHybrid": CROPPED,
}
"""What a processor of transformers does where its file does not say it, other than `Preprocessor`; "" is a file that names none."""
SHORTEST_EDGE = ("Bit", "CLIP", "ViTHybrid")
"""The processors that take a single number as the length of the shorter side; for the others it is both sides."""

Pixels = Annotated[int, Field(gt=0, lt=1 << 31)]


class Preprocessor(Settings):
    """What the file says, and what a ViT's processor does where it does not; anything else in it is left alone."""

    model_config = ConfigDict(extra="ignore")

    kind: str = ""
    do_resize: bool = True
    size: Pixels | dict[str, Pixels | None] | None = None
    resample: int | None = 2
    do_center_crop: bool | None = False
    crop_size: Pixels | dict[str, Pixels | None] | None = None
    crop_pct: Annotated[float, Field(ge=1e-6)] | None = None
    do_rescale: bool = True
    rescale_factor: float = RESCALE
    do_normalize: bool = True
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.5, 0.5, 0.5)


def read_preprocessor(path: Path, data: Mapping[str, Any], image_size: Size) -> ImageSpec:
    """Return how the images of the model in `path` are prepared, of which the file beside it says `data`.

    Where there is no such file it is as transformers prepares images for a ViT by default: squashed, bilinear, in [-1, 1].

    Raises:
        WeightsError: it cannot be done here, or does not give images of `image_size`.
    """
    where, said = path.with_name(PREPROCESSOR), _parsed(path, data)
    if said.resample is not None and said.resample not in INTERPOLATIONS:
        known = " and ".join(f"{number} ({name})" for number, name in INTERPOLATIONS.items())
        raise WeightsError(where, f"resample {said.resample} is not known here, only {known}", REMEDY)
    if not (said.do_rescale and isclose(said.rescale_factor, RESCALE, rel_tol=1e-6)):
        shown = f"rescale_factor {said.rescale_factor}" if said.do_rescale else "do_rescale false"
        raise WeightsError(where, f"{shown} is not known here, only a rescale_factor of 1/255", REMEDY)
    return ImageSpec(
        height=image_size.height,
        width=image_size.width,
        fit=_fit(where, said, image_size),
        interpolation=INTERPOLATIONS[said.resample or 2],
        mean=said.image_mean if said.do_normalize else (0.0, 0.0, 0.0),
        std=said.image_std if said.do_normalize else (1.0, 1.0, 1.0),
    )


def prepared_size(path: Path, data: Mapping[str, Any]) -> Size | None:
    """Return the size of the images that `data` says to prepare, None where it says none.

    Raises:
        WeightsError: it says what cannot be done here.
    """
    said = _parsed(path, data)
    return (_size(said.crop_size) if said.do_center_crop else None) or _size(said.size)


def write_preprocessor(spec: ImageSpec) -> Json:
    """Return what preprocessor_config.json says of `spec`.

    Raises:
        WeightsError: transformers cannot prepare images so.
    """
    numbers = {name: number for number, name in INTERPOLATIONS.items()}
    said: Json = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": _edges(spec.height, spec.width),
    }
    if isinstance(spec.fit, CentralCrop):
        if spec.height != spec.width:
            what = f"transformers cuts no {spec.height}×{spec.width} out of the middle as CentralCrop does"
            raise WeightsError("the model", what, KEEP)
        # the one for ViTs resized to a fixed size only, until transformers 5
        said |= {
            "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": resized_edge(spec.height, spec.fit.fraction)},
        }
        said |= {"do_center_crop": True, "crop_size": _edges(spec.height, spec.width), "crop_pct": spec.fit.fraction}
    return said | {
        "resample": numbers[spec.interpolation],
        "do_rescale": True,
        "rescale_factor": RESCALE,
        "do_normalize": True,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
    }


def _parsed(path: Path, data: Mapping[str, Any]) -> Preprocessor:
    where = path.with_name(PREPROCESSOR)
    name = str(data.get("image_processor_type") or data.get("feature_extractor_type") or "")
    kind = re.sub(r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$", "", name)
    if kind not in DEFAULTS:
        raise WeightsError(where, f"is for a {name}, which is not known here", REMEDY)
    try:
        return parse(Preprocessor, {**DEFAULTS[kind], **data, "kind": kind}, where)
    except SettingsError as error:
        raise WeightsError(where, error.what, REMEDY) from None


def _fit(where: Path, said: Preprocessor, image_size: Size) -> Squash | CentralCrop:
    """Return how an image is fitted; images that are not resized have the model's size already, which Squash leaves alone."""
    crop = _size(said.crop_size) or image_size if said.do_center_crop else None
    edge = _shortest_edge(said)
    given = crop or (image_size if edge else _size(said.size) or image_size)
    if said.do_resize and given != image_size:
        raise WeightsError(where, f"gives images of {given}, the model is for {image_size}", REMEDY)
    if not (said.do_resize and edge):
        if crop and said.do_resize and (_size(said.size) or crop) != crop:
            raise WeightsError(where, "a crop after a resize to a fixed size is not known here", REMEDY)
        return Squash()
    if crop is None or crop.height != crop.width or crop.height > edge:
        raise WeightsError(where, f"shortest_edge {edge} without a smaller square crop is not known here", REMEDY)
    exact = said.crop_pct is not None and said.crop_pct <= 1 and resized_edge(crop.height, said.crop_pct) == edge
    return CentralCrop(fraction=said.crop_pct if exact and said.crop_pct else crop.height / edge)


def _shortest_edge(said: Preprocessor) -> int | None:
    """Return the length to which the shorter side is resized, None where both sides are."""
    if isinstance(said.size, dict):
        return said.size.get("shortest_edge")
    return said.size if said.kind in SHORTEST_EDGE else None


def _size(size: int | dict[str, int | None] | None) -> Size | None:
    if isinstance(size, dict):
        height, width = size.get("height"), size.get("width")
        return Size(height, width) if height and width else None
    return Size(size, size) if size else None


def _edges(height: int, width: int) -> Json:
    return {"height": height, "width": width}
