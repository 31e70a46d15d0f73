"""That nothing is left out: the examples are held against the settings."""

from typing import Annotated, Any, Literal, get_args

import pytest
from pydantic import Field

from tests.contract import examples
from tests.contract.examples import (
    DIMENSIONS,
    EXAMPLES,
    FAMILIES,
    ODD,
    OPTIONS,
    REFUSED,
    SIZES,
    collect,
    parts_of,
    variants,
    words_of,
)
from vitlab.config import Settings, override
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import ViTSettings
from vitlab.nn.pooling import Pool


def values(field):
    """Return the values of a field of ViTSettings or ResNetSettings over all examples."""
    return [getattr(each.settings(), field) for each in EXAMPLES if field in each.family.model_fields]


def test_every_kind_has_an_example():
    assert REFUSED == {}, "give these kinds something small in SMALL, or what they need in WITH"
    for family in FAMILIES:
        assert any(example.family is family for example in EXAMPLES), family
        for name, kinds in parts_of(family).items():
            assert [kind.__name__ for kind in kinds if kind not in map(type, values(name))] == [], name
            for kind in kinds:
                assert all(variant in values(name) for variant in variants(kind)), kind


def test_every_word_of_every_choice_has_an_example():
    for family in FAMILIES:
        for name, words in words_of(family).items():
            assert set(words) == set(values(name))
        for name, kinds in parts_of(family).items():
            for kind in kinds:
                for option, words in words_of(kind).items():
                    found = {getattr(part, option) for part in values(name) if isinstance(part, kind)}
                    assert found == set(words), f"{kind.__name__}.{option}"


def test_every_option_has_an_example():
    """A new option of a model comes into OPTIONS with a value, or into DIMENSIONS if it is a plain number."""
    for family in FAMILIES:
        known = {*parts_of(family), *words_of(family), *OPTIONS, *DIMENSIONS}
        assert [name for name in family.model_fields if name not in known] == []
    for name, value in OPTIONS.items():
        assert value in values(name) and any(other != value for other in values(name))


def test_the_kinds_are_those_that_were_there_when_this_was_written():
    """Reading the unions finds at least these; a kind that goes away does so on purpose."""
    found = {(name, kind.__name__) for family in FAMILIES for name, kinds in parts_of(family).items() for kind in kinds}
    assert found >= {
        *(("stem", kind) for kind in ("Patches", "ResNetStem")),
        *(("attention", kind) for kind in ("Global", "Axial")),
        *(("position", kind) for kind in ("NoPosition", "Learned1D", "Learned2D", "Relative", "SinCos2D")),
        *(("pool", kind) for kind in ("ClassToken", "Mean", "AttentionPool", "FirstPatch")),
        *(("unit", kind) for kind in ("PreActivation", "PostActivation", "AxialAttention")),
    }
    places = {(part.type, part.place) for part in values("position")}
    assert {(kind, place) for kind in ("Learned1D", "Learned2D") for place in ("stem", "layers", "shared")} <= places
    assert {family.__name__ for family in FAMILIES} == {"ViTSettings", "ResNetSettings"}


def test_the_sizes_are_of_both_sorts():
    assert any(size.height == size.width for size in SIZES) and ODD.height != ODD.width
    for example in EXAMPLES:
        settings = example.settings(ODD)
        cell = settings.stem.cell if isinstance(settings, ViTSettings) else (8, 8)
        assert ODD.height % cell[0] and ODD.width % cell[1], example


def test_examples_have_names_of_their_own():
    assert len({example.name for example in EXAMPLES}) == len(EXAMPLES) > 25


class Newest(Settings):
    """A kind that is added later."""

    type: Literal["Newest"] = "Newest"


class Demanding(Settings):
    """A kind that is added later and has no default."""

    type: Literal["Demanding"] = "Demanding"
    rank: int


def with_pool(monkeypatch, kind):
    """Return the examples and refusals as they were if `kind` were a pooling."""
    pool: Any = Annotated[Pool | kind, Field(discriminator="type")]
    extended = type("ViTSettings", (ViTSettings,), {"__annotations__": {"pool": pool}, "pool": ViTSettings().pool})
    monkeypatch.setattr(examples, "FAMILIES", (extended, ResNetSettings))
    monkeypatch.setitem(examples.SMALL, extended, examples.SMALL[ViTSettings])
    return collect()


def test_a_kind_that_is_added_is_an_example_at_once_or_said_to_lack_one(monkeypatch):
    """Newest has no num_prefix, so that its settings are refused or fail: it is tried in any case."""
    Newest.num_prefix = 0
    found, refused = with_pool(monkeypatch, Newest)
    assert "ViT:pool=Newest" in [example.name for example in found] and refused == {}
    _, refused = with_pool(monkeypatch, Demanding)
    assert "rank" in str(refused)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_can_be_chosen_by_its_name(family):
    """As `--set model.position=Relative` does it, with what it cannot be without."""
    for name, kinds in parts_of(family).items():
        for kind in kinds:
            needed = [f"{part}={value.type}" for part, value in examples.WITH.get(kind, {}).items()]
            chosen = override(family(), [*needed, f"{name}={kind.__name__}"])
            assert getattr(chosen, name) == kind()
            for option, words in words_of(kind).items():
                for word in words:
                    written = str(word).lower() if isinstance(word, bool) else word
                    changes = [*needed, f"{name}={kind.__name__}", f"{name}.{option}={written}"]
                    changed = override(family(), changes)
                    assert getattr(getattr(changed, name), option) == word


def test_a_union_is_read_whole():
    assert [kind.__name__ for kind in parts_of(ViTSettings)["pool"]] == [kind.__name__ for kind in get_args(Pool)]
