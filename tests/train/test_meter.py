import io
import json
import os
import resource

import pytest
import torch
from rich.console import Console

from vitlab.models.catalog import settings_for
from vitlab.train import meter
from vitlab.train.meter import TIMING, Meter, Pace, TimingFile, matrix_rate, peak_memory, timed, training_flops
from vitlab.train.progress import Terminal
from vitlab.train.step import StepResult
from vitlab.train.watcher import Quiet, Several, Watcher

CPU = torch.device("cpu")
RESULT = StepResult(1.0, 2.0, 0.1)


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now

    def time(self):
        return 1e9 + self.now


class Heard(Quiet):
    """Remembers what it is told of the log."""

    def __init__(self):
        self.list = []

    def logged(self, step, values):
        self.list.append((step, dict(values)))


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(meter, "time", clock)
    return clock


@pytest.fixture
def watched(tmp_path, clock):
    """A meter of a device of 1,000 FLOP/s and images of 10, and what it tells."""
    heard = Heard()
    meter = Meter(Pace(10.0, 1000.0, CPU), TimingFile(tmp_path / TIMING), heard)
    yield meter, heard.list
    meter.close()


def step(meter, clock, number, wait=0.0, work=1.0):
    clock.now += wait
    meter.waited(wait)
    clock.now += work
    meter.stepped(number, RESULT)


def test_speed_is_of_the_time_that_went_into_training(watched, clock):
    meter, told = watched
    meter.started(0, 10, 8)
    step(meter, clock, 1, wait=0.5)
    step(meter, clock, 2, wait=0.5)
    clock.now += 30
    meter.evaluated(2, {"test/top1": 0.5})
    clock.now += 5
    meter.saved(2, 5.0)
    step(meter, clock, 3)
    meter.logged(3, {"train/loss": 1.0})
    (first, rate), (at, values) = told
    assert (first, rate) == (0, {"train/matrix_rate": 1000.0}) and at == 3
    assert values["train/seconds"] == pytest.approx(4.0)
    assert values["train/images_per_second"] == pytest.approx(24 / 4)
    assert values["train/utilisation"] == pytest.approx(6 * 10 / 1000)
    assert values["train/data_wait"] == pytest.approx(1 / 4)
    assert values["train/evaluation_seconds"] == pytest.approx(30)
    assert values["train/checkpoint_seconds"] == pytest.approx(5)


def test_every_interval_begins_anew_and_says_nothing_of_what_did_not_happen(watched, clock):
    meter, told = watched
    meter.started(5, 10, 8)
    for number, work in ((6, 1.0), (7, 4.0)):
        step(meter, clock, number, work=work)
        meter.logged(number, {})
    rates = [values["train/images_per_second"] for _, values in told[1:]]
    assert rates == [pytest.approx(8.0), pytest.approx(2.0)]
    assert not any(name.endswith(("evaluation_seconds", "checkpoint_seconds")) for _, values in told for name in values)


def test_a_log_without_a_new_step_has_no_speed(watched, clock):
    meter, told = watched
    meter.started(5, 10, 8)
    clock.now += 1
    meter.logged(5, {})
    assert len(told) == 1


def test_the_file_has_every_figure_with_its_hour_and_what_came_after_the_last_step(watched, clock, tmp_path):
    meter, _ = watched
    meter.started(0, 1, 8)
    step(meter, clock, 1)
    meter.logged(1, {})
    clock.now += 2
    meter.evaluated(1, {})
    meter.close()
    events = [json.loads(line) for line in (tmp_path / TIMING).read_text().splitlines()]
    assert events[0] == {"step": 0, "images": 0, "time": 1e9 + 100, "name": "train/matrix_rate", "value": 1000.0}
    assert {event["images"] for event in events[1:]} == {8}
    assert (events[-1]["name"], events[-1]["value"]) == ("train/evaluation_seconds", pytest.approx(2.0))


