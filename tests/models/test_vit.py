import logging

import pytest
import torch
from pydantic import ValidationError

from vitlab.config import parse, to_json
from vitlab.errors import SettingsError
from vitlab.models.classifier import build, empty
from vitlab.models.vit import ViTSettings
from vitlab.nn.grid import Grid, Size
from vitlab.nn.patches import Patches
from vitlab.nn.pooling import Mean
from vitlab.nn.position import Learned1D, SinCos2D


@pytest.fixture
def images():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_the_forward_pass_is_its_four_stages_in_a_line(make_model, images):
    for changes in ({}, {"pool": Mean()}, {"representation_dim": 5}):
        model = make_model(**changes)
        tokens = model.embed(images)
        logits = model.head(model.pool(model.encode(tokens)))
        torch.testing.assert_close(model(images), logits)
        torch.testing.assert_close(model.head(model.features(images)), logits)


def test_the_class_token_stands_first_and_has_a_position_of_its_own(make_model, images):
    model = make_model()
    tokens = model.embed(images)
    assert tokens.shape == (2, 5, 16)
    torch.testing.assert_close(tokens[:, :1], (model.class_token + model.position.table[:, :1]).expand(2, 1, 16))
    torch.testing.assert_close(tokens[:, 1:], model.stem(images) + model.position.table[:, 1:])


def test_mean_pooling_has_no_class_token(make_model, images):
    model = make_model(pool=Mean())
    assert model.class_token is None
    assert model.embed(images).shape == (2, 4, 16)
    torch.testing.assert_close(model.features(images), model.encode(model.embed(images)).mean(dim=1))


def test_a_class_token_without_a_position_of_its_own_gets_nothing_added(make_model, images):
    model = make_model(position=Learned1D(class_token=False), registers=2)
    tokens = model.embed(images)
    assert model.position.table.shape == (1, 4, 16)
    torch.testing.assert_close(tokens[:, :3], torch.cat([model.class_token, model.registers], 1).expand(2, 3, 16))
    torch.testing.assert_close(tokens[:, 3:], model.stem(images) + model.position.table)


def test_the_mean_can_leave_out_a_class_token(make_model, images):
    model = make_model(pool=Mean(class_token=True), registers=2)
    encoded = model.encode(model.embed(images))
    assert model.class_token is not None and encoded.shape == (2, 1 + 2 + 4, 16)
    torch.testing.assert_close(model.features(images), encoded[:, 3:].mean(dim=1))


def test_where_the_mean_is_normed_the_tokens_are_not(make_model, images):
    model = make_model(pool=Mean(norm="mean"))
    through = model.embed(images)
    for block in model.encoder.layers:
        through = block(through)
    assert torch.equal(model.encode(model.embed(images)), through)
    torch.testing.assert_close(model.features(images), model.pooling.norm(through.mean(dim=1)))


def test_the_representation_layer_is_a_tanh_before_the_head(make_model, images):
    model = make_model(representation_dim=5)
    features = model.features(images)
    pooled = model.encode(model.embed(images))[:, 0]
    torch.testing.assert_close(features, torch.tanh(model.representation(pooled)))
    assert model.head.in_features == 5


def test_without_a_head_the_model_returns_features(make_model, images):
    model = make_model(num_classes=None)
    assert torch.equal(model(images), model.features(images))
    assert model(images).shape == (2, 16)


def test_an_image_gives_the_same_logits_alone_and_in_a_batch(make_model, images):
    model = make_model()
    torch.testing.assert_close(model(images)[1:], model(images[1:]))


def test_images_of_another_grid_are_refused_with_what_to_do(make_model):
    with pytest.raises(ValueError, match=r"12×8 pixels have 3×2 patches.*built for 2×2.*image_size="):
        make_model()(torch.zeros(1, 3, 12, 8))


def test_pixels_that_fill_no_patch_are_not_seen_and_said_to_be(make_model, make_settings, caplog):
    model = make_model(image_size=Size(10, 9))
    seen = torch.randn(1, 3, 10, 9)
    changed = seen.clone()
    changed[:, :, 8:] += 1
    changed[:, :, :, 8:] += 1
    assert torch.equal(model(changed), model(seen))
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="vitlab"):
        build(make_settings())
        assert caplog.text == ""
        build(make_settings(image_size=Size(10, 9)))
    assert "2 rows at the bottom and 1 columns at the right" in caplog.text


