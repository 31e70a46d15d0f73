"""Averages of the weights over the steps of a run (Polyak & Juditsky 1992), which are often better than the last weights."""

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vitlab.train.sharding import own_part

Named = Iterable[tuple[str, nn.Parameter]]
Average = dict[str, Tensor]
"""The average of each parameter that is trained, in float32, by its name."""


@torch.no_grad()
def copy(parameters: Named) -> Average:
    """Return the trained parameters as they are: the average before the first update."""
    return {name: parameter.detach().float().clone() for name, parameter in parameters if parameter.requires_grad}


def decay_at(step: int, decay: float) -> float:
    """Return what the average keeps of itself at update `step`, from 0: `decay`, and less at first, (1 + step) / (10 + step).

    Without the second (TensorFlow's rule for exponential averages) the factor of the paper, 0.9999, would leave 95 % of the first
    weights in the average of a run of 500 steps, and 14 % in that of its 20,000 steps on ImageNet.
    """
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def update(average: Average, parameters: Named, kept: float, skip: Tensor | None = None) -> None:
    """Move `average` towards the parameters, in place: a ← a + (1 - kept) (p - a). Nothing waits for the device.

    Where `skip` (0 or 1, no dimensions) is 1 everything stays as it is.
    """
    current = [own_part(parameter.detach()).float() for name, parameter in parameters if name in average]
    weight = 1 - kept if skip is None else [(1 - kept) * (1 - skip.float())] * len(current)
    averages = [own_part(value) for value in average.values()]
    torch._foreach_lerp_(averages, current, weight)  # pyright: ignore  (as torch's own averages do)


@contextmanager
def swapped(parameters: Named, average: Mapping[str, Tensor]) -> Generator[None]:
    """Give the parameters the values of `average` within the context, and their own again after it."""
    chosen = [(name, parameter) for name, parameter in parameters if name in average]
    own = {name: parameter.detach().clone() for name, parameter in chosen}
    try:
        adopt(chosen, average)
        yield
    finally:
        adopt(chosen, own)


@torch.no_grad()
def adopt(parameters: Named, average: Mapping[str, Tensor]) -> None:
    """Give the parameters the values of `average`, where it has any."""
    for name, parameter in parameters:
        if name in average:
            parameter.copy_(average[name])
