"""Names, shapes, counts and fresh values of parameters against the official code."""

import math

import pytest

from vitlab.models.catalog import settings_for
from vitlab.models.classifier import build, empty
from vitlab.nn.pooling import Mean
from vitlab.weights.official import LINEN, RELEASED, file_shape, name_table

LISTED = ["Ti_16", "S_16", "S_32", "B_16", "B_32", "B_8", "L_16", "L_32", "H_14", "B_16-gap-norep"]


def listed_settings(listing, image_size):
    name, gap, _ = listing["model"].partition("-gap-norep")
    settings = settings_for(name, listing["num_classes"], image_size)
    return settings.model_copy(update={"pool": Mean()}) if gap else settings


@pytest.mark.parametrize("name", LISTED)
def test_names_and_shapes_are_those_of_the_official_files(golden, name):
    listing = golden(f"listings/official_ViT-{name}").json()
    settings = listed_settings(listing, listing["image_size"])
    shapes = {ours: tuple(parameter.shape) for ours, parameter in empty(settings).named_parameters()}
    assert sum(math.prod(shape) for shape in shapes.values()) == listing["num_params"]
    for naming, key in ((RELEASED, "params_released"), (LINEN, "params_linen")):
        table = name_table(settings, naming)
        found = {table[ours]: list(file_shape(ours, settings, shape)) for ours, shape in shapes.items()}
        assert found == listing[key]


@pytest.mark.parametrize("name", LISTED)
def test_the_position_table_has_the_official_rows_at_each_size(golden, name):
    listing = golden(f"listings/official_ViT-{name}").json()
    for size, shape in listing["pos_embedding_shape"].items():
        model = empty(listed_settings(listing, int(size)))
        assert list(model.position.table.shape) == shape


def test_fresh_values_are_distributed_as_the_official_ones(golden):
    case = golden("init/official_Ti16")
    config, official = case.config, case.json()
    settings = settings_for(config["model"], config["num_classes"], config["image"])
    settings = settings.model_copy(update={"representation_dim": config["representation_size"]})
    model, table = build(settings, seed=3), name_table(settings, LINEN)
    assert set(table.values()) == set(official)
    for ours, parameter in model.named_parameters():
        values, want = parameter.detach(), official[table[ours]]
        assert list(file_shape(ours, settings, tuple(values.shape))) == want["shape"], ours
        if want["std"] == 0:
            assert bool((values == want["mean"]).all()), ours
            continue
        count = values.numel()
        assert abs(float(values.mean()) - want["mean"]) < 6 * want["std"] * math.sqrt(2 / count), ours
        assert float(values.std()) == pytest.approx(want["std"], rel=6 / math.sqrt(count)), ours


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("uniform", "encoder.blocks.0.attention.query.weight"),
        ("uniform", "encoder.blocks.5.attention.out.weight"),
        ("uniform", "encoder.blocks.11.mlp.hidden.weight"),
        ("truncated normal", "stem.projection.weight"),
        ("truncated normal", "representation.weight"),
    ],
)
def test_bounded_initialisers_reach_the_official_bounds_and_no_further(golden, part, name):
    case = golden("init/official_Ti16")
    settings = settings_for("Ti/16", 10).model_copy(update={"representation_dim": 64})
    values = build(settings, seed=4).get_parameter(name).detach()
    want = case.json()[name_table(settings, LINEN)[name]]
    bound = max(want["max"], -want["min"])
    # Both are samples from within the same bound: the largest of them are within a few thousandths of it.
    assert float(values.max()) == pytest.approx(bound, rel=5e-3), part
    assert float(values.min()) == pytest.approx(-bound, rel=5e-3), part
