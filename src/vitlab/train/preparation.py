"""How a model is set up to be trained, and left as it was: layers that are recomputed, layers that are compiled."""

import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import nn

from vitlab.errors import SettingsError
from vitlab.models.classifier import Classifier
from vitlab.nn.remat import set_remat, stacks
from vitlab.train.config import TrainSettings


class _Compilers(NamedTuple):
    language: str
    variable: str
    names: tuple[str, ...]


_FOR_CPU = _Compilers("C++", "CXX", ("g++", "clang++", "c++"))
_FOR_GPU = _Compilers("C", "CC", ("gcc", "clang", "cc"))
"""What Triton calls, which writes torch's programs for GPUs."""


@contextmanager
def prepared(model: Classifier, settings: TrainSettings) -> Generator[None]:
    """Set `model` up as `settings` say, and leave it as it was.

    `remat` has layers recomputed in the backward pass. `compile` compiles each layer by itself: alike layers share one program,
    so that the first step comes after one layer's compilation instead of the model's, and the names of parameters stay.

    Raises:
        SettingsError: there is nothing that can compile.
    """
    check_compiler(settings, next(model.parameters()).device)
    set_remat(model, settings.remat)
    if settings.compile:
        for layer in _layers(model):
            layer.compile()
    try:
        yield
    finally:
        set_remat(model, False)
        for layer in _layers(model):
            vars(layer).pop("_compiled_call_impl", None)  # torch has no way back from Module.compile


def uncompiled(settings: TrainSettings) -> AbstractContextManager[object]:
    """Return the context of an evaluation: batches of other sizes, without gradients, are not worth programs of their own."""
    return torch.compiler.set_stance("force_eager") if settings.compile else nullcontext()


def check_compiler(settings: TrainSettings, device: torch.device) -> None:
    """Refuse to compile where it cannot be done.

    Raises:
        SettingsError: there is nothing that can compile for `device`.
    """
    needed = _FOR_CPU if device.type == "cpu" else _FOR_GPU
    compilers = [os.environ[needed.variable]] if needed.variable in os.environ else needed.names
    if settings.compile and not any(map(shutil.which, compilers)):
        what = f"needs a {needed.language} compiler, and there is none"
        raise SettingsError("--compile", what, f"install {needed.names[0]}, or leave it out")


def _layers(model: Classifier) -> Iterator[nn.Module]:
    return (layer for stack in stacks(model) for layer in stack)
