"""Axial attention with relative positions in the place of a ResNet's 3×3 convolution (appendix D.6)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vitlab.config import Settings
from vitlab.nn.bounds import Dimension
from vitlab.nn.grid import Size
from vitlab.nn.resnet import MakeUnit, StdConv, Style, norm, pad_same

AXIAL = Style(same=True, variance_eps=1e-10, std_eps=0.0, norm_eps=1e-4)
"""The constants of the author's AxialResNet."""


class AxisAttention(nn.Module):
    """Self-attention along one axis of n cells, with relative positions for queries, keys and values (Wang et al. 2020).

    Logits are q · k + q · r_key + k · r_query, without a scale; values are joined by r_value. `relative` is [2d, 2n - 1] for heads
    of d channels: d/2 rows for queries, d/2 for keys, d for values.
    """

    def __init__(self, channels: int, length: int, num_heads: int, style: Style) -> None:
        super().__init__()
        self.num_heads, self.length = num_heads, length
        self.qkv = nn.Linear(channels, 2 * channels, bias=False)
        self.norm_qkv = norm(2 * channels, style)
        self.relative = nn.Parameter(torch.empty(2 * channels // num_heads, 2 * length - 1))
        self.norm_out = norm(channels, style)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """Return the attended values of every cell of the axis."""
        dim = x.shape[2] // self.num_heads
        qkv = self.norm_qkv(self.qkv(x).transpose(1, 2))
        query, key, value = qkv.unflatten(1, (self.num_heads, 2 * dim)).split([dim // 2, dim // 2, dim], dim=2)
        position = torch.arange(self.length, device=x.device)
        offsets = self.relative[:, position[:, None] - position[None, :] + self.length - 1]
        r_query, r_key, r_value = offsets.split([dim // 2, dim // 2, dim], dim=0)
        logits = query.transpose(2, 3) @ key
        logits = logits + torch.einsum("bmdi,dij->bmij", query, r_key) + torch.einsum("bmdj,dji->bmij", key, r_query)
        weights = torch.softmax(logits, dim=3)
        read = value @ weights.transpose(2, 3) + torch.einsum("bmij,dij->bmdi", weights, r_value)
        return self.norm_out(read.flatten(1, 2)).transpose(1, 2)


class AxialUnit(nn.Module):
    """Bottleneck of ResNet v1.5 with attention along the height and then along the width instead of its 3×3 convolution."""

    def __init__(self, inputs: int, width: int, stride: int, size: Size, num_heads: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1, self.norm1 = StdConv(inputs, width, 1, 1, AXIAL), norm(width, AXIAL)
        self.rows = AxisAttention(width, size.height, num_heads, AXIAL)
        self.columns = AxisAttention(width, size.width, num_heads, AXIAL)
        self.conv3, self.norm3 = StdConv(width, 4 * width, 1, 1, AXIAL), norm(4 * width, AXIAL)
        project = stride != 1 or inputs != 4 * width
        self.conv_proj = StdConv(inputs, 4 * width, 1, stride, AXIAL) if project else None
        self.norm_proj = norm(4 * width, AXIAL) if project else None

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o p q"]:
        """Return the features of the next unit."""
        residual = x
        if self.conv_proj is not None and self.norm_proj is not None:
            residual = self.norm_proj(self.conv_proj(x))
        y = functional.relu(self.norm1(self.conv1(x)))
        b, c, h, w = y.shape
        y = self.rows(y.permute(0, 3, 2, 1).reshape(b * w, h, c)).reshape(b, w, h, c).transpose(1, 2)
        y = self.columns(y.reshape(b * h, w, c)).reshape(b, h, w, c).permute(0, 3, 1, 2)
        if self.stride == 2:
            y = _average_pool_same(y)
        return functional.relu(residual + self.norm3(self.conv3(functional.relu(y))))


def _average_pool_same(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c p q"]:
    """Average 2×2 cells; at an odd edge only the cells that there are."""
    counts = functional.avg_pool2d(pad_same(torch.ones_like(x[:1, :1]), 2, 2), 2)
    return functional.avg_pool2d(pad_same(x, 2, 2), 2) / counts


def resize_relative(relative: Float[Tensor, "d old"], length: int) -> Float[Tensor, "d new"]:
    """Resample the offsets of an axis for another `length`, linearly between its ends."""
    new = 2 * length - 1
    if relative.shape[1] == new:
        return relative
    resized = functional.interpolate(relative[None].double(), size=new, mode="linear", align_corners=True)[0]
    return resized.to(relative.dtype)


class AxialAttention(Settings):
    """ResNet v1.5 whose 3×3 convolutions are axial attention with relative positions."""

    type: Literal["AxialAttention"] = "AxialAttention"
    num_heads: Dimension = 8

    @property
    def activated_root(self) -> bool:
        """Whether the first convolution is followed by norm and ReLU."""
        return True

    @property
    def style(self) -> Style:
        """The constants of the author's code."""
        return AXIAL

    def extra_floats(self, size: Size, width: int) -> int:
        """Return about how many numbers a unit on a feature map of `size` keeps for training that a convolution would not."""
        each = (
            3 * self.num_heads * (size.height + size.width) + 8 * width
        )  # attention along both axes; queries, keys, values
        return size.height * size.width * each

    @property
    def make(self) -> MakeUnit:
        """What makes one bottleneck."""
        return lambda inputs, width, stride, size: AxialUnit(inputs, width, stride, size, self.num_heads)
