"""How an image divides into patches."""

from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator

from vitlab.nn.bounds import Side


class Size(NamedTuple):
    """Height and width of an image or a patch, in pixels."""

    height: Side
    width: Side

    def __str__(self) -> str:
        return f"{self.height}×{self.width}"


class Grid(NamedTuple):
    """Rows and columns of patches."""

    rows: int
    columns: int

    @property
    def cells(self) -> int:
        """The number of patches, n."""
        return self.rows * self.columns

    def __str__(self) -> str:
        return f"{self.rows}×{self.columns}"


def as_size(value: int | tuple[int, int] | Size) -> Size:
    """Return `value` as a size; a single number is the side of a square."""
    return Size(value, value) if isinstance(value, int) else Size(*value)


def _square(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else value


SizeField = Annotated[Size, BeforeValidator(_square)]
"""A size in settings: [height, width], or one number for a square."""


def grid_of(image: Size, patch: Size) -> Grid:
    """Return the grid of whole patches in `image`; what is left at the right and bottom is not covered.

    The paper's patch embedding is a convolution without padding, which drops that remainder: H/14 at 384 px has 27×27 patches.

    Raises:
        ValueError: the image is smaller than one patch.
    """
    grid = Grid(image.height // patch.height, image.width // patch.width)
    if grid.cells == 0:
        raise ValueError(f"an image of {image} pixels is smaller than one patch; use at least {patch}")
    return grid
