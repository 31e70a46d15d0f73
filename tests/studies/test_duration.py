"""How long a run may take is said before its first step."""

import pytest
import torch

from vitlab.config import override
from vitlab.studies import duration
from vitlab.studies.duration import ASSUMED_USE, spoken, time_line
from vitlab.studies.plan import Asked, plan_pretrain
from vitlab.train.meter import training_flops


@pytest.fixture
def settings():
    asked = Asked(data="digits", model="Ti/4", image_size=32, batch_size=64, steps=1000, device="cpu")
    return plan_pretrain(asked).settings


@pytest.fixture
def rates(monkeypatch):
    """Give every device a rate of a TFLOP/s, and return in which types it was asked for."""
    asked = []
    monkeypatch.setattr(duration, "matrix_rate", lambda device, dtype: asked.append(dtype) or 1e12)
    return asked


def speed_of(line):
    return float(line.split(" at ")[1].split(" images/s")[0].replace(",", ""))


def test_the_estimate_names_what_it_assumes(settings, rates):
    speed = ASSUMED_USE["cpu"] * 1e12 / training_flops(settings.model)
    line = time_line(settings)
    assert line.startswith(f"about {spoken(64_000 / speed)} at {speed:,.0f} images/s")
    assert "if it uses 60 % of what this CPU can do (1.0 TFLOP/s in float32)" in line
    assert rates == [torch.float32]


@pytest.mark.parametrize(("change", "factor"), [("train.remat=true", 3 / 4), ("train.batch_size=128", 1)])
def test_layers_that_are_computed_again_take_a_third_more(settings, rates, change, factor):
    changed = override(settings, [change])
    assert speed_of(time_line(changed)) == pytest.approx(factor * speed_of(time_line(settings)), rel=0.01)


def test_more_devices_are_faster_and_the_precision_is_the_runs(settings, rates):
    changed = override(settings, ["train.precision=bfloat16"])
    line = time_line(changed, world=4)
    assert "what 4 processes like this one can do" in line and "in bfloat16" in line and rates == [torch.bfloat16]
    assert speed_of(line) == pytest.approx(4 * speed_of(time_line(settings)), rel=0.01)


def test_evaluations_count(settings, rates):
    changed = override(settings, ["train.eval_every=100"])
    images = 3 * 64 * 1000 // 10  # ten forward passes over so many are as much as the training
    alone, together = (time_line(changed, held_out=number) for number in (0, images))
    assert speed_of(alone) == speed_of(together)
    seconds = 64_000 / (ASSUMED_USE["cpu"] * 1e12 / training_flops(settings.model))
    assert f"about {spoken(2 * seconds)} " in together


def test_a_run_that_is_over_at_once_measures_nothing(settings, rates):
    assert time_line(override(settings, ["train.steps=10"])) is None and rates == []


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.1, "1 s"), (40, "40 s"), (100, "2 min"), (3599, "1 h"), (4800, "1 h 20 min"), (47 * 3600, "47 h"),
        (76 * 3600, "3 d 4 h"), (48 * 3600, "2 d"), (71.9 * 3600, "3 d"), (4e8, "4,629 d 15 h"),
    ],
)  # fmt: skip
def test_times_are_said_in_two_units(seconds, said):
    assert spoken(seconds) == said
