"""Our file: one safetensors file with the settings, the image transform and the class names in its header."""

import json
from dataclasses import replace
from pathlib import Path

import safetensors.torch
from pydantic import SerializeAsAny, model_validator

from vitlab.config import Settings, loads, parse, to_json
from vitlab.data.labels import Probabilities
from vitlab.data.limits import LIMITS
from vitlab.data.preprocess import ImageSpec
from vitlab.errors import SettingsError, WeightsError
from vitlab.files import write_atomic
from vitlab.models.classifier import Classifier, ModelSettings
from vitlab.weights.layout import Beside, Contents, Piece, Shapes, lay_out

HEADER = "vitlab"
"""The one field of the file's metadata: safetensors writes several fields in no fixed order."""


class Header(Settings):
    """What a weights file says of itself: the model, the preparation of its images, the class names if it has any, and whether
    they exclude each other (softmax) or an image may be of several (sigmoid)."""

    settings: SerializeAsAny[ModelSettings]
    image_spec: ImageSpec
    classes: tuple[str, ...]
    probabilities: Probabilities = "softmax"

    @model_validator(mode="after")
    def _check_classes(self) -> "Header":
        if self.classes and len(self.classes) != self.settings.num_classes:
            raise ValueError(f"{len(self.classes)} class names for {self.settings.num_classes} classes")
        return self


def to_bytes(model: Classifier) -> bytes:
    """Return the bytes of a weights file; the same weights give the same bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.named_parameters()}
    return safetensors.torch.save(tensors, metadata(model))


def metadata(model: Classifier) -> dict[str, str]:
    """Return what a weights file says of itself besides its tensors."""
    header = Header(
        settings=model.settings,
        image_spec=_without_limits(model.image_spec),
        classes=model.classes,
        probabilities=model.probabilities,
    )
    return {HEADER: json.dumps(to_json(header), ensure_ascii=False)}


def _without_limits(spec: ImageSpec) -> ImageSpec:
    """Return `spec` with our limits: what an image may cost is not for a file to say."""
    return spec.model_copy(update={"limits": LIMITS})


def save(model: Classifier, path: str | Path) -> None:
    """Write `model` to `path` with everything needed to use it; the name appears only when the file is complete."""
    write_atomic(Path(path), to_bytes(model))


def contents_of(path: Path, shapes: Shapes, beside: Beside) -> Contents:
    """Return what our file holds, by its header.

    Raises:
        WeightsError: the header describes no model, or one that the tensors cannot be of.
    """
    try:
        content = loads(beside.metadata[HEADER])
        if beside.kind is not None and content["settings"]["type"] == beside.kind.model_fields["type"].default:
            content["settings"] = parse(beside.kind, content["settings"], path)
        header = parse(Header, content, path)
    except (SettingsError, ValueError, TypeError, KeyError) as error:
        what = error.what if isinstance(error, SettingsError) else error
        raise WeightsError(path, f"is damaged ({what})", "get the file again") from None
    layers = header.settings.num_layers
    if layers > len(shapes):  # before a model of that depth is laid out
        raise WeightsError(path, f"holds {len(shapes)} tensors for {layers:,} layers", "get the file again")
    spec = _without_limits(header.image_spec)
    contents = lay_out(header.settings, shapes, Piece, image_spec=spec, classes=header.classes)
    return replace(contents, probabilities=header.probabilities)
