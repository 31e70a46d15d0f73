import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from vitlab.models.classifier import empty
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import ViTSettings
from vitlab.nn.axial_resnet import AXIAL
from vitlab.nn.grid import Size
from vitlab.nn.resnet import (
    BIT,
    HYBRID,
    PostActivation,
    PreActivation,
    Root,
    StdConv,
    feature_size,
    norm,
    output_channels,
    pad_same,
    same_padding,
    stride_of,
)
from vitlab.nn.stem import ResNetStem

SIDES = st.integers(1, 300)


@pytest.mark.parametrize("style", [HYBRID, BIT])
def test_a_standardised_kernel_has_mean_zero_and_deviation_one(style):
    torch.manual_seed(0)
    conv = StdConv(6, 5, 3, 1, style)
    torch.nn.init.normal_(conv.weight, mean=0.7, std=3.0)
    kernels = conv.standardised().flatten(1)
    torch.testing.assert_close(kernels.mean(dim=1), torch.zeros(5), rtol=0, atol=1e-6)
    torch.testing.assert_close(kernels.std(dim=1, correction=0), torch.ones(5), rtol=0, atol=1e-5)


def test_each_style_keeps_a_constant_kernel_from_dividing_by_zero_in_its_way():
    small = torch.tensor([-1.0, 1.0]).reshape(1, 2, 1, 1) * 1e-5
    for style, size in ((HYBRID, 1e-5 / (1e-5 + 1e-5)), (BIT, 1e-5 / math.sqrt(1e-10 + 1e-10))):
        conv = StdConv(2, 1, 1, 1, style)
        conv.weight = torch.nn.Parameter(small)
        torch.testing.assert_close(conv.standardised().abs(), torch.full((1, 2, 1, 1), size))
        conv.weight = torch.nn.Parameter(torch.full_like(small, 3.0))
        assert torch.equal(conv.standardised(), torch.zeros_like(small))


@pytest.mark.parametrize(("style", "eps"), [(HYBRID, 1e-6), (BIT, 1e-5), (AXIAL, 1e-4)])
def test_a_norm_has_thirty_two_groups_and_the_epsilon_of_its_style(style, eps):
    """Behind standardised convolutions values are so large that no epsilon shows: none of the golden cases tells them apart."""
    small = 1e-3 * torch.randn(2, 64, 3, 5, generator=torch.Generator().manual_seed(0))
    groups = small.reshape(2, 32, -1)
    centred = groups - groups.mean(dim=2, keepdim=True)
    expected = centred / (centred.square().mean(dim=2, keepdim=True) + eps).sqrt()
    torch.testing.assert_close(norm(64, style)(small), expected.reshape(small.shape), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_neither_scale_nor_offset_of_a_kernel_matters(scale):
    torch.manual_seed(0)
    conv, images = StdConv(3, 4, 3, 2, BIT), torch.randn(1, 3, 9, 9)
    torch.nn.init.normal_(conv.weight)
    plain = conv(images)
    with torch.no_grad():
        conv.weight.mul_(scale).add_(0.5 * scale)
    torch.testing.assert_close(conv(images), plain, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (224, 7, 2, (2, 3)),
        (112, 3, 2, (0, 1)),
        (224, 3, 1, (1, 1)),
        (75, 7, 2, (3, 3)),
        (37, 3, 2, (1, 1)),
        (56, 1, 2, (0, 0)),
        (1, 2, 2, (0, 1)),
    ],
)
def test_the_padding_is_that_of_tensorflow(size, kernel, stride, expected):
    assert same_padding(size, kernel, stride) == expected


@given(SIDES, st.integers(1, 7), st.integers(1, 3))
def test_padding_makes_as_many_outputs_as_strides_fit_and_is_odd_only_after(size, kernel, stride):
    before, after = same_padding(size, kernel, stride)
    assert after - before in (0, 1)
    windows = (size + before + after - kernel) // stride + 1
    # where the kernel is smaller than the stride, what is left over needs no padding
    assert windows == math.ceil(size / stride)


def test_an_image_is_padded_with_what_is_asked_for():
    padded = pad_same(torch.ones(1, 1, 4, 5), 3, 2, -math.inf)
    assert padded.shape == (1, 1, 5, 7)
    assert torch.equal(padded[0, 0, :4, 1:6], torch.ones(4, 5))
    assert bool((padded[0, 0, 4] == -math.inf).all() and (padded[0, 0, :, 0] == -math.inf).all())


