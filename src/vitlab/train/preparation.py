"""How a model is set up to be trained, and left as it was: layers that are recomputed, layers that are compiled."""

import os
import shutil
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from vitlab.errors import SettingsError
from vitlab.models.classifier import Classifier
from vitlab.nn.remat import set_remat, stacks
from vitlab.train.config import TrainSettings

RECOMPILATIONS = 256
"""How many programs one layer's code may have: with stochastic depth each layer has a rate, and so a program, of its own; torch
would stop at 8 and go on uncompiled."""
COMPILERS = ("g++", "clang++", "c++")


@contextmanager
def prepared(model: Classifier, settings: TrainSettings) -> Generator[None]:
    """Set `model` up as `settings` say, and leave it as it was.

    `remat` has layers recomputed in the backward pass. `compile` compiles each layer by itself: alike layers share one program,
    so that the first step comes after one layer's compilation instead of the model's, and the names of parameters stay.

    Raises:
        SettingsError: nothing here can compile.
    """
    set_remat(model, settings.remat)
    if settings.compile:
        _compile(model)
    try:
        yield
    finally:
        set_remat(model, False)
        for layer in (layer for stack in stacks(model) for layer in stack):
            vars(layer).pop("_compiled_call_impl", None)  # torch has no way back from Module.compile


def uncompiled(settings: TrainSettings) -> AbstractContextManager[object]:
    """Return the context of an evaluation: batches of other sizes, without gradients, are not worth programs of their own."""
    return torch.compiler.set_stance("force_eager") if settings.compile else nullcontext()


def _compile(model: Classifier) -> None:
    device = next(model.parameters()).device
    compilers = [os.environ["CXX"]] if "CXX" in os.environ else COMPILERS
    if device.type == "cpu" and not any(map(shutil.which, compilers)):
        raise SettingsError(
            "--compile", "needs a C++ compiler on a CPU, and there is none", "install g++, or leave it out"
        )
    import torch._dynamo  # seconds, which only those who compile should wait for

    torch._dynamo.config.recompile_limit = RECOMPILATIONS
    for layer in (layer for stack in stacks(model) for layer in stack):
        layer.compile()
