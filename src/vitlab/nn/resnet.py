"""Convolutions, units and stages of the ResNets: the BiT models and the stem of the hybrids."""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import AfterValidator, NonNegativeFloat, PositiveFloat, model_validator
from torch import Tensor, nn
from torch.nn import functional

from vitlab.config import Settings
from vitlab.nn.bounds import Side
from vitlab.nn.grid import Size
from vitlab.nn.remat import Layers

GROUPS = 32


def _divides_into_groups(width: int) -> int:
    if width % GROUPS:
        use = max(GROUPS, round(width / GROUPS) * GROUPS)
        raise ValueError(f"a root of {width} channels has no {GROUPS} groups; use {use}")
    return width


RootWidth = Annotated[Side, AfterValidator(_divides_into_groups)]
"""Channels of the first convolution, as a field of settings."""


PoolPadding = Literal["same", "zeros", "ignored", "none"]
"""What the root's pool has around its input, see `Style`."""


class Style(NamedTuple):
    """The constants in which two implementations of the same ResNet differ.

    `same` pads as TensorFlow's "SAME" (at odd totals one more on the right and bottom); otherwise padding is symmetric. A kernel
    is divided by √(variance + `variance_eps`) + `std_eps`. Around the root's `pool` there are as many cells as "SAME" has, or one
    on each side ("zeros", or "ignored"), or none.
    """

    same: bool
    variance_eps: float
    std_eps: float
    norm_eps: float
    pool: PoolPadding = "same"


HYBRID = Style(same=True, variance_eps=0.0, std_eps=1e-5, norm_eps=1e-6)
"""The hybrids of the ViT paper."""
BIT = Style(same=False, variance_eps=1e-10, std_eps=0.0, norm_eps=1e-5, pool="zeros")
"""The released BiT models."""


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the padding before and after an axis of `size` that makes ⌈size / stride⌉ outputs; an odd total has one more after."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x: Float[Tensor, "b c h w"], kernel: int, stride: int, value: float = 0.0) -> Float[Tensor, "b c p q"]:
    """Pad an image on all sides as TensorFlow's "SAME" does."""
    top, bottom = same_padding(x.shape[2], kernel, stride)
    left, right = same_padding(x.shape[3], kernel, stride)
    return functional.pad(x, (left, right, top, bottom), value=value)


