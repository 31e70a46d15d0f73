import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vitlab.config import parse, to_json
from vitlab.data.preprocess import CentralCrop, ImageSpec, Squash
from vitlab.data.resize import resize
from vitlab.errors import SettingsError

SIDES = st.integers(1, 300)


def picture(rows, columns):
    return np.random.default_rng(0).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


@given(SIDES, SIDES, st.sampled_from([Squash(), CentralCrop()]), st.sampled_from(["bilinear", "bicubic"]))
def test_any_image_fits_the_target(rows, columns, fit, interpolation):
    prepared = ImageSpec(height=16, width=12, fit=fit, interpolation=interpolation).prepare(picture(rows, columns))
    assert prepared.shape == (16, 12, 3)
    assert prepared.dtype == np.uint8


def test_an_image_of_the_target_size_is_not_touched():
    image = picture(16, 12)
    np.testing.assert_array_equal(ImageSpec(height=16, width=12).prepare(image), image)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_squash_is_pillows_resize_of_the_whole_image(interpolation):
    image = picture(50, 70)
    method = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
    expected = np.asarray(Image.fromarray(image).resize((12, 16), method))
    np.testing.assert_array_equal(ImageSpec(height=16, width=12, interpolation=interpolation).prepare(image), expected)


def test_central_crop_cuts_the_middle_where_the_scale_is_one():
    """256 → 224: the target is exactly 7/8 of the image."""
    image = picture(256, 256)
    prepared = ImageSpec(fit=CentralCrop(fraction=0.875)).prepare(image)
    np.testing.assert_array_equal(prepared, image[16:240, 16:240])


@pytest.mark.parametrize(("rows", "columns"), [(100, 160), (160, 100)])
def test_central_crop_keeps_the_aspect_ratio_and_the_middle(rows, columns):
    """A disc in the middle stays a disc in the middle, at the scale of the shorter side."""
    yy, xx = np.mgrid[:rows, :columns]
    disc = (yy - (rows - 1) / 2) ** 2 + (xx - (columns - 1) / 2) ** 2 < 30**2
    image = np.repeat((disc * 255).astype(np.uint8)[:, :, None], 3, axis=2)
    prepared = ImageSpec(height=80, width=80, fit=CentralCrop(fraction=0.8)).prepare(image)[:, :, 0] > 127
    for axis in (0, 1):
        extent = np.flatnonzero(prepared.any(axis=axis))
        assert abs(len(extent) - 60) <= 2
        assert abs((extent[0] + extent[-1]) / 2 - 39.5) <= 1


@pytest.mark.parametrize(("fraction", "side"), [(1.0, 50), (0.8, 40)])
def test_central_crop_is_a_resize_of_the_whole_image_and_then_a_cut(fraction, side):
    image = picture(100, 160)
    prepared = ImageSpec(height=side, width=side, fit=CentralCrop(fraction=fraction)).prepare(image)
    whole, top, left = resize(image, 50, 80, "bilinear"), (50 - side) // 2, (80 - side) // 2
    cut = whole[top : top + side, left : left + side]
    assert np.abs(prepared.astype(int) - cut).max() <= 1


def test_shrinking_averages_and_does_not_skip_pixels():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    prepared = ImageSpec(height=8, width=8).prepare(stripes)
    assert np.abs(prepared.astype(int) - 127).max() < 16


def test_the_default_range_is_minus_one_to_one():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)
    expected = torch.tensor([-1.0, -0.6, 1.0]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(ImageSpec().normalise(pixels), expected)
    assert ImageSpec().normalise(pixels).dtype == torch.float32


def test_every_channel_has_its_own_mean_and_deviation():
    spec = ImageSpec(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    pixels = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    normal = spec.normalise(pixels)
    for channel in range(3):
        expected = (pixels[:, channel].double() / 255 - spec.mean[channel]) / spec.std[channel]
        torch.testing.assert_close(normal[:, channel].double(), expected, rtol=0, atol=1e-5)


def test_settings_survive_json():
    spec = ImageSpec(height=8, width=12, fit=CentralCrop(fraction=0.9), interpolation="bicubic", mean=(0.1, 0.2, 0.3))
    assert parse(ImageSpec, to_json(spec), "here") == spec


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("height", 0),
        ("width", -1),
        ("interpolation", "nearest"),
        ("fit", {"type": "CentralCrop", "fraction": 0}),
        ("fit", {"type": "Pad"}),
        ("mean", [0.5, 0.5]),
        ("std", [0.5, 0.5, "much"]),
        ("std", [0.5, 0.5, 0.0]),
        ("std", [0.5, 0.5, -0.5]),
        ("crop", 0.875),
    ],
)
def test_a_transform_that_cannot_be_is_refused_and_the_field_named(field, value):
    with pytest.raises(SettingsError, match=field):
        parse(ImageSpec, {field: value}, "here")
