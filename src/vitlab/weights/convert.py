"""Write a model in the format of another library, read it back, and only then give it its name."""

import errno
import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor

from vitlab import files
from vitlab.config import Json, to_json
from vitlab.data.preprocess import ImageSpec
from vitlab.errors import VitlabError, WeightsError
from vitlab.models.classifier import AnySettings, Classifier
from vitlab.models.vit import ViTSettings
from vitlab.nn.position import Learned1D
from vitlab.weights import huggingface, official, save, timm
from vitlab.weights.layout import PROBLEM, SEVERAL_LABELS, square_size
from vitlab.weights.load import load_with_report

Format = Literal["vitlab", "timm", "huggingface", "official"]
"""Ours is one .safetensors file, official one .npz; timm's is a folder that timm and transformers load, huggingface's one for
transformers' own ViT classes."""
FOR_TRAINING = ("dropout", "stochastic_depth", "head_bias")
"""The settings that change nothing of what a model computes; not every format has a place for them."""


def convert(model: Classifier, out: str | Path, to: Format) -> Path:
    """Write `model` as the new file or folder `out` in the format `to`; what is written is read back and compared bit by bit.

    For what an official file has no place for see `left_out`.

    Raises:
        WeightsError: `out` exists, the format cannot hold the model, or what was written is not what was meant.
        VitlabError: the disk is full, or fails.
    """
    out = Path(out)
    check_free(out)
    draft = out.with_name(f".{out.name}.part")
    with _explained(out):
        files.remove(draft)
        try:
            weights = _WRITERS[to](model, draft)
            _compare(model, weights, out)
            files.rename(draft, out)
        finally:
            files.remove(draft)
        files.flush_folder(out.parent)
    return out


def check_free(out: Path) -> None:
    """Refuse a place that is taken, or that nothing can be written to.

    Raises:
        WeightsError: it is.
    """
    with _explained(out):
        if out.exists() or out.is_symlink():
            raise WeightsError(out, "exists already", "choose another name, or remove it")
        if not out.parent.is_dir():
            raise WeightsError(out.parent, "is no folder", "make it first")


def left_out(model: Classifier, to: Format) -> list[str]:
    """Return a line for each thing that goes with `model` and that a file in the format `to` does not hold.

    Only the official one leaves out anything: its readers take the images for those of the paper, and the grid for a square.
    """
    settings, spec = model.settings, to_json(model.image_spec)
    if to != "official" or not isinstance(settings, ViTSettings):
        return []
    lines = [f"the names of {len(model.classes)} classes"] if model.classes else []
    lines += ["that an image may be of several classes"] if model.probabilities == "sigmoid" else []
    paper, size = to_json(ImageSpec()), settings.image_size
    lines += [
        f"{name} {spec[name]}: taken for {paper[name]}"
        for name in ("fit", "interpolation", "decoding")
        if spec[name] != paper[name]
    ]
    lines += [f"{name} {getattr(settings, name)}" for name in FOR_TRAINING if getattr(settings, name)]
    if square_size(settings.grid.cells, settings.stem) != size:
        lines.append(f"image size {size}: read it with --trained-size {size.height}x{size.width}")
    return lines


@contextmanager
def _explained(out: Path) -> Generator[None]:
    """Turn what the system says of the place `out` into one line."""
    try:
        yield
    except OSError as error:
        what = f"cannot be written ({error.strerror})"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise VitlabError(out, what, "make room, or choose another disk") from None
        raise WeightsError(out, what, "choose another place or name") from None


def _ours(model: Classifier, draft: Path) -> Path:
    files.write_bytes(draft, save.to_bytes(model))
    return draft


def _official(model: Classifier, draft: Path) -> Path:
    files.write_bytes(draft, official.npz_bytes(official.export(model)))
    return draft


def _timm(model: Classifier, draft: Path) -> Path:
    tensors, config = timm.export(model)
    return _folder(draft, tensors, {"config.json": config | _problem(model)})


def _huggingface(model: Classifier, draft: Path) -> Path:
    tensors, config, preprocessor = huggingface.export(model)
    return _folder(draft, tensors, {"config.json": config | _problem(model), "preprocessor_config.json": preprocessor})


def _problem(model: Classifier) -> Json:
    """Return what a config.json says of a model whose classes do not exclude each other."""
    return {PROBLEM: SEVERAL_LABELS} if model.probabilities == "sigmoid" else {}


def _folder(draft: Path, tensors: dict[str, Tensor], configs: dict[str, Json]) -> Path:
    """Write a folder as both libraries keep models: the weights and the JSON beside them."""
    files.make_folder(draft)
    for name, config in configs.items():
        files.write_bytes(draft / name, (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode())
    weights = draft / "model.safetensors"
    files.write_bytes(weights, safetensors.torch.save(tensors, {"format": "pt"}))  # transformers asks for the field
    return weights


_WRITERS: dict[Format, Callable[[Classifier, Path], Path]] = {
    "vitlab": _ours,
    "timm": _timm,
    "huggingface": _huggingface,
    "official": _official,
}


def _compare(model: Classifier, weights: Path, out: Path) -> None:
    """Check that the file `weights` holds every parameter of `model` as it is, and what else decides what it computes."""
    size = model.settings.image_size
    back = load_with_report(weights, trained_size=(size.height, size.width)).model
    found, wanted = dict(back.named_parameters()), dict(model.named_parameters())
    differing = [
        name for name in wanted if name not in found or not torch.equal(found[name], wanted[name].cpu().float())
    ]
    differing += sorted(found.keys() - wanted.keys())
    meant, read = _computing(model.settings), _computing(back.settings)
    differing += [name for name in meant if name not in read or read[name] != meant[name]]
    if differing:
        raise WeightsError(out, f"was not written: '{differing[0]}' came back otherwise", "report it")


def _computing(settings: AnySettings) -> dict[str, Any]:
    """Return the settings that decide what a model computes; without a class token it has no row of positions in any case."""
    values = {name: value for name, value in settings if name not in FOR_TRAINING}
    if isinstance(settings, ViTSettings) and isinstance(settings.position, Learned1D) and not settings.pool.num_prefix:
        values["position"] = settings.position.model_copy(update={"class_token": True})
    return values
