import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vitlab.config import parse, to_json
from vitlab.errors import SettingsError
from vitlab.models.classifier import build
from vitlab.models.vit import ViTSettings
from vitlab.nn.grid import Grid, Size
from vitlab.nn.patches import Patches
from vitlab.nn.stem import ResNetStem

IMAGES = st.builds(Size, st.integers(8, 120), st.integers(8, 120))
STEMS = st.builds(
    ResNetStem,
    depths=st.lists(st.integers(1, 2), max_size=2).map(tuple),
    root_width=st.just(32),
    patch_size=st.builds(Size, st.integers(1, 3), st.integers(1, 3)),
)


def smallest_for(stem):
    return Size(4 * 2 * stem.patch_size.height, 4 * 2 * stem.patch_size.width)


@settings(max_examples=25)
@given(STEMS, IMAGES)
def test_the_grid_has_as_many_tokens_as_the_stem_gives(stem, image):
    image = Size(*map(max, image, smallest_for(stem)))
    with torch.device("meta"):
        tokens = stem.build(3, 16, image)(torch.zeros(2, 3, *image))
    assert tokens.shape == (2, stem.grid(image).cells, 16)


@given(STEMS, IMAGES)
def test_the_remainder_is_what_the_cells_of_the_grid_leave(stem, image):
    image = Size(*map(max, image, smallest_for(stem)))
    grid, remainder = stem.grid(image), stem.remainder(image)
    rows, columns = image.height - grid.rows * stem.cell.height, image.width - grid.columns * stem.cell.width
    assert remainder == (max(rows, 0), max(columns, 0))


@pytest.mark.parametrize(
    ("stem", "cell"),
    [
        (ResNetStem(), Size(16, 16)),
        (ResNetStem(depths=(3, 4, 6, 3)), Size(32, 32)),
        (ResNetStem(depths=(), patch_size=Size(8, 8)), Size(32, 32)),
        (ResNetStem(depths=(1, 1), patch_size=Size(1, 2)), Size(8, 16)),
    ],
)
def test_a_token_stands_for_a_patch_of_features(stem, cell):
    assert stem.cell == cell
    assert stem.grid(Size(224, 224)) == Grid(224 // cell.height, 224 // cell.width)
    assert stem.remainder(Size(224, 224)) == (0, 0)


def test_pixels_beyond_the_last_patch_of_features_are_said_to_be_unseen(make_settings, caplog):
    stem = ResNetStem(depths=(), root_width=32, patch_size=Size(8, 8))
    with caplog.at_level(logging.WARNING, logger="vitlab"):
        build(make_settings(stem=stem, image_size=Size(97, 64)))
    assert "1 rows at the bottom and 0 columns at the right" in caplog.text


@pytest.mark.parametrize(
    ("stem", "image", "message"),
    [
        (
            ResNetStem(depths=(1, 1, 1)),
            [15, 40],
            "image of 15×40 pixels is smaller than the stride of the stem; use at least 16×16",
        ),
        (ResNetStem(depths=(), patch_size=Size(8, 8)), [28, 40], "image of 28×40 .*use at least 29×29"),
    ],
)
def test_an_image_too_small_is_refused_with_both_numbers(make_settings, stem, image, message):
    data = to_json(make_settings()) | {"stem": to_json(stem), "image_size": image}
    with pytest.raises(SettingsError, match=message):
        parse(ViTSettings, data, "config.json")


@pytest.mark.parametrize(("width", "nearest"), [(16, 32), (40, 32), (50, 64), (100, 96)])
def test_a_root_without_thirty_two_groups_is_refused_with_the_nearest_that_has(width, nearest):
    with pytest.raises(SettingsError, match=f"a root of {width} channels has no 32 groups; use {nearest}"):
        parse(ResNetStem, {"root_width": width}, "config.json")


def test_a_hybrid_reads_the_features_of_its_resnet(make_model):
    stem = ResNetStem(depths=(1, 1), root_width=32, patch_size=Size(2, 1))
    model, images = make_model(stem=stem, image_size=Size(32, 24)), torch.randn(2, 3, 32, 24)
    features = model.stem.root(images)
    for stage in model.stem.stages:
        features = stage(features)
    assert features.shape == (2, 256, 4, 3)
    torch.testing.assert_close(model.stem(images), model.stem.embedding(features))
    assert model.stem.projection is model.stem.embedding.projection
    assert model.settings.grid == Grid(2, 3)


def test_the_last_norm_of_every_unit_of_a_fresh_stem_is_zero(make_settings):
    stem = ResNetStem(depths=(1, 2), root_width=32)
    model = build(make_settings(stem=stem, image_size=Size(32, 32)))
    norms = {name: norm for name, norm in model.stem.named_modules() if isinstance(norm, nn.GroupNorm)}
    assert sum(name.endswith("norm3") for name in norms) == 3
    for name, norm in norms.items():
        assert bool((norm.weight == (0 if name.endswith("norm3") else 1)).all()), name


def test_a_stem_counts_its_floats_without_its_tokens(make_settings):
    made = make_settings(stem=ResNetStem(depths=(1,), root_width=32), image_size=Size(32, 32))
    tokens = made.model_copy(update={"stem": Patches(patch_size=Size(4, 4))})
    images = 3 * 32 * 32
    assert made.grid == tokens.grid
    assert made.floats_per_image - made.stem.floats_per_image(Size(32, 32)) == tokens.floats_per_image - images
