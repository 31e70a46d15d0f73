import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitlab.nn.grid import Grid, Size, as_size, grid_of
from vitlab.nn.patches import Patches

SIDES = st.integers(1, 2000)


def test_one_number_is_the_side_of_a_square():
    assert as_size(224) == Size(224, 224)
    assert as_size((160, 224)) == Size(160, 224)
    assert as_size(Size(3, 4)) == Size(3, 4)


@pytest.mark.parametrize(
    ("image", "patch", "grid"),
    [
        (Size(224, 224), Size(16, 16), Grid(14, 14)),
        (Size(384, 384), Size(14, 14), Grid(27, 27)),
        (Size(70, 50), Size(16, 16), Grid(4, 3)),
        (Size(16, 16), Size(16, 16), Grid(1, 1)),
        (Size(12, 20), Size(2, 5), Grid(6, 4)),
    ],
)
def test_only_whole_patches_count(image, patch, grid):
    assert grid_of(image, patch) == grid
    assert grid.cells == grid.rows * grid.columns


@pytest.mark.parametrize("image", [Size(15, 224), Size(224, 15), Size(15, 15)])
def test_an_image_smaller_than_a_patch_is_refused_with_both_sizes(image):
    with pytest.raises(ValueError, match=f"{image.height}×{image.width}.*smaller than one patch; use at least 16×16"):
        grid_of(image, Size(16, 16))


@given(SIDES, SIDES, st.integers(1, 64), st.integers(1, 64))
def test_patches_and_remainder_make_up_the_image(height, width, tall, wide):
    image, patch = Size(height + tall, width + wide), Size(tall, wide)
    kind = Patches(patch_size=patch)
    grid, (rows, columns) = kind.grid(image), kind.remainder(image)
    assert grid.rows * tall + rows == image.height
    assert grid.columns * wide + columns == image.width
    assert 0 <= rows < tall
    assert 0 <= columns < wide


def test_sizes_and_grids_are_shown_as_people_write_them():
    assert str(Size(160, 224)) == "160×224"
    assert str(Grid(10, 14)) == "10×14"
