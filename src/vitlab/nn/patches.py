"""Images ↔ patches, and the linear embedding of patches (equation 1)."""

from typing import Literal

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from vitlab.config import Settings
from vitlab.nn.grid import Grid, Size, SizeField, grid_of


class Patches(Settings):
    """Stem that cuts the image into patches and embeds each by one linear layer."""

    type: Literal["Patches"] = "Patches"
    patch_size: SizeField = Size(16, 16)

    @property
    def cell(self) -> Size:
        """How many pixels of the image one token stands for, across and down."""
        return self.patch_size

    def grid(self, image: Size) -> Grid:
        """Return the grid of tokens for an image.

        Raises:
            ValueError: the image is smaller than one patch.
        """
        return grid_of(image, self.patch_size)

    def remainder(self, image: Size) -> tuple[int, int]:
        """Return how many pixel rows at the bottom and columns at the right no patch covers."""
        return image.height % self.patch_size.height, image.width % self.patch_size.width

    def floats_per_image(self, image: Size) -> int:
        """Return about how many numbers the stem keeps for the backward pass, its tokens left out."""
        return 3 * image.height * image.width

    def remat_floats_per_image(self, image: Size) -> int:
        """Return the same where every layer is computed again, of which there is none here."""
        return self.floats_per_image(image)

    def forward_floats_per_image(self, image: Size) -> int:
        """Return about how many numbers inference holds at once in the stem, its tokens left out."""
        return self.floats_per_image(image)

    def build(self, channels: int, width: int, _image: Size) -> "PatchEmbedding":
        """Return the stem's network."""
        return PatchEmbedding(self, channels, width)


def to_patches(images: Shaped[Tensor, "b c h w"], patch: Size) -> Shaped[Tensor, "b n p"]:
    """Cut `images` into whole patches in raster order; each is flattened as (channel, row, column), p = c · height · width."""
    b, c, h, w = images.shape
    grid = grid_of(Size(h, w), patch)
    images = images[:, :, : grid.rows * patch.height, : grid.columns * patch.width]
    cells = images.reshape(b, c, grid.rows, patch.height, grid.columns, patch.width)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(b, grid.cells, c * patch.height * patch.width)


def to_images(patches: Float[Tensor, "b n p"], grid: Grid, patch: Size) -> Float[Tensor, "b c h w"]:
    """Put patches back into images, the inverse of `to_patches` on the pixels that patches cover."""
    b, c = patches.shape[0], patches.shape[2] // (patch.height * patch.width)
    cells = patches.reshape(b, grid.rows, grid.columns, c, patch.height, patch.width)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(b, c, grid.rows * patch.height, grid.columns * patch.width)


class PatchEmbedding(nn.Module):
    """Linear projection of flattened patches: the paper's convolution with stride = kernel = patch, as one matrix product.

    `projection.weight` is [d, c · height · width] with the patch flattened as (channel, row, column).
    """

    def __init__(self, settings: Patches, channels: int, width: int) -> None:
        super().__init__()
        self.patch_size = settings.patch_size
        self.projection = nn.Linear(channels * settings.patch_size.height * settings.patch_size.width, width)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Return one embedding a patch, in raster order."""
        return self.projection(to_patches(images, self.patch_size))
