"""The ResNets that the paper compares with: BiT, its post-activation form, and AxialResNet (section 4.1, appendix D.6)."""

import math
from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from vitlab.config import Settings
from vitlab.data.labels import Probabilities
from vitlab.data.preprocess import ImageSpec
from vitlab.nn.axial_resnet import AxialAttention, resize_relative
from vitlab.nn.bounds import Dimension, check_layers
from vitlab.nn.grid import Size, SizeField
from vitlab.nn.resnet import (
    PostActivation,
    PreActivation,
    Root,
    RootWidth,
    feature_size,
    floats_per_image,
    forward_floats_per_image,
    norm,
    output_channels,
    remat_floats_per_image,
    stages,
    stride_of,
)

CHANNELS = 3


class ResNetSettings(Settings):
    """Everything that builds a ResNet with GroupNorm and standardised convolutions; the defaults are BiT-R50x1 at 224 px.

    `depths` are the units of each stage; `root_width` is the channels of the first convolution, 64 times the "x2" of a name. The
    released BiT models are of the kind PreActivation. `num_classes=None` leaves out the head.
    """

    type: Literal["ResNet"] = "ResNet"
    image_size: SizeField = Size(224, 224)
    depths: Annotated[tuple[Dimension, ...], Field(min_length=1, max_length=5)] = (3, 4, 6, 3)
    root_width: RootWidth = 64
    unit: Annotated[PreActivation | PostActivation | AxialAttention, Field(discriminator="type")] = PreActivation()
    num_classes: Dimension | None = 1000
    head_bias: float = 0.0

    @model_validator(mode="after")
    def _fits(self) -> "ResNetSettings":
        check_layers(self.num_layers)
        stride = stride_of(self.depths)
        if min(self.image_size) < stride:
            raise ValueError(
                f"an image of {self.image_size} pixels is smaller than the stride of the model; use at least {stride}×{stride}"
            )
        if self.unit.style.pool == "none" and min(self.image_size) < 5:  # of which the first convolution makes 3 cells
            raise ValueError(
                f"an image of {self.image_size} pixels is too small for a pool without padding; use at least 5×5"
            )
        if isinstance(self.unit, AxialAttention) and self.root_width % (2 * self.unit.num_heads):
            half, heads = self.root_width // 2, self.unit.num_heads
            near = [number for number in range(1, half + 1) if half % number == 0]
            best = min(near, key=lambda number: abs(number - heads))
            raise ValueError(f"a root of {self.root_width} channels does not divide into {heads} heads; use {best}")
        return self

    @property
    def family(self) -> str:
        """What people call such a model."""
        return "A ResNet"

    def describe(self) -> str:
        """Return the dimensions in a line, for people."""
        return f"{3 * sum(self.depths) + 2} layers, root width {self.root_width}, image {self.image_size}"

    @property
    def num_layers(self) -> int:
        """How many units lie on each other."""
        return sum(self.depths)

    @property
    def floats_per_image(self) -> int:
        """About how many numbers a training step keeps for each image, for the backward pass."""
        total = floats_per_image(self.depths, self.root_width, self.image_size)
        if isinstance(self.unit, AxialAttention):
            for stage, depth in enumerate(self.depths):
                size = feature_size(self.image_size, self.depths[: stage + 1])
                total += depth * self.unit.extra_floats(size, self.root_width << stage)
        return total

    @property
    def remat_floats_per_image(self) -> int:
        """The same where every unit is computed again."""
        total = remat_floats_per_image(self.depths, self.root_width, self.image_size)
        if isinstance(self.unit, AxialAttention):
            size = feature_size(self.image_size, self.depths[:1])
            total += self.unit.extra_floats(size, self.root_width)
        return total

    @property
    def forward_floats_per_image(self) -> int:
        """About how many numbers inference holds at once for each image: the image, and the largest layer from input to output."""
        total = forward_floats_per_image(self.depths, self.root_width, self.image_size)
        if isinstance(self.unit, AxialAttention):
            total = max(total, self.unit.extra_floats(feature_size(self.image_size, self.depths[:1]), self.root_width))
        return CHANNELS * math.prod(self.image_size) + total


class ResNet(nn.Module):
    """A ResNet: root, stages, mean over positions, head.

    The constructor leaves parameters unwritten; `build` initialises them and `vitlab.load` reads them from a file.
    """

    def __init__(
        self, settings: ResNetSettings, image_spec: ImageSpec | None = None, classes: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        s = settings
        self.settings = s
        self.image_spec = image_spec or ImageSpec(height=s.image_size.height, width=s.image_size.width)
        self.classes = classes
        self.probabilities: Probabilities = "softmax"
        self.root = Root(CHANNELS, s.root_width, s.unit.style, activated=s.unit.activated_root)
        self.stages = stages(s.unit.make, s.depths, s.root_width, s.image_size)
        features = output_channels(s.depths, s.root_width)
        self.norm = None if s.unit.activated_root else norm(features, s.unit.style)
        self.head = nn.Linear(features, s.num_classes) if s.num_classes else nn.Identity()

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Return the logits of `images`, which are in the value range of `image_spec` (features where there is no head).

        Raises:
            ValueError: the positions of axial attention were built for images of another size.
        """
        return self.head(self.features(images))

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b r"]:
        """Return what the head reads: the mean of the last feature map over its positions."""
        return self.feature_map(images).mean(dim=(2, 3))

    def feature_map(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b r p q"]:
        """Return the output of the last stage, after the norm and the ReLU that the pre-activation form has there."""
        size, built = Size(images.shape[2], images.shape[3]), self.settings.image_size
        if isinstance(self.settings.unit, AxialAttention) and feature_size(size, ()) != feature_size(built, ()):
            raise ValueError(
                f"axial attention was built for images of {built} pixels, not {size}; "
                "give the size when it is built or loaded (image_size=...)"
            )
        x = self.root(images)
        for stage in self.stages:
            x = stage(x)
        return x if self.norm is None else functional.relu(self.norm(x))


def resize(name: str, values: Tensor, new: ResNetSettings) -> Tensor | None:
    """Return the parameter `name` for the image size of `new`, None when it does not depend on the size."""
    if not name.endswith(".relative"):
        return None
    _, stage, unit, axis, _ = name.split(".")
    before = int(stage) - (
        1 if unit == "0" and stage != "0" else 0
    )  # a stage halves the size behind its first attention
    size = feature_size(new.image_size, new.depths[: before + 1])
    return resize_relative(values, size.height if axis == "rows" else size.width)
