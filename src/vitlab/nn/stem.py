"""The hybrid stem: a ResNet whose feature map the ViT reads as its image (section 3.1, "hybrid architecture")."""

from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import Field, NonNegativeInt
from torch import Tensor, nn

from vitlab.config import Settings
from vitlab.nn.bounds import Dimension
from vitlab.nn.grid import Grid, Size, SizeField, grid_of
from vitlab.nn.patches import PatchEmbedding, Patches
from vitlab.nn.resnet import (
    PostActivation,
    Root,
    RootWidth,
    feature_size,
    floats_per_image,
    forward_floats_per_image,
    output_channels,
    remat_floats_per_image,
    stages,
    stride_of,
)


class ResNetStem(Settings):
    """Stem that embeds patches of a ResNet's feature map; the defaults are R50 with the extended stage 3 of R50+B/16.

    `depths` are the units of each stage: (3, 4, 9) ends at a sixteenth of the image, (3, 4, 6, 3) at a thirty-second, () is the
    root alone. `root_width` is the channels of the root. `patch_size` counts cells of the feature map, not pixels. `unit` holds
    the ResNet's constants.
    """

    type: Literal["ResNetStem"] = "ResNetStem"
    depths: Annotated[tuple[Dimension, ...], Field(max_length=5)] = (3, 4, 9)
    root_width: RootWidth = 64
    patch_size: SizeField = Size(1, 1)
    unit: PostActivation = PostActivation()

    @property
    def cell(self) -> Size:
        """How many pixels of the image one token stands for, across and down."""
        stride = stride_of(self.depths)
        return Size(self.patch_size.height * stride, self.patch_size.width * stride)

    def grid(self, image: Size) -> Grid:
        """Return the grid of tokens for an image.

        Raises:
            ValueError: the image is smaller than the stride of the ResNet, or its feature map than a patch.
        """
        stride = stride_of(self.depths)
        if min(image) < stride:
            raise ValueError(
                f"an image of {image} pixels is smaller than the stride of the stem; use at least {stride}×{stride}"
            )
        least = Size(*(stride * (cells - 1) + 1 for cells in self.patch_size))  # the feature map rounds up
        if image.height < least.height or image.width < least.width:
            raise ValueError(f"an image of {image} pixels is smaller than one patch; use at least {least}")
        return grid_of(feature_size(image, self.depths), self.patch_size)

    def remainder(self, image: Size) -> tuple[NonNegativeInt, NonNegativeInt]:
        """Return how many pixel rows and columns at the bottom and right no token covers."""
        grid = self.grid(image)
        rows, columns = grid.rows * self.cell.height, grid.columns * self.cell.width
        return max(image.height - rows, 0), max(image.width - columns, 0)

    def floats_per_image(self, image: Size) -> int:
        """Return about how many numbers the stem keeps for the backward pass, its tokens left out."""
        return floats_per_image(self.depths, self.root_width, image)

    def remat_floats_per_image(self, image: Size) -> int:
        """Return the same where every unit is computed again."""
        return remat_floats_per_image(self.depths, self.root_width, image)

    def forward_floats_per_image(self, image: Size) -> int:
        """Return about how many numbers inference holds at once in the stem."""
        return forward_floats_per_image(self.depths, self.root_width, image)

    def build(self, channels: int, width: int, image: Size) -> "ResNetEmbedding":
        """Return the stem's network."""
        return ResNetEmbedding(self, channels, width, image)


class ResNetEmbedding(nn.Module):
    """ResNet v1.5 without a head, then the linear embedding of patches of its output."""

    def __init__(self, settings: ResNetStem, channels: int, width: int, image: Size) -> None:
        super().__init__()
        self.settings = settings
        self.root = Root(channels, settings.root_width, settings.unit.style, activated=True)
        self.stages = stages(settings.unit.make, settings.depths, settings.root_width, image)
        features = output_channels(settings.depths, settings.root_width)
        self.embedding = PatchEmbedding(Patches(patch_size=settings.patch_size), features, width)

    @property
    def projection(self) -> nn.Linear:
        """The linear layer from a patch of features to a token."""
        return self.embedding.projection

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Return one embedding a patch of the feature map, in raster order."""
        features = self.root(images)
        for stage in self.stages:
            features = stage(features)
        return self.embedding(features)


Stem = Patches | ResNetStem
