"""Inference on a CPU: our ways to run a model against each other, and against its peers, on equal weights.

    python benchmarks/inference.py [--models S/16,B/16] [--batches 1,8,32] [--rounds 7] [--threads 2]

Peers take part where they can be imported: the eager models of timm, transformers and torchvision, timm's as a graph of
torch.onnx.export, run by onnxruntime, and the official one, `vit_jax` of google-research/vision_transformer, compiled by XLA.
All contestants take turns in one process; logits must be those of ours to 1e-4, or there is no row. They are given the same batch;
`Predictor` by itself takes one of the size that suits the model and the machine.
"""

import argparse
import contextlib
import importlib
import importlib.util
import logging
import statistics
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from timing import Row, take_turns
from torch import Tensor

from vitlab.models.catalog import settings_for
from vitlab.models.classifier import build
from vitlab.models.vit import ViT
from vitlab.serve.engine import Eager, Engine, OnnxRuntime
from vitlab.weights.convert import convert
from vitlab.weights.official import export

TOLERANCE = 1e-4
SIZE, CLASSES = 224, 1000
EAGER, BEST, TIMM, TIMM_GRAPH = "ours, eager", "ours, onnxruntime", "timm", "timm's graph in onnxruntime"
OFFICIAL = "the official Flax model"
Run = Callable[[Tensor], np.ndarray]
"""uint8 images → logits; peers get them normalised, outside of what is timed."""


def built(name: str) -> ViT:
    """Return a model with exact GELU, which all peers have, and a head that is not zero."""
    model = build(settings_for(name, CLASSES, SIZE).model_copy(update={"activation": "gelu"})).eval()
    torch.nn.init.normal_(model.head.weight, std=0.02, generator=torch.Generator().manual_seed(0))
    return model


def run_by(engine: Engine) -> Run:
    return lambda images: engine.run(images).logits


def eager(model: torch.nn.Module) -> Run:
    @torch.inference_mode()
    def run(images: Tensor) -> np.ndarray:
        found: Any = model(images)
        return getattr(found, "logits", found).numpy()

    return run


