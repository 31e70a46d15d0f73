"""Rematerialisation: a layer forgets what it computed on the way, and computes it again for the backward pass."""

from collections.abc import Iterator
from typing import cast

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Layers(nn.ModuleList):
    """Layers one after the other, each of which may be computed again for the backward pass (`remat`) instead of being remembered.

    Only what goes into each layer is then kept (Chen et al. 2016). A step costs one more forward pass, a third of its work; the
    numbers are the same to the last bit, dropout included. It is how a model is trained and no part of it: no setting, nothing
    that is saved with its weights, and without effect where no gradient is asked for.
    """

    remat = False

    def forward(self, x: Shaped[Tensor, "b ..."], *last: int | None) -> Shaped[Tensor, "b ..."]:
        """Return what comes out of the last layer, which is also given the arguments `last`."""
        for index, layer in enumerate(self):
            arguments = last if index == len(self) - 1 else ()
            if self.remat and torch.is_grad_enabled():
                x = cast(Tensor, checkpoint(layer, x, *arguments, use_reentrant=False, preserve_rng_state=True))
            else:
                x = layer(x, *arguments)
        return x


def stacks(model: nn.Module) -> Iterator[Layers]:
    """Return the stacks of layers in `model`: an encoder's blocks, the units of each stage of a ResNet."""
    return (module for module in model.modules() if isinstance(module, Layers))


def set_remat(model: nn.Module, on: bool) -> None:
    """Have every stack of layers in `model` remember only what goes into its layers, or again everything."""
    for stack in stacks(model):
        stack.remat = on