@pytest.mark.parametrize("side", [16, 17])
def test_the_pool_of_the_pre_activation_root_sees_zeros_outside_the_image(side):
    torch.manual_seed(0)
    root = Root(3, 32, BIT, activated=False)
    torch.nn.init.normal_(root.conv.weight)
    images = torch.randn(2, 3, 2 * side - 1, 2 * side - 1)
    ignoring = functional.max_pool2d(root.conv(images), 3, 2, padding=1)
    touched = torch.zeros_like(ignoring, dtype=torch.bool)
    touched[:, :, 0] = touched[:, :, :, 0] = True
    if side % 2:
        touched[:, :, -1] = touched[:, :, :, -1] = True
    expected = torch.where(touched, ignoring.clamp(min=0), ignoring)
    assert not torch.equal(expected, ignoring)
    torch.testing.assert_close(root(images), expected)


def test_the_pool_of_the_root_can_ignore_what_is_outside_or_have_no_padding():
    images = torch.randn(2, 3, 31, 33)
    for padding, size, around in (("ignored", Size(8, 9), 1), ("same", Size(7, 8), 0)):
        root = Root(3, 32, PreActivation(padding=padding).style, activated=False)
        torch.nn.init.normal_(root.conv.weight)
        assert root(images).shape[2:] == size
        assert torch.equal(root(images), functional.max_pool2d(root.conv(images), 3, 2, padding=around))


def test_units_and_stems_take_the_constants_that_are_set():
    unit = PostActivation(variance_eps=1e-8, std_eps=0.0, norm_eps=1e-5)
    stem = empty(ViTSettings(stem=ResNetStem(depths=(1, 1), unit=unit)))
    resnets = [empty(ResNetSettings(depths=(1, 1), unit=each)) for each in (unit, PreActivation(variance_eps=1e-8))]
    for model in (stem, *resnets):
        convolutions = [module for module in model.modules() if isinstance(module, StdConv)]
        assert len(convolutions) == 1 + 2 * 4
        assert {(conv.style.variance_eps, conv.style.std_eps) for conv in convolutions} == {(1e-8, 0.0)}
        assert {module.eps for module in model.modules() if isinstance(module, torch.nn.GroupNorm)} == {1e-5}


def test_the_post_activation_root_has_a_norm_and_a_relu_before_its_pool():
    torch.manual_seed(0)
    root = Root(3, 32, HYBRID, activated=True)
    torch.nn.init.normal_(root.conv.weight)
    images = torch.randn(2, 3, 31, 31)
    activated = functional.relu(root.norm(root.conv(images)))
    torch.testing.assert_close(root(images), functional.max_pool2d(pad_same(activated, 3, 2), 3, 2))
    assert Root(3, 32, BIT, activated=False).norm is None


def on_meta(unit, image, depths):
    settings = ResNetSettings(image_size=image, depths=depths, root_width=32, unit=unit, num_classes=None)
    images = torch.zeros(1, 3, *image, device="meta")
    return empty(settings).feature_map(images).shape


@settings(max_examples=25)
@given(
    st.sampled_from([PreActivation(), PostActivation()]),
    st.builds(Size, st.integers(16, 90), st.integers(16, 90)),
    st.lists(st.integers(1, 2), min_size=1, max_size=3).map(tuple),
)
def test_the_feature_map_has_the_size_that_is_promised(unit, image, depths):
    size = feature_size(image, depths)
    assert on_meta(unit, image, depths) == (1, output_channels(depths, 32), size.height, size.width)


@pytest.mark.parametrize(
    ("depths", "stride", "channels"), [((), 4, 64), ((3,), 4, 256), ((3, 4, 9), 16, 1024), ((3, 4, 6, 3), 32, 2048)]
)
def test_every_stage_but_the_first_halves_the_size_and_doubles_the_channels(depths, stride, channels):
    assert stride_of(depths) == stride
    assert output_channels(depths, 64) == channels
    assert feature_size(Size(224, 225), depths) == Size(math.ceil(224 / stride), math.ceil(225 / stride))