def _timm(model: ViT, folder: Path) -> dict[str, Run]:
    import onnxruntime
    import timm

    theirs = timm.create_model(f"local-dir:{convert(model, folder / 'timm', 'timm')}", pretrained=True).eval()
    path, batch = str(folder / "timm.onnx"), torch.export.Dim("batch", min=1)
    example = (torch.randn(2, 3, SIZE, SIZE),)
    torch.onnx.export(theirs, example, path, dynamo=True, dynamic_shapes=({0: batch},), verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return {TIMM: eager(theirs), TIMM_GRAPH: lambda images: session.run(None, {name: images.numpy()})[0]}


def _transformers(model: ViT, folder: Path) -> dict[str, Run]:
    import transformers

    path = convert(model, folder / "huggingface", "huggingface")
    return {"transformers": eager(transformers.AutoModelForImageClassification.from_pretrained(path).eval())}


def _torchvision(model: ViT, _: Path) -> dict[str, Run]:
    from torchvision.models.vision_transformer import VisionTransformer

    s = model.settings
    theirs = VisionTransformer(SIZE, s.stem.cell.height, s.depth, s.num_heads, s.width, s.mlp_dim, num_classes=CLASSES)
    ours, layers = model.state_dict(), range(s.depth)
    side, place = s.stem.cell.height, "encoder.layers.encoder_layer_"
    named = {
        "class_token": ours["class_token"],
        "conv_proj.weight": ours["stem.projection.weight"].reshape(s.width, 3, side, side),
        "conv_proj.bias": ours["stem.projection.bias"],
        "encoder.pos_embedding": ours["position.table"],
        **{f"encoder.ln.{leaf}": ours[f"encoder.norm.{leaf}"] for leaf in ("weight", "bias")},
        **{f"heads.head.{leaf}": ours[f"head.{leaf}"] for leaf in ("weight", "bias")},
    }
    pairs = {
        "ln_1": "norm1",
        "ln_2": "norm2",
        "self_attention.out_proj": "attention.out",
        "mlp.0": "mlp.hidden",
        "mlp.3": "mlp.out",
    }
    for layer in layers:
        block = f"encoder.blocks.{layer}"
        for leaf in ("weight", "bias"):
            for their, our in pairs.items():
                named[f"{place}{layer}.{their}.{leaf}"] = ours[f"{block}.{our}.{leaf}"]
            parts = [ours[f"{block}.attention.{part}.{leaf}"] for part in ("query", "key", "value")]
            named[f"{place}{layer}.self_attention.in_proj_{leaf}"] = torch.cat(parts)
    theirs.load_state_dict(named)
    return {"torchvision": eager(theirs.eval())}


def _official(model: ViT, _: Path) -> dict[str, Run]:
    import jax
    from flax import linen, traverse_util
    from vit_jax.models_vit import VisionTransformer

    s, renamed = model.settings, {"MlpBlock_3": "MlpBlock_0", "LayerNorm_2": "LayerNorm_1"}
    renamed["MultiHeadDotProductAttention_1"] = "MultiHeadDotProductAttention_0"  # flax counts otherwise than it did
    linen.gelu = partial(linen.gelu, approximate=False)  # looked up when it is called
    writable = build(s.model_copy(update={"activation": "gelu_tanh"}))  # the only one that official files can be of
    writable.load_state_dict(model.state_dict())
    layers = {"num_layers": s.depth, "mlp_dim": s.mlp_dim, "num_heads": s.num_heads}
    theirs = VisionTransformer(
        CLASSES,
        SimpleNamespace(size=tuple(s.stem.cell)),
        {**layers, "attention_dropout_rate": 0.0},
        hidden_size=s.width,
    )
    flat = {tuple(renamed.get(part, part) for part in name.split("/")): each for name, each in export(writable).items()}
    variables = jax.device_put({"params": traverse_util.unflatten_dict(flat)})
    apply = jax.jit(partial(theirs.apply, train=False))
    return {OFFICIAL: lambda images: np.asarray(apply(variables, images.permute(0, 2, 3, 1).contiguous().numpy()))}


BUILD = {"timm": _timm, "transformers": _transformers, "torchvision": _torchvision, "vit_jax": _official}


def contestants(model: ViT, folder: Path) -> tuple[dict[str, Run], dict[str, Run]]:
    """Return our ways to run `model`, and the peers that are installed."""
    ours = {EAGER: run_by(Eager(model)), BEST: run_by(OnnxRuntime.of(model))}
    theirs: dict[str, Run] = {}
    for package, build_peer in BUILD.items():
        if importlib.util.find_spec(package):
            theirs |= build_peer(model, folder)
    return ours, theirs


def measure(
    models: Sequence[str] = ("S/16", "B/16"), batches: Sequence[int] = (1, 8, 32), rounds: int = 7, threads: int = 2
) -> list[Row]:
    """Return our eager path against timm's, and our best one against everything else."""
    torch.set_num_threads(threads)
    rows: list[Row] = []
    for name in models:
        model = built(name)
        with tempfile.TemporaryDirectory() as folder, _quiet():
            ours, theirs = contestants(model, Path(folder))
            for batch in batches:
                rows += _rows(
                    f"inference, {name} at {SIZE}, batch {batch}", model, ours, _chosen(theirs, batch), batch, rounds
                )
    return rows


def _chosen(theirs: dict[str, Run], batch: int) -> dict[str, Run]:
    """Return who takes part: with large batches, which take long, only timm."""
    return theirs if batch < 32 else {name: run for name, run in theirs.items() if name.startswith("timm")}


def _rows(claim: str, model: ViT, ours: dict[str, Run], theirs: dict[str, Run], batch: int, rounds: int) -> list[Row]:
    images = torch.randint(256, (batch, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    normalised = model.image_spec.normalise(images)
    work: dict[str, Callable[[], np.ndarray]] = {name: lambda run=run: run(images) for name, run in ours.items()}
    work |= {name: lambda run=run: run(normalised) for name, run in theirs.items()}
    right = work[EAGER]()
    off = {name: float(np.abs(each() - right).max()) for name, each in work.items()}
    if max(off.values()) > TOLERANCE:
        raise AssertionError(f"{claim}: logits differ: {off}")
    seconds = take_turns(work, rounds)
    each = {name: f"{1000 * statistics.median(times) / batch:.1f} ms" for name, times in seconds.items()}
    print(f"{claim}, an image: {each}", flush=True)
    pairs = [
        (EAGER, TIMM),
        *((BEST, other) for other in (TIMM_GRAPH, TIMM, "transformers", "torchvision", OFFICIAL, EAGER)),
    ]
    rows = [Row.of(f"{claim}, {who}", other, seconds[who], seconds[other]) for who, other in pairs if other in seconds]
    for row in rows:
        print(row.markdown(), flush=True)
    return rows


@contextlib.contextmanager
def _quiet():
    """Leave out what peers say while they load."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        yield
        logging.disable(logging.NOTSET)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="S/16,B/16")
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    with contextlib.suppress(ImportError):
        importlib.import_module("peers")  # what timm needs beside a torch without CUDA
    measure(asked.models.split(","), [int(each) for each in asked.batches.split(",")], asked.rounds, asked.threads)


if __name__ == "__main__":
    main()
