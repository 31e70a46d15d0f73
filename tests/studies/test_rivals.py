import pytest

from vitlab.cost.flops import cost
from vitlab.evals.interval import OverRuns, over_runs
from vitlab.studies.rivals import RIVALS, Lead, lead, turns
from vitlab.studies.worlds import WORLDS


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.scale)
def test_rivals_are_networks_of_their_world_that_cost_about_the_same(world):
    for vit, resnet in RIVALS[world.scale]:
        assert 0.7 < cost(world.networks[vit]).macs / cost(world.networks[resnet]).macs < 1.5, (vit, resnet)
    smaller, larger = RIVALS[world.scale]
    assert cost(world.networks[smaller.vit]).macs < cost(world.networks[larger.vit]).macs


def test_a_lead_has_the_deviation_of_a_difference():
    found = lead(OverRuns(0.7, 0.03, 2), OverRuns(0.5, 0.04, 2))
    assert found.mean == pytest.approx(0.2) and found.deviation == pytest.approx(0.05)
    assert Lead(-0.01, 0).words("it") == "1.0 ± 0.0 points behind it" and found.words("it").endswith("ahead of it")
    assert found.words() == "20.0 ± 5.0 points ahead" and Lead(-0.01, 0).words() == "1.0 ± 0.0 points behind"
    assert lead(over_runs([0.7]), over_runs([0.5])).deviation == 0
    assert lead(None, over_runs([0.5])) is None and lead(over_runs([0.5]), None) is None


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (-0.1, 0.1, True),
        (0.1, 0.1, False),
        (-0.1, -0.1, False),
        (0.1, -0.1, False),
        (-0.1, 0.01, None),
        (0.01, 0.1, None),
    ],
)
def test_a_turn_needs_both_ends_to_be_clear(first, last, expected):
    assert turns(Lead(first, 0.05), Lead(last, 0.05)) is expected
