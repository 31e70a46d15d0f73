"""The initialisation of every parameter, as one table."""

import math
import re
from collections.abc import Callable, Mapping

import torch
from torch import Generator, Tensor, nn

from vitlab.errors import SettingsError
from vitlab.nn.position import SinCosPosition
from vitlab.nn.seed import keyed_seed

Initialiser = Callable[[Tensor, Generator], object]
Initialisers = Mapping[str, Initialiser]
"""By parameter name (a regular expression for the whole of it), the first that matches."""


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


def query_uniform(tensor: Tensor, generator: Generator) -> None:
    """Draw a learned query [1, 1, d] as the paper's code draws a matrix [1, d]: Xavier uniform."""
    limit = math.sqrt(6.0 / (1 + tensor.shape[-1]))
    tensor.uniform_(-limit, limit, generator=generator)


def normal_by_inputs(tensor: Tensor, generator: Generator) -> None:
    """Draw a weight [out, in] from a normal of deviation 1/in."""
    tensor.normal_(0.0, 1 / tensor.shape[1], generator=generator)


def normal_by_head(tensor: Tensor, generator: Generator) -> None:
    """Draw an axis's relative positions [2d, offsets] from a normal of deviation 1/d."""
    tensor.normal_(0.0, 2 / tensor.shape[0], generator=generator)


RESNET: dict[str, Initialiser] = {
    r"(.*\.)?conv(\d|_proj)?\.weight": lecun_normal,
    r"((stem\.)?(root|stages)\.(.*\.)?)?norm(\d|_\w+)?\.weight": constant(1.0),
    r"((stem\.)?(root|stages)\.(.*\.)?)?norm(\d|_\w+)?\.bias": constant(0.0),
}


def vit_table(head_bias: float, layer_scale: float | None = None) -> dict[str, Initialiser]:
    """Return the ViT's initialisers by parameter name (regular expressions), as in the paper's code.

    | parameter | value |
    | --- | --- |
    | patch projection, representation layer | LeCun normal, truncated; bias 0 |
    | class token | 0 |
    | positions | normal, deviation 0.02 |
    | query, key, value, attention output | Xavier uniform, each matrix by itself; bias 0 |
    | MLP | Xavier uniform; bias normal, deviation 1e-6 |
    | LayerNorm, that of the mean too | scale 1, bias 0 |
    | query of attention pooling | Xavier uniform |
    | head | weight 0, bias `head_bias` |
    | registers | normal, deviation 1e-6 (as DINOv2) |
    | layer scale | `layer_scale` |

    A hybrid's ResNet starts as `resnet_table` says.
    """
    return {
        r"stem\.(embedding\.)?projection\.weight|representation\.weight": lecun_normal,
        r"stem\.(embedding\.)?projection\.bias|representation\.bias|class_token": constant(0.0),
        r"(.*\.)?position\.(table|rows|columns|prefix_rows)": normal(0.02),
        r".*\.attention\.relative\.table": normal(0.02),
        r".*attention\.(query|key|value|out)\.weight": xavier_uniform,
        r".*attention\.(query|key|value|out)\.bias": constant(0.0),
        r".*\.mlp\.(hidden|out)\.weight": xavier_uniform,
        r".*\.mlp\.(hidden|out)\.bias": normal(1e-6),
        r"(encoder|pooling)\.(.*\.)?norm\d?\.weight": constant(1.0),
        r"(encoder|pooling)\.(.*\.)?norm\d?\.bias": constant(0.0),
        r"pooling\.probe": query_uniform,
        r"registers": normal(1e-6),
        r".*\.branch\d\.scale": constant(math.nan if layer_scale is None else layer_scale),
        r"head\.weight": constant(0.0),
        r"head\.bias": constant(head_bias),
        r"stem\.stages\..*\.norm3\.weight": constant(0.0),
    } | RESNET


def resnet_table(head_bias: float, last_scale: float) -> dict[str, Initialiser]:
    """Return the ResNet's initialisers by parameter name (regular expressions), as in the paper's code.

    | parameter | value |
    | --- | --- |
    | convolutions | LeCun normal, truncated |
    | GroupNorm | scale 1, bias 0; the last of a unit `last_scale`: 0 where it precedes the sum |
    | axial attention: projection, relative positions | normal, deviation 1/channels, 1/channels of a head |
    | head | weight 0, bias `head_bias` |
    """
    return {
        r"stages\..*\.norm3\.weight": constant(last_scale),
        r".*\.qkv\.weight": normal_by_inputs,
        r".*\.relative": normal_by_head,
        r"head\.weight": constant(0.0),
        r"head\.bias": constant(head_bias),
    } | RESNET


@torch.no_grad()
def initialise(module: nn.Module, table: Initialisers, seed: int) -> None:
    """Give every parameter of `module` that is on the meta device memory, and write it by the first entry that matches its name.

    Each parameter has a random stream of its own, keyed by the seed and its name, so that adding one changes no other. It is
    filled with NaN until it is written.

    Raises:
        ValueError: a parameter matches no entry, or a value was left unwritten.
        SettingsError: the memory of this machine does not hold the parameters.
    """
    for name, parameter in list(module.named_parameters()):
        if not parameter.is_meta:
            continue
        write = next((write for pattern, write in table.items() if re.fullmatch(pattern, name)), None)
        if write is None:
            raise ValueError(f"no initialiser for the parameter '{name}'")
        try:
            values = torch.full(parameter.shape, math.nan, dtype=parameter.dtype, device="cpu")
        except RuntimeError:  # what torch's allocator raises
            gigabytes = sum(parameter.numel() for parameter in module.parameters()) * 4 / 1e9
            raise SettingsError("model", f"needs {gigabytes:,.0f} GB of memory", "choose a smaller one") from None
        write(values, Generator().manual_seed(keyed_seed(seed, name)))
        if values.isnan().any():
            raise ValueError(f"the parameter '{name}' was left unwritten")
        put(module, name, values)
    for part in module.modules():
        if isinstance(part, SinCosPosition):
            _ = part.fixed  # or a traced model would compute, and keep, what it traced


def put(module: nn.Module, name: str, values: Tensor) -> None:
    """Make `values` the parameter `name` of `module`."""
    place, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(place), leaf, nn.Parameter(values))
