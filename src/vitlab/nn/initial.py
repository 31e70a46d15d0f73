"""The initialisation of every parameter, as one table."""

import math
import re
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from vitlab.nn.seed import keyed_seed

Initialiser = Callable[[Tensor, Generator], object]


def constant(value: float) -> Initialiser:
    """Fill with `value`."""
    return lambda tensor, _: tensor.fill_(value)


def normal(std: float) -> Initialiser:
    """Draw from a normal distribution with mean zero, not truncated."""
    return lambda tensor, generator: tensor.normal_(0.0, std, generator=generator)


def lecun_normal(tensor: Tensor, generator: Generator) -> None:
    """Draw a weight [out, in] from a normal cut at two deviations, with variance 1/in after the cut."""
    std = math.sqrt(1.0 / tensor[0].numel()) / 0.87962566103423978  # the deviation of a unit normal cut at ±2
    nn.init.trunc_normal_(tensor, 0.0, std, -2 * std, 2 * std, generator=generator)


def xavier_uniform(tensor: Tensor, generator: Generator) -> None:
    """Draw a weight [out, in] uniformly within ±√(6 / (in + out))."""
    limit = math.sqrt(6.0 / (tensor.shape[0] + tensor.shape[1]))
    tensor.uniform_(-limit, limit, generator=generator)


def vit_table(head_bias: float) -> dict[str, Initialiser]:
    """Return the ViT's initialisers by parameter name (regular expressions), as in the paper's code.

    | parameter | value |
    | --- | --- |
    | patch projection, representation layer | LeCun normal, truncated; bias 0 |
    | class token | 0 |
    | position table | normal, deviation 0.02 |
    | query, key, value, attention output | Xavier uniform, each matrix by itself; bias 0 |
    | MLP | Xavier uniform; bias normal, deviation 1e-6 |
    | LayerNorm | scale 1, bias 0 |
    | head | weight 0, bias `head_bias` |
    """
    return {
        r"stem\.projection\.weight|representation\.weight": lecun_normal,
        r"stem\.projection\.bias|representation\.bias|class_token": constant(0.0),
        r"position\.table": normal(0.02),
        r".*\.attention\.(query|key|value|out)\.weight": xavier_uniform,
        r".*\.attention\.(query|key|value|out)\.bias": constant(0.0),
        r".*\.mlp\.(hidden|out)\.weight": xavier_uniform,
        r".*\.mlp\.(hidden|out)\.bias": normal(1e-6),
        r".*\.norm\d?\.weight": constant(1.0),
        r".*\.norm\d?\.bias": constant(0.0),
        r"head\.weight": constant(0.0),
        r"head\.bias": constant(head_bias),
    }


@torch.no_grad()
def initialise(module: nn.Module, table: dict[str, Initialiser], seed: int) -> None:
    """Write every parameter of `module` by the first entry of `table` whose expression matches its whole name.

    Each parameter has a random stream of its own, keyed by the seed and its name, so that adding one changes no other.
    The module may be on the meta device; it is given memory here, filled with NaN until it is written.

    Raises:
        ValueError: a parameter matches no entry, or a value was left unwritten.
    """
    module.to_empty(device="cpu")
    for name, parameter in module.named_parameters():
        parameter.fill_(math.nan)
        write = next((write for pattern, write in table.items() if re.fullmatch(pattern, name)), None)
        if write is None:
            raise ValueError(f"no initialiser for the parameter '{name}'")
        write(parameter, Generator().manual_seed(keyed_seed(seed, name)))
        if parameter.isnan().any():
            raise ValueError(f"the parameter '{name}' was left unwritten")
