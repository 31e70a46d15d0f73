"""The plan is what its script writes, and follows a measured rate."""

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("docs_plan_large", DOCS / "plan_large.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_script_writes(script):
    assert (DOCS / "plan-large.md").read_text() == script.page({}), "run: python docs/plan_large.py"


def test_a_measured_rate_decides_the_days(script):
    slow, fast = (script.planned("L/16", {"L/16": rate}) for rate in (500.0, 1000.0))
    assert slow.days(8, 7) == pytest.approx(2 * fast.days(8, 7))
    assert fast.days(8, 14) == pytest.approx(303e6 * 14 / 8000 / 86400)
    assert "measured, given by --rate" in script.page({"L/16": 500.0})


def test_the_network_bounds_a_step_on_many_gpus(script):
    model = script.planned("H/14", {"H/14": 300.0})
    assert model.step_seconds(8) == 4096 / 8 / 300
    assert model.step_seconds(512) == model.gradient_seconds(512) > 4096 / 512 / 300
