import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitlab.data.digits import Digits
from vitlab.data.loader import TrainBatches
from vitlab.data.transforms import Augment
from vitlab.train.loop import train
from vitlab.train.progress import Quiet
from vitlab.train.run import RunFolder, read_metrics
from vitlab.train.standing import Standing, after, score_of


def test_an_evaluation_is_scored_by_the_first_source_and_its_first_metric():
    values = {"val/top1": 0.5, "val/top5": 0.9, "val/loss": 1.0, "test/top1": 0.7}
    assert score_of(values) == 0.5
    assert score_of({"val/loss": 1.0, "val/map": 0.25, "val/count": 3.0}) == 0.25
    assert score_of({"a/b/loss": 2.0, "a/b/count": 3.0}) == -2.0
    assert score_of({"val/loss": math.nan}) == score_of({"val/top1": math.nan}) == -math.inf


@given(st.lists(st.sampled_from([-math.inf, 0.0, 0.25, 0.5, 1.0]), min_size=1))
def test_the_standing_is_that_of_the_first_of_the_best(scores):
    standing = None
    for step, score in enumerate(scores):
        standing = after(standing, step, score)
    best = int(np.argmax(scores))
    assert standing == Standing(scores[best], best, len(scores) - 1 - best)


class Small(Digits):
    """Forty digits."""

    def __len__(self):
        return 40


class Stop(Exception):  # noqa: N818
    pass


class StopAt(Quiet):
    def __init__(self, step):
        self.step = step

    def stepped(self, step, result):
        if step == self.step:
            raise Stop


def mark(model):
    """Tell apart the weights that a model has had."""
    weight = model.head.weight.detach().double()
    return float(
        (weight * torch.arange(weight.numel()).reshape(weight.shape)).sum()
    )  # the plain sum hardly ever changes


@pytest.fixture
def go(tmp_path, make_state, make_training):
    """Train in the folder `name`, and return the state at the end and the evaluations that were logged."""

    def run(name, evaluator, watcher=None, resume=False, **changes):
        settings = make_training(**({"steps": 12, "eval_every": 1, "checkpoint_every": 1} | changes))
        state = make_state(settings, dropout=0.1)
        source = Small()
        batches = TrainBatches(source, source.labels % 3, state.model.image_spec, Augment(), 8, settings.seed)
        with RunFolder.reopen(tmp_path / name) if resume else RunFolder.create(tmp_path / name, {}, {}) as folder:
            if resume:
                folder.restore_checkpoint(state)
            train(state, batches, settings, folder, {"test": evaluator}, watcher or Quiet())
        events = [event for event in read_metrics(tmp_path / name) if event["name"] == "test/top1"]
        return state, [(event["step"], event["value"]) for event in events]

    run.path = tmp_path
    return run


@pytest.fixture
def scripted(go):
    """An evaluator that gives each of the weights of a run the top-1 that was written down for their step."""

    def make(script, **changes):
        marks = []
        go("first", lambda model: marks.append(mark(model)) or {"top1": 0.0}, **changes)
        assert len(set(marks)) == len(marks) == 12
        return lambda model: {"top1": script[marks.index(mark(model))]}, marks

    return make


SCRIPT = [0.1, 0.4, 0.3, 0.4, 0.2, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]


@pytest.mark.parametrize("changes", [{}, {"average": 0.9}], ids=str)
def test_a_run_ends_after_so_many_evaluations_without_a_better_one_with_the_weights_of_the_best(go, scripted, changes):
    evaluator, marks = scripted(SCRIPT, **changes)
    state, events = go("run", evaluator, patience=3, **changes)
    assert state.step == 5 and state.standing == Standing(0.4, 2, 3)
    assert mark(state.model) == marks[1]
    assert events == [(1, 0.1), (2, 0.4), (3, 0.3), (4, 0.4), (5, 0.2), (5, 0.4)], "what comes last is of these weights"


def test_a_run_that_gets_better_to_the_end_ends_there(go, scripted):
    evaluator, marks = scripted([step / 100 for step in range(12)])
    state, events = go("run", evaluator, patience=1)
    assert state.step == 12 and mark(state.model) == marks[-1] and len(events) == 12


def test_the_best_may_be_before_the_end_of_a_run_that_went_all_the_way(go, scripted):
    evaluator, marks = scripted([0.1] * 9 + [0.8, 0.7, 0.6])
    state, events = go("run", evaluator, patience=9)
    assert state.step == 12 and mark(state.model) == marks[9] and events[-2:] == [(12, 0.6), (12, 0.8)]


@pytest.mark.parametrize(("step", "every"), [(1, 1), (4, 2), (5, 1)])
def test_wherever_it_is_killed_it_ends_as_if_it_had_not_been(go, scripted, step, every):
    changes = {"patience": 3, "average": 0.8, "checkpoint_every": every}
    evaluator, _ = scripted(SCRIPT, average=0.8)
    whole, events = go("whole", evaluator, **changes)
    with pytest.raises(Stop):
        go("cut", evaluator, StopAt(step), **changes)
    again, found = go("cut", evaluator, resume=True, **changes)
    assert found == events and again.step == whole.step and again.standing == whole.standing
    for one, other in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_run_that_was_over_when_it_was_killed_makes_no_further_step(go, scripted):
    evaluator, marks = scripted(SCRIPT)
    _, events = go("run", evaluator, patience=3)
    state, found = go("run", evaluator, StopAt(6), resume=True, patience=3)
    assert state.step == 5 and mark(state.model) == marks[1] and found == events


def test_a_run_that_goes_on_without_patience_goes_to_its_end(go, scripted):
    evaluator, marks = scripted(SCRIPT)
    with pytest.raises(Stop):
        go("run", evaluator, StopAt(4), patience=3)
    state, events = go("run", evaluator, resume=True)
    assert state.step == 12 and mark(state.model) == marks[-1] and len(events) == 12


def test_without_patience_the_last_weights_are_those_of_the_run(go, scripted):
    evaluator, marks = scripted(SCRIPT)
    state, events = go("run", evaluator)
    assert state.standing is None and mark(state.model) == marks[-1] and len(events) == 12


def test_the_average_is_evaluated_and_is_what_is_left_in_the_end(go):
    seen = []
    state, _ = go("run", lambda model: seen.append(mark(model)) or {"top1": 0.0}, average=0.9)
    plain = []
    last, _ = go("plain", lambda model: plain.append(mark(model)) or {"top1": 0.0})
    assert mark(state.model) == seen[-1] != plain[-1] == mark(last.model)
    assert seen[0] != plain[0]
