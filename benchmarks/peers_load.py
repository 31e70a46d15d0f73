"""Whether timm and transformers compute the same with what vitlab writes for them, and vitlab with torchvision's weights.

Run it where the peers are installed; those that are not are left out. It prints the largest difference of the logits in float64.
"""

import contextlib
import importlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

import vitlab
from vitlab.models.classifier import AnySettings, Classifier, build
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import ViTSettings
from vitlab.nn.grid import Size
from vitlab.nn.patches import Patches
from vitlab.nn.pooling import AttentionPool, Mean
from vitlab.nn.position import Learned1D, NoPosition
from vitlab.nn.stem import ResNetStem
from vitlab.weights.timm import export
from vitlab.weights.timm_config import BIT_UNIT, HYBRID_UNIT

SMALL: dict[str, Any] = {
    "image_size": Size(32, 48),
    "stem": Patches(patch_size=Size(8, 8)),
    "width": 48,
    "depth": 2,
    "num_heads": 3,
    "mlp_dim": 100,
    "num_classes": 3,
}
MODELS: dict[str, dict[str, Any]] = {
    "class token": {},
    "exact GELU": {"activation": "gelu"},
    "no qkv bias, layer scale": {"qkv_bias": False, "layer_scale": 0.1},
    "rates": {"dropout": 0.1, "stochastic_depth": 0.2},
    "patches 8×16, rest": {"stem": Patches(patch_size=Size(8, 16)), "image_size": Size(34, 50)},
    "mean": {"pool": Mean()},
    "mean, normed": {"pool": Mean(norm="mean")},
    "mean beside class token": {"pool": Mean(class_token=True)},
    "mean beside, normed": {"pool": Mean(class_token=True, norm="mean")},
    "attention pooling": {"pool": AttentionPool()},
    "registers": {"registers": 2, "position": Learned1D(class_token=False)},
    "registers, mean": {"registers": 2, "pool": Mean()},
    "no positions": {"position": NoPosition()},
    "hybrid, root alone": {"stem": ResNetStem(depths=(), patch_size=Size(4, 2), unit=HYBRID_UNIT)},
    "hybrid R26": {"stem": ResNetStem(depths=(2, 2, 2, 2), unit=HYBRID_UNIT), "image_size": Size(64, 96)},
}
CLASSES = ("ant", "bee", "cat")


def _settings() -> Iterator[tuple[str, AnySettings]]:
    for name, changes in MODELS.items():
        yield name, ViTSettings(**{**SMALL, **changes})
    yield "BiT-R50x1", ResNetSettings(image_size=Size(64, 96), unit=BIT_UNIT, num_classes=3)


def _model(settings: AnySettings) -> Classifier:
    """Return a model in which no parameter is zero, or some of them would not show."""
    torch.manual_seed(0)
    model = build(settings, classes=CLASSES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.eval()


def _write(model: Classifier, folder: Path) -> None:
    tensors, config = export(model)
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))


def _difference(ours: nn.Module, theirs: Callable[[Tensor], Any], size: Size) -> str:
    images = torch.rand(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        return f"{float((ours.double()(images) - theirs(images)).abs().max()):.1e}"


def _timm(timm: Any, model: Classifier, folder: Path) -> str:
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval().double()
    data, spec = timm.data.resolve_model_data_config(theirs), model.image_spec
    found = (tuple(data["input_size"][1:]), data["interpolation"], tuple(data["mean"]), tuple(data["std"]))
    if found != ((spec.height, spec.width), spec.interpolation, spec.mean, spec.std):
        return f"prepares images otherwise: {data}"
    return _difference(model, theirs, model.settings.image_size)


def _transformers(transformers: Any, model: Classifier, folder: Path) -> str:
    theirs = transformers.AutoModelForImageClassification.from_pretrained(folder).eval().double()
    labels = tuple(theirs.config.id2label[index] for index in range(len(CLASSES)))
    if labels != model.classes:
        return f"has the labels {labels}"
    return _difference(model, lambda images: theirs(images).logits, model.settings.image_size)


def _torchvision(torchvision: Any) -> Iterator[tuple[str, str]]:
    for representation in (None, 32):
        torch.manual_seed(0)
        theirs = torchvision.models.VisionTransformer(
            32, 8, 2, 12, 768, 100, num_classes=3, representation_size=representation
        )
        for parameter in theirs.parameters():
            parameter.data += 0.05 * torch.randn(parameter.shape)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "vit.pth")
            torch.save(theirs.state_dict(), path)
            ours = vitlab.load(path).eval()
        name = "torchvision" if representation is None else "torchvision, representation"
        yield name, _difference(ours, theirs.eval().double(), Size(32, 32))


def _peers() -> dict[str, Any]:
    with contextlib.suppress(ImportError):
        importlib.import_module("peers")  # what torchvision needs beside a torch without CUDA
    found: dict[str, Any] = {}
    for name in ("timm", "transformers", "torchvision"):
        with contextlib.suppress(ImportError):
            found[name] = importlib.import_module(name)
    return found


def main() -> None:
    """Print one line a model, and what each peer makes of it."""
    peers = _peers()
    readers = {name: read for name, read in (("timm", _timm), ("transformers", _transformers)) if name in peers}
    print("".join(f"{name:>14}" for name in readers), "  vitlab's model, in float64")
    for name, settings in _settings():
        with tempfile.TemporaryDirectory() as folder:
            model = _model(settings)
            _write(model, Path(folder))
            cells = [read(peers[peer], model.float(), Path(folder)) for peer, read in readers.items()]
        print("".join(f"{cell:>14}" for cell in cells), f"  {name}", flush=True)
    for name, cell in _torchvision(peers["torchvision"]) if "torchvision" in peers else ():
        print(f"{cell:>14}", f"  {name}")


if __name__ == "__main__":
    main()
