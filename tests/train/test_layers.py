import re

import pytest

from vitlab.config import override
from vitlab.errors import SettingsError
from vitlab.models.catalog import settings_for
from vitlab.models.classifier import empty
from vitlab.models.vit import ViTSettings
from vitlab.train.config import TrainSettings
from vitlab.train.layers import count_layers, frozen_names, layer_of, rate_scales

NAMES = ["B/16", "R50+B/16", "BiT-R50x1", "ResNet-R50x1", "Axial-B/16", "AxialResNet-50"]


def names_of(settings):
    return [name for name, _ in empty(settings).named_parameters()]


def beit(name, layers):
    """`get_num_layer_for_vit` of BeiT's optim_factory.py, in its own words, for our names."""
    if name in ("class_token", "registers", "position.table") or name.startswith("stem"):
        return 0
    if name.startswith("encoder.blocks"):
        return int(name.split(".")[2]) + 1
    return layers + 1


@pytest.mark.parametrize("changes", [{}, {"registers": 2, "layer_scale": 0.1}, {"representation_dim": 32}])
@pytest.mark.parametrize("model", ["B/16", "R50+B/16"])
def test_layers_of_a_vit_are_those_of_beit(model, changes):
    settings = settings_for(model, 10, 224).model_copy(update=changes)
    found = {name: layer_of(name, settings) for name in names_of(settings)}
    assert found == {name: beit(name, 12) for name in found}
    assert set(found.values()) == set(range(14))


@pytest.mark.parametrize("model", ["BiT-R50x1", "ResNet-R50x1", "AxialResNet-50"])
def test_layers_of_a_resnet_are_its_units_as_in_timm_but_for_the_last_norm(model):
    settings = settings_for(model, 10, 224)
    units = [(stage, unit) for stage, depth in enumerate((3, 4, 6, 3)) for unit in range(depth)]
    for name in names_of(settings):
        place = re.match(r"stages\.(\d+)\.(\d+)\.", name)
        expected = 1 + units.index((int(place[1]), int(place[2]))) if place else 0 if name.startswith("root.") else 17
        assert layer_of(name, settings) == expected, name
    assert count_layers(settings) == 16


@pytest.mark.parametrize("model", NAMES)
def test_rates_fall_by_the_factor_from_the_head_down_to_the_embedding(model):
    settings = settings_for(model, 10, 224)
    scales = rate_scales(names_of(settings), settings, 0.75)
    layers = count_layers(settings)
    assert scales["head.weight"] == scales["head.bias"] == 1.0
    assert min(scales.values()) == pytest.approx(0.75 ** (layers + 1))
    assert sorted(set(scales.values()), reverse=True) == pytest.approx([0.75**power for power in range(layers + 2)])
    lowest = {name.split(".")[0] for name, scale in scales.items() if scale == min(scales.values())}
    assert lowest <= {"stem", "root", "class_token", "position"}


def test_positions_in_every_layer_belong_to_their_layer():
    small = ViTSettings(image_size=32, depth=2, width=16, num_heads=2, mlp_dim=32)
    each = override(small, ["position.place=layers"])
    assert layer_of("encoder.blocks.1.position.table", each) == 2
    assert "encoder.blocks.1.position.table" in names_of(each)
    relative = override(small, ["position=Relative"])
    assert {layer_of(name, relative) for name in names_of(relative) if "relative" in name} == {1, 2}


@pytest.mark.parametrize("model", NAMES)
def test_the_frozen_trunk_is_all_but_the_head(model):
    settings = settings_for(model, 10, 224)
    names = [*names_of(settings), "task.prediction.weight"]
    trained = set(names) - frozen_names(names, settings, "trunk")
    assert trained == {"head.weight", "head.bias", "task.prediction.weight"}


@pytest.mark.parametrize("model", NAMES)
def test_frozen_layers_are_counted_from_the_embedding_up(model):
    settings = settings_for(model, 10, 224)
    names = names_of(settings)
    before = frozenset()
    for count in range(count_layers(settings) + 1):
        frozen = frozen_names(names, settings, count)
        assert {layer_of(name, settings) for name in frozen} == set(range(count + 1))
        assert before < frozen and "head.weight" not in frozen
        before = frozen


def test_the_first_stage_of_a_resnet_is_its_first_three_units():
    settings = settings_for("BiT-R50x1", 10, 224)
    names = names_of(settings)
    assert frozen_names(names, settings, 3) == {name for name in names if name.startswith(("root.", "stages.0."))}


def test_more_layers_than_there_are_cannot_be_frozen():
    with pytest.raises(SettingsError, match="13 layers are more than the 12 of the model; use 12 or fewer, or trunk"):
        frozen_names([], settings_for("B/16", 10, 224), 13)


@pytest.mark.parametrize("value", ["-1", "head", "1.5", "true"])
def test_what_is_no_part_of_a_model_is_refused(value):
    with pytest.raises(SettingsError, match=r"'frozen' = .*: neither .trunk. nor a number of layers"):
        override(TrainSettings(), [f"frozen={value}"])
    assert override(TrainSettings(), ["frozen=trunk"]).frozen == "trunk"
    assert override(TrainSettings(), ["frozen=0"]).frozen == 0