def test_a_line_that_a_crash_cut_short_is_taken_away_and_the_rest_kept(tmp_path):
    path = tmp_path / TIMING
    path.write_text('{"step": 1}\n{"st')
    file = TimingFile(path)
    file.write(2, 16, {"a": 1.0})
    file.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_a_disk_that_takes_no_more_ends_the_file_and_not_the_run(tmp_path, caplog):
    file = TimingFile(tmp_path / TIMING)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        file.write(1, 8, {"a": 1.0})
        file.write(2, 16, {"a": 1.0})
        file.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(caplog.messages) == 1 and f"{tmp_path / TIMING}: no more figures of speed" in caplog.text
    TimingFile(tmp_path / "gone" / TIMING).write(1, 8, {"a": 1.0})
    assert "No such file" in caplog.messages[1]


def test_items_come_through_and_the_wait_for_each_is_told(clock):
    def slow():
        for number in range(3):
            clock.now += number
            yield number

    waits = []
    for item in timed(slow(), waits.append):
        clock.now += 10
        assert item == len(waits) - 1
    assert waits == [0, 1, 2]


def test_the_work_in_an_image_is_that_of_the_paper_forward_and_twice_backward():
    assert training_flops(settings_for("B/16")) == pytest.approx(6 * 17.58e9, rel=0.01)


def test_the_matrix_rate_is_measured_once_and_leaves_the_random_numbers_alone(monkeypatch):
    monkeypatch.setattr(meter, "MEASURE_SECONDS", 0.01)
    monkeypatch.setattr(meter, "SIDES", {"cpu": 64})
    monkeypatch.setattr(meter, "BURST_FLOPS", 1e6)
    meter._matrix_rate.cache_clear()
    before = torch.get_rng_state()
    rate = matrix_rate(CPU, torch.float32)
    assert 1e6 < rate < 1e15 and matrix_rate(CPU, torch.float32) == rate
    assert torch.equal(torch.get_rng_state(), before)
    meter._matrix_rate.cache_clear()


def test_memory_is_that_of_this_process():
    assert 10e6 < peak_memory(CPU) < 1e12 and os.getpid()


def test_the_line_says_how_well_the_device_is_used_and_that_it_waits_only_if_it_does():
    out = io.StringIO()
    terminal = Terminal(Console(file=out, width=200))
    terminal.started(0, 2, 8)
    terminal.logged(1, {"train/utilisation": 0.62, "train/data_wait": 0.01})
    terminal.stepped(2, RESULT)
    terminal.logged(2, {"train/utilisation": 0.31, "train/data_wait": 0.5})
    terminal.logged(2, {"train/loss": 1.0})
    terminal.stepped(2, RESULT)
    first, second = out.getvalue().splitlines()
    assert "62 % used" in first and "waiting" not in first
    assert "31 % used, 50 % waiting" in second


def test_an_update_that_stands_out_is_said_with_where_its_images_are_named():
    out = io.StringIO()
    Terminal(Console(file=out, width=200)).noted(7, "train/spike", 8.25)
    assert out.getvalue() == "step 7: the loss stands out (8.25); its images are in events.jsonl\n"


def test_each_of_several_watchers_is_told_everything():
    calls = []

    class Recorder(Quiet):
        def __getattribute__(self, name):
            if name.startswith("_"):
                return super().__getattribute__(name)
            return lambda *arguments: calls.append((name, arguments))

    both = Several(Recorder(), Recorder())
    said = {
        "started": (0, 2, 8), "waited": (0.1,), "stepped": (1, RESULT),
        "noted": (1, "train/spike", 9.0), "logged": (1, {}), "evaluated": (1, {}),
        "saved": (1, 0.5), "close": (),
    }  # fmt: skip
    for name, arguments in said.items():
        getattr(both, name)(*arguments)
    assert calls == [(name, arguments) for name, arguments in said.items() for _ in range(2)]
    assert isinstance(both, Watcher) and isinstance(Quiet(), Watcher)
    assert {name for name in vars(Watcher) if not name.startswith("_")} == set(said)
