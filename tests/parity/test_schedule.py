"""Schedules against big_vision, whose rates are shares of a peak of 1."""

import pytest

from vitlab.studies.recipe import steps_for
from vitlab.train.schedule import Cosine, Linear, Staircase


def rates(schedule, case):
    return [schedule.rate(int(step), case.config["total_steps"], 1.0) for step in case.arrays("npz")["step"]]


@pytest.mark.parametrize(
    ("name", "schedule"),
    [("cosine", Cosine(warmup_steps=10)), ("linear", Linear(warmup_steps=20, end=0.01))],
)
def test_the_rate_is_that_of_big_vision_at_every_step(golden, agree, name, schedule):
    case = golden(f"optim/sched_big_vision_{name}")
    assert schedule.warmup_steps == case.config["warmup_steps"]
    agree(case.name, rates(schedule, case), case.arrays("npz")["lr"], rtol=case.tolerance["rtol"], atol=1e-7)


def test_epochs_are_as_many_steps_as_in_big_vision(golden, agree):
    case = golden("optim/sched_big_vision_cosine_warmup_epochs")
    config = case.config
    schedule = Cosine(warmup_steps=steps_for(config["warmup_epochs"], config["data_size"], config["batch_size"]))
    agree(case.name, rates(schedule, case), case.arrays("npz")["lr"], rtol=case.tolerance["rtol"], atol=1e-7)


def test_a_staircase_falls_one_step_later_than_that_of_big_vision(golden, agree):
    """A boundary's own step still has the rate before it, as in BiT's code; there it has the next."""
    case = golden("optim/sched_big_vision_stair")
    marks = tuple(mark - 1 for mark in case.config["steps"])
    schedule = Staircase(warmup_steps=case.config["warmup_steps"], boundaries=marks, factor=0.1)
    agree(case.name, rates(schedule, case), case.arrays("npz")["lr"], rtol=case.tolerance["rtol"], atol=1e-7)
