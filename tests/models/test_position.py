"""Positions and axial attention as parts of a whole ViT (appendices D.4 and D.6)."""

import pytest
import torch
from torch.nn import functional

import vitlab
from vitlab.config import parse, to_json
from vitlab.errors import SettingsError
from vitlab.models.classifier import empty
from vitlab.models.vit import Axial, ViTSettings
from vitlab.nn.grid import Grid, Size
from vitlab.nn.pooling import AttentionPool, Mean
from vitlab.nn.position import Learned1D, Learned2D, NoPosition, Relative, SinCos2D, resize_table
from vitlab.nn.relative import resize_offsets
from vitlab.weights.load import load_with_report
from vitlab.weights.save import save

DEPTH, TOKENS, WIDTH, HEAD_DIM = 2, 5, 16, 8
LEARNED = [Learned1D, Learned2D]
EVERY = [kind(place=place) for kind in LEARNED for place in ("stem", "layers", "shared")]
EVERY += [Relative(), SinCos2D(), NoPosition()]
each_kind = pytest.mark.parametrize("kind", EVERY, ids=lambda kind: f"{kind.type}-{kind.place}")


@pytest.fixture
def images():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def count(settings):
    return sum(parameter.numel() for parameter in empty(settings).parameters())


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        (Learned1D(), TOKENS * WIDTH),
        (Learned1D(place="layers"), DEPTH * TOKENS * WIDTH),
        (Learned1D(place="shared"), TOKENS * WIDTH),
        (Learned2D(), WIDTH + (2 + 2) * WIDTH // 2),
        (Learned2D(place="layers"), DEPTH * (WIDTH + (2 + 2) * WIDTH // 2)),
        (Learned2D(place="shared"), WIDTH + (2 + 2) * WIDTH // 2),
        (Relative(), DEPTH * (2 * TOKENS - 1) * HEAD_DIM),
        (SinCos2D(), 0),
    ],
    ids=lambda value: f"{value.type}-{value.place}" if hasattr(value, "type") else "",
)
def test_a_kind_of_position_has_these_parameters_more_than_none(make_settings, kind, parameters):
    assert count(make_settings(position=kind)) == count(make_settings(position=NoPosition())) + parameters


@pytest.mark.parametrize("kind", LEARNED)
def test_every_layer_adds_a_table_of_its_own(make_model, images, kind):
    model = make_model(position=kind(place="layers"))
    tables = [block.position.rows_of() for block in model.encoder.layers]
    assert model.position is None
    assert not torch.equal(tables[0], tables[1])
    assert torch.equal(model.embed(images)[:, 1:], model.stem(images))
    torch.testing.assert_close(model(images), by_hand(model, images, tables))


@pytest.mark.parametrize("kind", LEARNED)
def test_the_shared_table_is_added_in_every_layer(make_model, images, kind):
    model = make_model(position=kind(place="shared"))
    assert all(block.position is model.position for block in model.encoder.layers)
    assert torch.equal(model.embed(images)[:, 1:], model.stem(images))
    torch.testing.assert_close(model(images), by_hand(model, images, [model.position.rows_of()] * DEPTH))


def by_hand(model, images, tables):
    """Add each layer's positions before the block, which adds none."""
    tokens = torch.cat([model.class_token.expand(2, -1, -1), model.stem(images)], dim=1)
    for block, table in zip(model.encoder.layers, tables, strict=True):
        tokens = tokens + table
        attended = tokens + block.attention(block.norm1(tokens))
        tokens = attended + block.mlp(block.norm2(attended))
    return model.head(model.encoder.norm(tokens)[:, 0])


@each_kind
def test_gradients_reach_every_parameter(make_model, images, kind):
    model = make_model(position=kind)
    functional.cross_entropy(model(images), torch.tensor([0, 2])).backward()
    assert all(bool((parameter.grad != 0).any()) for parameter in model.parameters())


def test_without_positions_the_patches_are_a_bag(make_model, images):
    shuffled = torch.cat([images[:, :, 4:], images[:, :, :4]], dim=2)
    plain = make_model(position=NoPosition())
    torch.testing.assert_close(plain(shuffled), plain(images))
    for kind in EVERY[:-1]:
        model = make_model(position=kind)
        assert not torch.allclose(model(shuffled), model(images), atol=1e-4), kind


@each_kind
def test_the_forward_pass_is_its_four_stages_in_a_line(make_model, images, kind):
    for changes in ({}, {"registers": 3}, {"pool": Mean(), "registers": 1}, {"pool": AttentionPool()}):
        model = make_model(position=kind, **changes)
        expected = model.head(model.pool(model.encode(model.embed(images))))
        torch.testing.assert_close(model(images), expected)


@each_kind
def test_a_model_comes_back_from_its_file(make_model, images, tmp_path, kind):
    model = make_model(position=kind, registers=2)
    save(model, tmp_path / "model.safetensors")
    assert torch.equal(vitlab.load(tmp_path / "model.safetensors").eval()(images), model(images))


@each_kind
def test_another_image_size_resizes_positions_and_nothing_else(make_model, tmp_path, kind):
    model, path = make_model(position=kind), tmp_path / "model.safetensors"
    save(model, path)
    loaded, old, new = load_with_report(path, image_size=(12, 8)), Grid(2, 2), Grid(3, 2)
    for name, parameter in loaded.model.named_parameters():
        before = model.get_parameter(name)
        if name.endswith("position.table"):
            before = resize_table(before, 1, old, new)
        elif name.endswith("relative.table"):
            before = resize_offsets(before, old, new)
        elif name.endswith("position.rows"):
            before = resize_table(before[None], 0, Grid(2, 1), Grid(3, 1))[0]
        assert torch.equal(parameter, before), name
    assert loaded.model.eval()(torch.zeros(1, 3, 12, 8)).shape == (1, 3)


@each_kind
def test_settings_survive_json(make_settings, kind):
    settings = make_settings(position=kind)
    assert parse(ViTSettings, to_json(settings), "here") == settings


AXIAL = {"attention": Axial(), "pool": Mean(), "position": Learned2D()}


def test_an_axial_model_has_a_row_block_and_a_column_block_a_layer(make_settings, make_model):
    model = make_model(**AXIAL, image_size=Size(8, 12))
    assert model(torch.randn(2, 3, 8, 12)).shape == (2, 3)
    for layer in model.encoder.blocks:
        assert [name for name, _ in layer.named_children()] == ["row", "column"]
    block = sum(parameter.numel() for parameter in make_model().encoder.layers[0].parameters())
    without = {**AXIAL, "position": NoPosition()}
    assert count(make_settings(**without)) - count(make_settings(pool=Mean(), position=NoPosition())) == DEPTH * block


def test_an_axial_model_takes_another_image_size(make_model, tmp_path):
    model = make_model(**AXIAL)
    save(model, tmp_path / "model.safetensors")
    loaded = load_with_report(tmp_path / "model.safetensors", image_size=(12, 8))
    assert loaded.report.resized == ["position.rows 2×2 -> 3×2"]
    assert loaded.model(torch.zeros(1, 3, 12, 8)).shape == (1, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"width": 9, "num_heads": 3, "position": {"type": "Learned2D"}},
            "Learned2D needs a width .* of 2, not 9; use",
        ),
        (
            {"width": 18, "position": {"type": "SinCos2D"}},
            "SinCos2D needs a width that is a multiple of 4, not 18; use",
        ),
        ({"attention": {"type": "Axial"}}, "without class token or registers; use pool Mean"),
        ({"attention": {"type": "Axial"}, "pool": {"type": "Mean"}, "registers": 1}, "class token or registers"),
        ({"attention": {"type": "Axial"}, "pool": {"type": "Mean"}, "position": {"type": "Relative"}}, "Learned2D"),
        (
            {
                "attention": {"type": "Axial"},
                "pool": {"type": "Mean"},
                "position": {"type": "Learned1D", "place": "layers"},
            },
            "positions after the stem",
        ),
        ({"position": {"type": "Learned1D", "place": "roof"}}, "place"),
        ({"position": {"type": "Rotary"}}, "'position' has no kind 'Rotary'"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(make_settings, changes, message):
    with pytest.raises(SettingsError, match=message):
        parse(ViTSettings, to_json(make_settings()) | changes, "config.json")
