"""Names, shapes, counts and fresh values of parameters against the official code."""

import math

import pytest

from vitlab.models.catalog import settings_for
from vitlab.models.classifier import build, empty
from vitlab.models.resnet import ResNetSettings
from vitlab.nn.pooling import Mean
from vitlab.weights.big_vision import contents_of, resnet_table
from vitlab.weights.layout import Beside
from vitlab.weights.official import LINEN, RELEASED, file_shape, name_table

VITS = ["Ti_16", "S_16", "S_32", "B_16", "B_32", "B_8", "L_16", "L_32", "H_14", "B_16-gap-norep"]
HYBRIDS = ["R_ViT-Ti_16", "R26_ViT-S_32", "R26_ViT-B_32", "R50_ViT-B_16", "R50_ViT-L_32"]
LISTED = [*(f"ViT-{name}" for name in VITS), *HYBRIDS]


def without_ones(shape):
    """The scale and bias of a GroupNorm were [1, 1, 1, c] when the files were released; both forms are read."""
    return shape[3:] if shape[:3] == [1, 1, 1] else shape


def listed_settings(listing, image_size):
    name, gap, _ = listing["model"].partition("-gap-norep")
    settings = settings_for(name, listing["num_classes"], image_size)
    return settings.model_copy(update={"pool": Mean()}) if gap else settings


@pytest.mark.parametrize("name", LISTED)
def test_names_and_shapes_are_those_of_the_official_files(golden, name):
    listing = golden(f"listings/official_{name}").json()
    settings = listed_settings(listing, listing["image_size"])
    shapes = {ours: tuple(parameter.shape) for ours, parameter in empty(settings).named_parameters()}
    assert sum(math.prod(shape) for shape in shapes.values()) == listing["num_params"]
    for naming, key in ((RELEASED, "params_released"), (LINEN, "params_linen")):
        table = name_table(settings, naming)
        found = {table[ours]: list(file_shape(ours, settings, shape)) for ours, shape in shapes.items()}
        assert found == {name: without_ones(shape) for name, shape in listing[key].items()}


@pytest.mark.parametrize("naming", ["params_released", "params_linen"])
@pytest.mark.parametrize("name", [*LISTED, "testing"])
def test_every_array_of_an_official_file_has_a_place(golden, tmp_path, name, naming):
    listing = golden(f"listings/official_{name}").json()
    shapes = {theirs: tuple(shape) for theirs, shape in listing[naming].items()}
    contents = contents_of(tmp_path, shapes, Beside())
    assert contents.missing == () and contents.extra == ()
    assert name == "testing" or contents.settings == listed_settings(listing, listing["image_size"])
    assert {piece.source: list(piece.shape) for piece in contents.pieces.values()} == {
        theirs: without_ones(shape) for theirs, shape in listing[naming].items()
    }


@pytest.mark.parametrize("name", LISTED)
def test_the_position_table_has_the_official_rows_at_each_size(golden, name):
    listing = golden(f"listings/official_{name}").json()
    for size, shape in listing["pos_embedding_shape"].items():
        model = empty(listed_settings(listing, int(size)))
        assert list(model.position.table.shape) == shape


def check_distribution(name, values, want):
    """Two samples have the same mean and deviation, and constants are the same."""
    mean, std, count = float(values.mean()), float(values.std()), values.numel()
    if want["std"] == 0:
        assert bool((values == want["mean"]).all()), name
        return
    assert abs(mean - want["mean"]) < 6 * want["std"] * math.sqrt(2 / count), name
    assert std == pytest.approx(want["std"], rel=6 / math.sqrt(count)), name


@pytest.mark.parametrize("name", ["official_Ti16", "official_R_Ti16"])
def test_fresh_values_are_distributed_as_the_official_ones(golden, name):
    case = golden(f"init/{name}")
    config, official = case.config, case.json()
    settings = settings_for(config["model"], config["num_classes"], config["image"])
    settings = settings.model_copy(update={"representation_dim": config["representation_size"]})
    model, table = build(settings, seed=3), name_table(settings, LINEN)
    assert set(table.values()) == set(official)
    for ours, parameter in model.named_parameters():
        want = official[table[ours]]
        assert list(file_shape(ours, settings, tuple(parameter.shape))) == without_ones(want["shape"]), ours
        check_distribution(ours, parameter.detach(), want)


def test_fresh_values_of_a_resnet_are_distributed_as_those_of_big_vision(golden):
    case = golden("init/big_vision_bit_paper")
    depths, width, theirs = tuple(case.config["depth"]), 64 * case.config["width"], case.json()
    settings = ResNetSettings(depths=depths, root_width=width, num_classes=theirs["head/bias"]["shape"][0])
    model, table = build(settings, seed=3), resnet_table(settings)
    assert set(table.values()) == set(theirs)
    for ours, parameter in model.named_parameters():
        check_distribution(ours, parameter.detach(), theirs[table[ours]])


OF_HYBRIDS = ("stem.embedding.projection.weight", "stem.root.conv.weight")


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("uniform", "encoder.blocks.0.attention.query.weight"),
        ("uniform", "encoder.blocks.5.attention.out.weight"),
        ("uniform", "encoder.blocks.11.mlp.hidden.weight"),
        ("truncated normal", "stem.projection.weight"),
        ("truncated normal", "representation.weight"),
        *(("truncated normal", name) for name in OF_HYBRIDS),
    ],
)
def test_bounded_initialisers_reach_the_official_bounds_and_no_further(golden, part, name):
    case = golden("init/official_R_Ti16" if name in OF_HYBRIDS else "init/official_Ti16")
    settings = settings_for(case.config["model"], 10).model_copy(update={"representation_dim": 64})
    values = build(settings, seed=4).get_parameter(name).detach()
    want = case.json()[name_table(settings, LINEN)[name]]
    bound = max(want["max"], -want["min"])
    # Both are samples from within the same bound: the largest of them are within a few thousandths of it.
    assert float(values.max()) == pytest.approx(bound, rel=5e-3), part
    assert float(values.min()) == pytest.approx(-bound, rel=5e-3), part