def test_dropout_acts_in_training_only(make_model, images):
    model = make_model(dropout=0.5)
    plain = make_model()
    torch.testing.assert_close(model.eval()(images), plain(images))
    model.train()
    assert not torch.equal(model(images), model(images))


def test_dropout_stands_after_positions_attention_and_both_mlp_layers(make_model, images):
    """Appendix B.1: after every dense layer except query, key and value, and after adding positions."""
    model, shapes = make_model(depth=1, pool=Mean(), dropout=0.5), []
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.register_forward_hook(lambda _, inputs, __: shapes.append(tuple(inputs[0].shape)))
    model(images)
    assert shapes == [(2, 4, 16), (2, 4, 16), (2, 4, 32), (2, 4, 16)]


def test_a_model_carries_the_transform_for_its_size(make_settings):
    spec = build(make_settings(image_size=Size(8, 12))).image_spec
    assert (spec.height, spec.width) == (8, 12)


def test_an_empty_model_has_the_shapes_of_a_built_one_without_memory(make_settings):
    settings = make_settings()
    shapes = {name: parameter.shape for name, parameter in empty(settings).named_parameters()}
    assert shapes == {name: parameter.shape for name, parameter in build(settings).named_parameters()}
    assert all(parameter.is_meta for parameter in empty(settings).parameters())


def test_settings_survive_json(make_settings):
    settings = make_settings(pool=Mean(), representation_dim=5, image_size=Size(8, 12), num_classes=None)
    assert parse(ViTSettings, to_json(settings), "here") == settings
    assert settings.grid == Grid(2, 3)


def test_the_default_is_the_base_model_of_the_paper():
    settings = ViTSettings()
    assert (settings.width, settings.depth, settings.num_heads, settings.mlp_dim) == (768, 12, 12, 3072)
    assert settings.grid == Grid(14, 14)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("width", 0, "width"),
        ("depth", 0, "depth"),
        ("depth", 2.5, "depth"),
        ("num_heads", 5, "does not divide into 5 heads"),
        ("dropout", 1.0, "dropout"),
        ("dropout", -0.1, "dropout"),
        ("norm_eps", 0, "norm_eps"),
        ("norm_eps", float("inf"), "norm_eps"),
        ("num_classes", 0, "num_classes"),
        ("activation", "relu", "activation"),
        ("image_size", [8, 0], "image_size"),
        ("image_size", 3, "smaller than one patch"),
        ("pool", {"type": "Max"}, "pool"),
        ("hidden_size", 8, "hidden_size"),
    ],
)
def test_settings_that_cannot_be_are_refused_and_named(make_settings, field, value, message):
    data = to_json(make_settings()) | {field: value}
    with pytest.raises(SettingsError, match=message) as error:
        parse(ViTSettings, data, "config.json")
    assert "config.json" in str(error.value)


def test_settings_do_not_change(make_settings):
    with pytest.raises(ValidationError, match="frozen"):
        make_settings().width = 32


def test_patches_need_not_be_square(make_model):
    model = make_model(stem=Patches(patch_size=Size(2, 4)))
    assert model.settings.grid == Grid(4, 2)
    assert model(torch.randn(1, 3, 8, 8)).shape == (1, 3)


def test_more_tokens_than_a_model_can_hold_are_refused_before_they_are_laid_out(make_settings):
    with pytest.raises(ValueError, match="156,250,001 tokens of width 16 are more than a model can hold"):
        make_settings(image_size=Size(50_000, 50_000), position=SinCos2D())
    with pytest.raises(ValueError, match="use fewer registers"):
        make_settings(registers=10**7)


def test_weights_that_no_memory_holds_are_refused_in_words(make_settings):
    with pytest.raises(SettingsError, match=r"needs \d{3},\d{3} GB of memory; choose a smaller one"):
        build(make_settings(width=1 << 20, mlp_dim=1 << 24))
