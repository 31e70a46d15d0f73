"""A training step of vitlab against timm's and transformers' eager models, from equal weights with the same fused optimizer.

    python benchmarks/training.py [--device cuda] [--rounds 7] [speed | memory | own]

Run it where the peers are installed. Each contestant has a process of its own, so that what is set for all of one (the allocator)
belongs to one of them; they take turns, step by step. Losses must agree, or there is no row.
"""

import argparse
import contextlib
import importlib.util
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from contestant import Contestant, Running
from timing import Row, compare

from vitlab.models.catalog import settings_for
from vitlab.models.classifier import build
from vitlab.weights.convert import Format, convert

TOLERANCE = 1e-5
"""The losses of the first step; those after some updates differ as rounding grows."""
WRITTEN: dict[str, Format] = {"ours": "vitlab", "timm": "timm", "huggingface": "huggingface"}
CLASSES = 1000


class Case(NamedTuple):
    """A model, its image size and the batch of a step."""

    model: str
    image_size: int
    batch: int

    def __str__(self) -> str:
        return f"{self.model} at {self.image_size}, batch {self.batch}"


SPEED = (Case("S/16", 224, 16), Case("Ti/4", 32, 128), Case("S/16", 224, 32))
MEMORY = Case("S/16", 384, 6)
CUDA = (Case("B/16", 224, 256), Case("L/16", 224, 128))


@contextlib.contextmanager
def weights(case: Case) -> Iterator[dict[str, str]]:
    """Write one model for every contestant, and give the path of each; GELU is the exact one, which all of them have."""
    settings = settings_for(case.model, CLASSES, case.image_size).model_copy(update={"activation": "gelu"})
    model = build(settings)
    torch.nn.init.normal_(
        model.head.weight, std=0.02, generator=torch.Generator().manual_seed(0)
    )  # a zero head hides the rest
    with tempfile.TemporaryDirectory() as folder:
        names = {who: "ours.safetensors" if who == "ours" else who for who in WRITTEN}
        yield {who: str(convert(model, Path(folder) / name, WRITTEN[who])) for who, name in names.items()}


def peers() -> list[str]:
    """Return the contestants that are installed, but for ours."""
    needed = {"timm": "timm", "huggingface": "transformers"}
    return [who for who, package in needed.items() if importlib.util.find_spec(package)]


def measure(case: Case, device: str, rounds: int, **how: Any) -> list[Row]:
    """Return ours against each peer; `how` says what ours does besides, and on CUDA what both do."""
    rows: list[Row] = []
    with weights(case) as paths:
        for peer in peers():
            ours = Contestant("ours", paths["ours"], case.image_size, case.batch, device=device, **how)
            both = {name: how[name] for name in ("precision", "compiled") if device == "cuda" and name in how}
            theirs = Contestant(peer, paths[peer], case.image_size, case.batch, device=device, **both)
            with Running(ours) as first, Running(theirs) as second:
                losses = first.step(3).losses, second.step(3).losses
                _check(case, peer, *losses, exact=how.get("precision") != "bfloat16")
                said = ", ".join(name if value is True else str(value) for name, value in how.items())
                claim = f"training step, {case}" + (f" ({said})" if said else "")
                rows.append(compare(claim, peer, first.step, second.step, rounds))
                print(rows[-1].markdown(), f"first loss differs by {abs(losses[0][0] - losses[1][0]):.1e}", flush=True)
    return rows


def _check(case: Case, peer: str, ours: list[float], theirs: list[float], *, exact: bool) -> None:
    if abs(ours[0] - theirs[0]) > (TOLERANCE if exact else 1e-2):
        raise AssertionError(f"{case}: our losses are {ours}, {peer}'s {theirs}")


def own(rounds: int = 5) -> list[Row]:
    """Return what each way of computing a step is worth, against the plain step: rows that need no peer."""
    ways = {
        "allocator as it is": {"plain_allocator": True},
        "layers computed again": {"remat": True},
        "layers compiled": {"compiled": True},
    }
    case, rows = Case("S/16", 224, 32), list[Row]()
    with weights(case) as paths:
        plain = Contestant("ours", paths["ours"], case.image_size, case.batch)
        for name, way in ways.items():
            with Running(plain) as first, Running(replace(plain, **way)) as second:
                first.step(), second.step()
                rows.append(compare(f"training step, {case}", f"the same, {name}", first.step, second.step, rounds))
    return rows


def memory(case: Case, device: str, **how: Any) -> None:
    """Print by how many bytes the peak memory of a step grows with each image: activations and temporaries, without the model."""
    with weights(case) as paths:
        for who in ("ours", *peers()):
            extra = how if who == "ours" else {"remat": how.get("remat", False)}
            peaks: list[int] = []
            for batch in (case.batch, 2 * case.batch):
                contestant = Contestant(who, paths[who], case.image_size, batch, device=device, **extra)
                with Running(contestant) as running:
                    peaks.append(running.step(2).peak)
            each = (peaks[1] - peaks[0]) / case.batch
            print(f"| {case.model} at {case.image_size} {extra} | {who} | {each / 1e6:.1f} MB an image |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="?", choices=("speed", "memory", "own"), default="speed")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    if asked.what == "speed":
        for case in CUDA if asked.device == "cuda" else SPEED:
            if asked.device == "cuda":
                measure(case, "cuda", asked.rounds, precision="bfloat16", compiled=True)
            else:
                measure(case, "cpu", asked.rounds)
    elif asked.what == "own":
        print("\n".join(row.markdown() for row in own(asked.rounds)))
    else:
        for remat in (False, True):
            memory(MEMORY, asked.device, remat=remat)


if __name__ == "__main__":
    main()