class StdConv(nn.Module):
    """A convolution without bias whose kernel [out, in, k, k] is standardised per output channel whenever it is used."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, style: Style) -> None:
        super().__init__()
        self.kernel, self.stride, self.style = kernel, stride, style
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))

    def standardised(self) -> Float[Tensor, "o i k k"]:
        """Return the kernel with mean zero and deviation one over each output channel."""
        centred = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        variance = centred.square().mean(dim=(1, 2, 3), keepdim=True)
        return centred / ((variance + self.style.variance_eps).sqrt() + self.style.std_eps)

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o p q"]:
        """Return the convolution; the output has ⌈size / stride⌉ rows and columns."""
        weight = self.standardised()
        if self.style.same and self.stride > 1:
            return functional.conv2d(pad_same(x, self.kernel, self.stride), weight, stride=self.stride)
        return functional.conv2d(x, weight, stride=self.stride, padding=self.kernel // 2)


def norm(channels: int, style: Style) -> nn.GroupNorm:
    """Return a GroupNorm of 32 groups."""
    return nn.GroupNorm(GROUPS, channels, eps=style.norm_eps)


class PostActivationUnit(nn.Module):
    """Bottleneck of ResNet v1.5: every convolution before its norm, the stride on the 3×3, a ReLU after the sum."""

    def __init__(self, inputs: int, width: int, stride: int, style: Style) -> None:
        super().__init__()
        self.conv1, self.norm1 = StdConv(inputs, width, 1, 1, style), norm(width, style)
        self.conv2, self.norm2 = StdConv(width, width, 3, stride, style), norm(width, style)
        self.conv3, self.norm3 = StdConv(width, 4 * width, 1, 1, style), norm(4 * width, style)
        project = stride != 1 or inputs != 4 * width
        self.conv_proj = StdConv(inputs, 4 * width, 1, stride, style) if project else None
        self.norm_proj = norm(4 * width, style) if project else None

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o p q"]:
        """Return the features of the next unit."""
        residual = x
        if self.conv_proj is not None and self.norm_proj is not None:
            residual = self.norm_proj(self.conv_proj(x))
        y = functional.relu(self.norm1(self.conv1(x)))
        y = functional.relu(self.norm2(self.conv2(y)))
        return functional.relu(residual + self.norm3(self.conv3(y)))


class PreActivationUnit(nn.Module):
    """Bottleneck of ResNet v2: norm and ReLU before every convolution, the sum left as it is."""

    def __init__(self, inputs: int, width: int, stride: int, style: Style) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(inputs, style), StdConv(inputs, width, 1, 1, style)
        self.norm2, self.conv2 = norm(width, style), StdConv(width, width, 3, stride, style)
        self.norm3, self.conv3 = norm(width, style), StdConv(width, 4 * width, 1, 1, style)
        project = stride != 1 or inputs != 4 * width
        self.conv_proj = StdConv(inputs, 4 * width, 1, stride, style) if project else None

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o p q"]:
        """Return the features of the next unit."""
        y = functional.relu(self.norm1(x))
        residual = x if self.conv_proj is None else self.conv_proj(y)
        y = functional.relu(self.norm2(self.conv1(y)))
        return residual + self.conv3(functional.relu(self.norm3(self.conv2(y))))


class Root(nn.Module):
    """The first layers: a 7×7 convolution and a 3×3 pool, of stride 2 each.

    The post-activation form has a norm and a ReLU between; the pre-activation form has neither, so that zeros that its pool sees
    outside the image may be more than what is inside.
    """

    def __init__(self, channels: int, width: int, style: Style, *, activated: bool) -> None:
        super().__init__()
        self.conv = StdConv(channels, width, 7, 2, style)
        self.norm = norm(width, style) if activated else None
        self.pool: PoolPadding = style.pool

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d p q"]:
        """Return the features of the first stage, at a quarter of the size."""
        x = self.conv(x)
        if self.norm is not None:
            x = functional.relu(self.norm(x))
        match self.pool:
            case "same":
                return functional.max_pool2d(pad_same(x, 3, 2, -math.inf), 3, 2)
            case "zeros":
                return functional.max_pool2d(functional.pad(x, (1, 1, 1, 1)), 3, 2)
            case "ignored":
                return functional.max_pool2d(x, 3, 2, padding=1)
            case "none":
                return functional.max_pool2d(x, 3, 2)


MakeUnit = Callable[[int, int, int, Size], nn.Module]
"""(input channels, bottleneck width, stride, size of the input) → a unit."""


def stages(make: MakeUnit, depths: Sequence[int], width: int, image: Size) -> nn.ModuleList:
    """Return the stages for images of `image`: stage i has `depths[i]` units of bottleneck width `width` · 2ⁱ.

    Each stage but the first halves the size in its first unit.
    """
    result: list[nn.Module] = []
    inputs, size = width, feature_size(image, ())
    for index, depth in enumerate(depths):
        units: list[nn.Module] = []
        for position in range(depth):
            stride = 2 if index > 0 and position == 0 else 1
            units.append(make(inputs, width << index, stride, size))
            size = Size(math.ceil(size.height / stride), math.ceil(size.width / stride))
            inputs = 4 * (width << index)
        result.append(Layers(units))
    return nn.ModuleList(result)


def output_channels(depths: Sequence[int], width: int) -> int:
    """Return the channels after the last stage."""
    return 4 * (width << (len(depths) - 1)) if depths else width


def stride_of(depths: Sequence[int]) -> int:
    """Return by how much the root and the stages make an image smaller."""
    return 4 << max(len(depths) - 1, 0)


def feature_size(image: Size, depths: Sequence[int]) -> Size:
    """Return the size of the feature map after the stages: ⌈size / stride⌉; a root's pool without padding may make it smaller."""
    stride = stride_of(depths)
    return Size(math.ceil(image.height / stride), math.ceil(image.width / stride))


