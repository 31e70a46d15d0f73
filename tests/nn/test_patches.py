import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from vitlab.nn.grid import Grid, Size, grid_of
from vitlab.nn.patches import PatchEmbedding, Patches, to_images, to_patches


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))
def test_patches_go_back_to_the_images_they_came_from(batch, channels, rows, columns, tall, wide):
    images = torch.arange(batch * channels * rows * tall * columns * wide).float()
    images = images.reshape(batch, channels, rows * tall, columns * wide)
    patches = to_patches(images, Size(tall, wide))
    assert patches.shape == (batch, rows * columns, channels * tall * wide)
    assert torch.equal(to_images(patches, Grid(rows, columns), Size(tall, wide)), images)


def test_patches_are_in_raster_order_and_flattened_as_channel_row_column():
    images = torch.arange(2 * 4 * 6).float().reshape(1, 2, 4, 6)
    patches = to_patches(images, Size(2, 3))
    assert torch.equal(patches[0, 1], images[0, :, 0:2, 3:6].flatten())
    assert torch.equal(patches[0, 2], images[0, :, 2:4, 0:3].flatten())


def test_the_remainder_at_the_right_and_bottom_is_dropped():
    images = torch.randn(2, 3, 7, 9)
    assert torch.equal(to_patches(images, Size(2, 4)), to_patches(images[:, :, :6, :8], Size(2, 4)))


@pytest.mark.parametrize("size", [(8, 8), (9, 14)])
def test_the_embedding_is_a_convolution_without_padding(size):
    torch.manual_seed(0)
    kind = Patches(patch_size=Size(4, 4))
    stem = PatchEmbedding(kind, 3, 5)
    images = torch.randn(2, 3, *size)
    kernel = stem.projection.weight.reshape(5, 3, 4, 4)
    expected = functional.conv2d(images, kernel, stem.projection.bias, stride=4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(stem(images), expected)
    assert kind.grid(Size(*size)) == grid_of(Size(*size), Size(4, 4))


def test_a_patch_size_in_settings_is_a_number_or_a_pair():
    assert Patches.model_validate({"patch_size": 14}).patch_size == Size(14, 14)
    assert Patches.model_validate({"patch_size": [2, 8]}).patch_size == Size(2, 8)


@pytest.mark.parametrize("size", [0, -1, [16, 0], [16], "wide", 1.5])
def test_a_patch_size_that_is_none_is_refused(size):
    with pytest.raises(ValueError, match="patch_size"):
        Patches.model_validate({"patch_size": size})
