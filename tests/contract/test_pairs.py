"""Each kind of stem with each kind of attention, position and pooling, with registers and without."""

import itertools

import pytest
import torch
from pydantic import ValidationError

from tests.contract.checks import check_backward, check_file, check_forward, check_independent, check_resize, images_of
from tests.contract.examples import ODD, SIZES, SMALL, SQUARE, Example, describe, make, parts_of, variants
from vitlab.inspection.attention import attends_globally, rollout
from vitlab.models.vit import ViTSettings

REGISTERS = (0, 2)


def combinations():
    """Return every combination of parts as an example, whether it can be or not."""
    parts = {name: [v for kind in kinds for v in variants(kind)] for name, kinds in parts_of(ViTSettings).items()}
    parts["registers"] = list(REGISTERS)
    result = []
    for chosen in itertools.product(*parts.values()):
        changes = dict(zip(parts, chosen, strict=True))
        name = " ".join(str(part) if isinstance(part, int) else describe(part) for part in chosen)
        result.append(Example(name, ViTSettings, changes))
    return result


def is_valid(example):
    try:
        return bool(example.settings(SQUARE)) and bool(example.settings(ODD))
    except ValidationError:
        return False


ALL = combinations()
FIRST = [next(variants(kind)) for kind in parts_of(ViTSettings)["stem"]]
VALID = [example for example in ALL if is_valid(example)]


def expected(changes):
    """Whether the parts go together: axial attention keeps tokens on their grid, with positions after the stem or none."""
    if changes["attention"].type != "Axial":
        return True
    prefix = changes["pool"].num_prefix or changes["registers"]
    position = changes["position"]
    return not prefix and position.type != "Relative" and position.place in ("stem", None)


def test_exactly_the_impossible_combinations_are_refused():
    assert [example.name for example in VALID] == [example.name for example in ALL if expected(example.changes)]
    assert len(ALL) > len(VALID) > len(ALL) / 2
    for example in ALL:
        if example not in VALID:
            with pytest.raises(ValidationError, match="axial attention") as error:
                example.settings()
            assert error.value.error_count() == 1


def test_the_parts_are_those_that_are_combined():
    """A part that is new is combined with the others too, or this says that it is not."""
    assert list(parts_of(ViTSettings)) == ["stem", "attention", "position", "pool"]
    assert set(SMALL[ViTSettings]) & {"stem", "attention", "position", "pool"} == set()


@pytest.mark.parametrize("example", [each for each in VALID if each.changes["stem"] in FIRST], ids=str)
def test_every_combination_runs_and_has_gradients(example):
    model = make(example.settings(ODD))
    check_forward(model)
    check_backward(model)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("example", VALID, ids=str)
def test_every_combination_keeps_the_contract(example, size, tmp_path):
    model = make(example.settings(size))
    check_forward(model)
    check_independent(model)
    check_backward(model)
    check_file(model, tmp_path)
    check_resize(model, tmp_path, ODD if size == SQUARE else SQUARE)
    if attends_globally(model):
        maps = rollout(model, images_of(model))
        assert maps.shape == (3, *model.settings.grid) and torch.all(maps >= 0)
