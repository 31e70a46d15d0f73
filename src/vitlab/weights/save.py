"""Our file: one safetensors file with the settings, the image transform and the class names in its header."""

import json
from pathlib import Path

import safetensors.torch
from torch import Tensor

from vitlab.config import Settings, to_json
from vitlab.data.preprocess import ImageSpec
from vitlab.files import write_atomic
from vitlab.models.vit import ViT


def to_bytes(tensors: dict[str, Tensor], settings: Settings, image_spec: ImageSpec, classes: tuple[str, ...]) -> bytes:
    """Return the bytes of a weights file; the same weights give the same bytes."""
    metadata = {
        "format": "pt",
        "vitlab.settings": json.dumps(to_json(settings)),
        "vitlab.image_spec": json.dumps(to_json(image_spec)),
        "vitlab.classes": json.dumps(list(classes), ensure_ascii=False),
    }
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(contiguous, metadata)


def save(model: ViT, path: str | Path) -> None:
    """Write `model` to `path` with everything needed to use it; the name appears only when the file is complete."""
    data = to_bytes(dict(model.named_parameters()), model.settings, model.image_spec, model.classes)
    write_atomic(Path(path), data)
