"""Multiply-accumulates of a model, and the compute of its training (table 6, figure 5)."""

import math
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitlab.config import parse
from vitlab.cost.memory import bytes_per_image
from vitlab.cost.parts import Part, parts_of
from vitlab.errors import SettingsError
from vitlab.models.catalog import settings_for
from vitlab.models.classifier import AnySettings, Classifier, empty
from vitlab.models.resnet import CHANNELS, ResNetSettings
from vitlab.models.vit import ViT, ViTSettings
from vitlab.nn.attention import SelfAttention
from vitlab.nn.axial_resnet import AxisAttention
from vitlab.nn.grid import Size, as_size
from vitlab.nn.pooling import AttentionPooling
from vitlab.nn.resnet import StdConv, same_padding

FLOPS_PER_MAC = 2
"""A multiplication and an addition."""
PASSES = 3
"""A training step in forward passes: the backward pass costs two."""


@dataclass(frozen=True)
class Cost:
    """What a model costs: `parameters`, `macs` (multiply-accumulates of one image forward), `exaflops` of a whole training.

    `parts` divides the first two. `activation_bytes` is about what a training step in float32 keeps of each image for its backward
    pass.
    """

    parameters: int
    macs: int
    exaflops: float | None = None
    parts: tuple[Part, ...] = ()
    activation_bytes: int = 0

    @property
    def gflops(self) -> float:
        """Floating-point operations of one image forward, in 10⁹: two a multiply-accumulate."""
        return FLOPS_PER_MAC * self.macs / 1e9


def cost(
    model: Classifier | AnySettings | str,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    train_images: float | None = None,
    epochs: float | None = None,
) -> Cost:
    """Return what a model costs, given as itself, as its settings or by its name; nothing is computed, no weight is read.

    `num_classes` and `image_size` (pixels: a side or (height, width)) are the model's own where they are None; a name stands
    for 1,000 classes at 224 pixels. With `train_images`, the size of the training set, and `epochs`, `exaflops` is
    3 · 2 · macs · images / 10¹⁸, which gives the numbers of table 6.

    The convention is the paper's: matrix products, convolutions without the taps that fall on padding, and the products of
    attention, for every token in every block. Norms, activations, softmax and sums are not counted. (The forward pass itself
    leaves out the tokens of the last block that nothing reads; this does not.)

    Raises:
        SettingsError: no such name, a size that does not fit the model, or one of `train_images` and `epochs` alone.
    """
    settings = resized(model, num_classes, image_size)
    counted = empty(settings)
    numbers = {name: parameter.numel() for name, parameter in counted.named_parameters()}
    counts = count_macs(counted)
    macs = sum(counts.values())
    exaflops = exaflops_of(macs, train_images, epochs)
    return Cost(sum(numbers.values()), macs, exaflops, parts_of(numbers, counts), bytes_per_image(settings))


def count_macs(model: Classifier) -> Counter[str]:
    """Return the multiply-accumulates of one image by the name of the module that makes them.

    `model` is on the meta device and keeps the hooks.
    """
    counts = Counter[str]()

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if macs := macs_of(module, inputs[0], output):
            counts[name] += macs

    for name, module in model.named_modules():
        module.register_forward_hook(partial(note, name))
    image = torch.empty(1, CHANNELS, *model.settings.image_size, device="meta")
    with torch.no_grad():
        if isinstance(model, ViT):
            model.head(model.pool(model.encode(model.embed(image))))
        else:
            model(image)
    return counts


def taps(size: int, outputs: int, kernel: int, stride: int, before: int) -> int:
    """Return how many taps of a kernel fall on an axis of `size` cells with `before` cells of padding, over all outputs."""
    starts = [index * stride - before for index in range(outputs)]
    return sum(min(start + kernel, size) - max(start, 0) for start in starts)


def macs_of(module: nn.Module, x: Tensor, output: Tensor) -> int:
    """Return what a module multiplies itself, without the modules inside it."""
    match module:
        case nn.Linear():
            return output.numel() * module.in_features
        case StdConv():
            inputs, outputs = module.weight.shape[1], module.weight.shape[0]
            return x.shape[0] * inputs * outputs * _taps_along(module, x, output, 2) * _taps_along(module, x, output, 3)
        case SelfAttention():
            # q · k and a · v; with relative positions also q · r, one vector a pair of tokens
            products = 2 if module.relative is None else 3
            return products * output.numel() * x.shape[1]
        case AttentionPooling():
            return 2 * output.numel() * (x.shape[1] - module.prefix)
        case AxisAttention():
            # q · k, q · r_key and k · r_query on half of the channels; a · v and a · r_value on all
            return 7 * output.numel() * x.shape[1] // 2
        case _:
            return 0


def _taps_along(module: StdConv, x: Tensor, output: Tensor, axis: int) -> int:
    size, stride = x.shape[axis], module.stride
    same = module.style.same and stride > 1
    before = same_padding(size, module.kernel, stride)[0] if same else module.kernel // 2
    return taps(size, output.shape[axis], module.kernel, stride, before)


def resized(
    model: Classifier | AnySettings | str,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> AnySettings:
    """Return the settings of a model, given as itself, as its settings or by name, with what is asked for in their place.

    Raises:
        SettingsError: no such name, or a size that does not fit the model.
    """
    if isinstance(model, str):
        settings = settings_for(model)
    else:
        settings = model if isinstance(model, ViTSettings | ResNetSettings) else model.settings
    changes: dict[str, int | Size] = {}
    if num_classes is not None:
        changes["num_classes"] = num_classes
    if image_size is not None:
        changes["image_size"] = as_size(image_size)
    return parse(type(settings), dict(settings) | changes, model if isinstance(model, str) else "cost")


def exaflops_of(macs: int, train_images: float | None, epochs: float | None) -> float | None:
    """Return 3 · 2 · macs · images · epochs / 10¹⁸, None where neither number is given.

    Raises:
        SettingsError: one is missing, or they are no training.
    """
    if train_images is None and epochs is None:
        return None
    if train_images is None or epochs is None:
        missing = "train_images" if train_images is None else "epochs"
        raise SettingsError("cost", f"{missing} is missing", "give both train_images and epochs, or neither")
    if not (0 < train_images < math.inf and 0 < epochs < math.inf):
        raise SettingsError(
            "cost", f"{train_images} images and {epochs} epochs are no training", "give numbers above 0"
        )
    return PASSES * FLOPS_PER_MAC * macs * train_images * epochs / 1e18