UNIT_FLOATS = 14
"""What a unit keeps for each cell of its feature map, in bottleneck widths."""


def floats_per_image(depths: Sequence[int], width: int, image: Size) -> int:
    """Return about how many numbers a training step keeps for each image: what goes into every convolution, norm and ReLU."""
    half = image.height * image.width // 4
    total = 3 * half * width
    for index, depth in enumerate(depths):
        cells = feature_size(image, depths[: index + 1])
        total += depth * cells.height * cells.width * UNIT_FLOATS * (width << index)
    return total


def remat_floats_per_image(depths: Sequence[int], width: int, image: Size) -> int:
    """Return the same where every unit is computed again: the root, what goes into each unit, and all of the largest."""
    cells = [math.prod(feature_size(image, depths[: index + 1])) << index for index in range(len(depths))]
    inputs = 4 * width * sum(depth * each for depth, each in zip(depths, cells, strict=True))
    return floats_per_image((), width, image) + inputs + UNIT_FLOATS * width * max(cells, default=0)


HELD_FLOATS = 16
"""What a unit holds at once for each cell in inference, in bottleneck widths: four feature maps of four widths."""


def forward_floats_per_image(depths: Sequence[int], width: int, image: Size) -> int:
    """Return about how many numbers inference holds at once for each image: in the root, or in a unit of the largest stage."""
    cells = [math.prod(feature_size(image, depths[: index + 1])) << index for index in range(len(depths))]
    return max(floats_per_image((), width, image), HELD_FLOATS * width * max(cells, default=0))


class PreActivation(Settings):
    """ResNet v2, as the released BiT models are: norm and ReLU before each convolution.

    `padding` "zeros" is that of the BiT code, the same on all sides; "ignored" is too, but the root's pool ignores what is outside
    the image (big_vision); "same" pads convolutions as TensorFlow does, and the root's pool not at all (transformers' SAME).
    `variance_eps` is 1e-8 in timm and transformers.
    """

    type: Literal["PreActivation"] = "PreActivation"
    padding: Literal["zeros", "ignored", "same"] = "zeros"
    variance_eps: PositiveFloat = BIT.variance_eps

    @property
    def activated_root(self) -> bool:
        """Whether the first convolution is followed by norm and ReLU."""
        return False

    @property
    def style(self) -> Style:
        """The constants of the BiT code, but for what is set."""
        same, pool = self.padding == "same", "none" if self.padding == "same" else self.padding
        return BIT._replace(same=same, variance_eps=self.variance_eps, pool=pool)

    @property
    def make(self) -> MakeUnit:
        """What makes one bottleneck."""
        return lambda inputs, width, stride, _: PreActivationUnit(inputs, width, stride, self.style)


class PostActivation(Settings):
    """ResNet v1.5 with GroupNorm and standardised convolutions, as in the hybrids.

    A kernel is divided by √(variance + `variance_eps`) + `std_eps`: in timm and transformers 1e-8 and 0, with `norm_eps` 1e-5.
    """

    type: Literal["PostActivation"] = "PostActivation"
    variance_eps: NonNegativeFloat = HYBRID.variance_eps
    std_eps: NonNegativeFloat = HYBRID.std_eps
    norm_eps: PositiveFloat = HYBRID.norm_eps

    @model_validator(mode="after")
    def _divides(self) -> "PostActivation":
        if not (self.variance_eps or self.std_eps):
            raise ValueError("variance_eps and std_eps 0 would divide a constant kernel by zero; use std_eps 1e-5")
        return self

    @property
    def activated_root(self) -> bool:
        """Whether the first convolution is followed by norm and ReLU."""
        return True

    @property
    def style(self) -> Style:
        """The constants of the ViT code, but for what is set."""
        return HYBRID._replace(variance_eps=self.variance_eps, std_eps=self.std_eps, norm_eps=self.norm_eps)

    @property
    def make(self) -> MakeUnit:
        """What makes one bottleneck."""
        return lambda inputs, width, stride, _: PostActivationUnit(inputs, width, stride, self.style)
