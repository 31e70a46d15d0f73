"""One contestant of training.py, in a process of its own: a model that makes training steps when it is told to.

Every contestant makes the same step: forward, cross-entropy, backward, clipping to norm 1, torch's fused AdamW. What differs is the
model, and what a row of the table says of it.
"""

import contextlib
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

HELD = contextlib.ExitStack()
"""What lasts as long as the process."""
PEAK = "VmHWM"
"""Linux's own mark of the highest memory of a process; getrusage's is inherited from the parent."""


@dataclass(frozen=True)
class Contestant:
    """Who makes the steps, from which weights (a folder for each of `who`), and how."""

    who: Literal["ours", "timm", "huggingface"]
    weights: str
    image_size: int
    batch: int
    remat: bool = False
    compiled: bool = False
    plain_allocator: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    device: str = "cpu"
    threads: int = 2


@dataclass(frozen=True)
class Answer:
    """The losses of the steps made, the seconds they took, and the highest memory of the process since it began, in bytes."""

    losses: list[float]
    seconds: float
    peak: int


class Running:
    """A contestant that was started; `step` has it make steps and returns when they are made."""

    def __init__(self, contestant: Contestant) -> None:
        command = [sys.executable, __file__, json.dumps(asdict(contestant))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def step(self, count: int = 1) -> Answer:
        assert self._process.stdin and self._process.stdout
        print(count, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a contestant ended with {self._process.wait()}")
        return Answer(**json.loads(line))

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()


def _ours(contestant: Contestant) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    import vitlab
    from vitlab.train.config import TrainSettings
    from vitlab.train.preparation import prepared

    model = vitlab.load(contestant.weights)
    settings = TrainSettings(remat=contestant.remat, compile=contestant.compiled)
    HELD.enter_context(prepared(model, settings))
    return model, model


def _timm(contestant: Contestant) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    import timm

    model = timm.create_model(f"local-dir:{contestant.weights}", pretrained=True)
    model.set_grad_checkpointing(contestant.remat)
    return model, torch.compile(model) if contestant.compiled else model


def _huggingface(contestant: Contestant) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    import transformers

    model: Any = transformers.AutoModelForImageClassification.from_pretrained(contestant.weights)
    if contestant.remat:
        model.gradient_checkpointing_enable()
    run = torch.compile(model) if contestant.compiled else model
    return model, lambda images: run(images).logits


BUILD = {"ours": _ours, "timm": _timm, "huggingface": _huggingface}


def _clip(who: str, parameters: list[nn.Parameter]) -> None:
    if who == "ours":
        from vitlab.train.optimizer import clip_by_global_norm

        clip_by_global_norm(parameters, 1.0)
    else:
        nn.utils.clip_grad_norm_(parameters, 1.0)


def _steps(contestant: Contestant) -> Callable[[int], list[float]]:
    """Return what makes so many steps and returns their losses."""
    device = torch.device(contestant.device)
    model, run = BUILD[contestant.who](contestant)
    model.to(device).train()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.1, fused=True)
    random = torch.Generator().manual_seed(0)
    side = contestant.image_size
    images = torch.rand(contestant.batch, 3, side, side, generator=random).mul_(2).sub_(1).to(device)
    labels = torch.randint(10, (contestant.batch,), generator=random).to(device)
    half = contestant.precision == "bfloat16"

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = functional.cross_entropy(run(images), labels)
        loss.backward()
        _clip(contestant.who, parameters)
        optimizer.step()
        return loss.detach()

    return lambda count: torch.stack([step() for _ in range(count)]).tolist()  # the only wait for the device


def _peak() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith(PEAK))


def serve(contestant: Contestant, requests: Iterable[str]) -> None:
    """Make as many steps as each line of `requests` says, and print the answer."""
    if contestant.who == "ours" and not contestant.plain_allocator:  # as `vitlab.train` sets it where it starts
        from vitlab.train.allocation import keep_freed_memory

        keep_freed_memory(not contestant.remat)
    torch.set_num_threads(contestant.threads)
    steps = _steps(contestant)
    for line in requests:
        start = time.perf_counter()
        losses = steps(int(line))
        seconds = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated() if contestant.device == "cuda" else _peak()
        print(json.dumps(asdict(Answer(losses, seconds, peak))), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(ImportError):
        importlib.import_module("peers")  # what timm needs beside a torch without CUDA
    serve(Contestant(**json.loads(sys.argv[1])), sys.stdin)
