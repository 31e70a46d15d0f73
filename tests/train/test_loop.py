import json
import os
import signal

import numpy as np
import pytest

from vitlab.data.digits import Digits
from vitlab.data.loader import TrainBatches
from vitlab.data.transforms import Augment
from vitlab.errors import BadImagesError, ImageError, NonFiniteError
from vitlab.train import loop
from vitlab.train.loop import Interrupted, train
from vitlab.train.run import RunFolder, read_metrics
from vitlab.train.spikes import is_spike
from vitlab.train.watcher import Quiet


class Events(Quiet):
    """Remembers everything that happens, and does something after a chosen step."""

    def __init__(self, then=None):
        self.list, self.then = [], then or {}

    def started(self, step, steps, batch_size):
        self.list.append(("started", step))

    def stepped(self, step, result):
        self.list.append(("step", step))
        self.then.get(step, lambda: None)()

    def evaluated(self, step, values):
        self.list.append(("evaluate", step))

    def saved(self, step, seconds):
        self.list.append(("save", step))


class LoggedRun(RunFolder):
    """A run folder that tells when something is logged."""

    events: Events

    def log(self, step, images, values):
        super().log(step, images, values)
        kind = "log" if "train/loss" in values else "log evaluation"
        self.events.list.append((kind, step))


@pytest.fixture(autouse=True)
def _interrupts():
    """Ctrl-C as at a terminal: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def go(tmp_path, make_state, make_training, snapshot):
    """Return a function that trains in the run folder `name` and returns the events and the state."""

    def run(name="run", events=None, evaluators=None, source=None, state=None, resume=False, dropout=0.1, **changes):
        settings = make_training(**({"steps": 6} | changes))
        state = state or make_state(settings, dropout=dropout)
        source = source or Small()
        labels = source.labels % 3
        batches = TrainBatches(
            source, labels, state.model.image_spec, Augment(), settings.batch_size // settings.pieces, settings.seed
        )
        events = events or Events()
        opened = LoggedRun.reopen(tmp_path / name) if resume else LoggedRun.create(tmp_path / name, {}, {})
        opened.events = events
        with opened:
            if resume:
                opened.restore_checkpoint(state)
            try:
                train(state, batches, settings, opened, evaluators or {}, events)
            except BaseException as error:
                error.events, error.state = events.list, state  # pyright: ignore
                raise
        return events.list, state

    run.path = tmp_path
    return run


class Small(Digits):
    """Forty digits."""

    def __len__(self):
        return 40


class Rotten(Small):
    """Two of forty cannot be decoded."""

    def read(self, index):
        example = super().read(index)
        return example if index not in (3, 17) else type(example)(b"rot", example.label, f"cat/{index}.png")


def top1(model):
    return {"top1": 0.5, "loss": 1.0}


def test_the_order_is_evaluate_save_step_log(go):
    events, _ = go(evaluators={"test": top1}, steps=4, eval_every=2, checkpoint_every=2, log_every=2)
    assert events == [
        ("started", 0), ("log", 1), ("step", 1), ("log", 2), ("step", 2),
        ("log evaluation", 2), ("evaluate", 2), ("save", 2),
        ("log", 3), ("step", 3), ("log", 4), ("step", 4),
        ("log evaluation", 4), ("evaluate", 4), ("save", 4),
    ]  # fmt: skip


def test_without_intervals_only_the_end_is_evaluated_saved_and_logged(go):
    events, state = go(evaluators={"test": top1}, log_every=100)
    assert [event for event in events if event[0] != "step"] == [
        ("started", 0), ("log", 1), ("log", 6), ("log evaluation", 6), ("evaluate", 6), ("save", 6),
    ]  # fmt: skip
    assert state.step == 6


def test_the_log_has_what_can_be_verified_and_watchers_hear_at_their_interval_alone(go):
    """The first update and those after a checkpoint can be made again; speed is measured between the regular ones."""

    class Heard(Events):
        def waited(self, seconds):
            self.list.append(("wait", seconds >= 0))

        def logged(self, step, values):
            self.list.append(("hear", step))

    events, _ = go(events=Heard(), steps=9, checkpoint_every=4, log_every=3)
    assert [step for kind, step in events if kind == "log"] == [1, 3, 5, 6, 9]
    assert [step for kind, step in events if kind == "hear"] == [3, 6, 9]
    assert events.count(("wait", True)) == 9


def test_watchers_are_let_go_when_everything_is_done(go):
    class Closed(Events):
        def close(self):
            self.list.append(("close", 0))

    events, _ = go(events=Closed(), evaluators={"test": top1})
    assert events[-3:] == [("evaluate", 6), ("save", 6), ("close", 0)] and events.count(("close", 0)) == 1


def test_metrics_name_the_evaluation_and_count_the_images(go):
    go(evaluators={"val": top1, "test": top1}, steps=2)
    found = [(event["step"], event["images"], event["name"]) for event in read_metrics(go.path / "run")]
    train_names = ("train/loss", "train/grad_norm", "train/lr")
    eval_names = ("val/top1", "val/loss", "test/top1", "test/loss")
    assert found == [
        *((1, 8, name) for name in train_names),
        *((2, 16, name) for name in (*train_names, *eval_names)),
    ]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)])
def test_a_signal_writes_a_checkpoint_and_the_resumed_run_ends_as_if_there_had_been_none(
    go, number, code, snapshot, same
):
    before = signal.getsignal(number)
    events = Events({3: lambda: os.kill(os.getpid(), number)})
    with pytest.raises(Interrupted) as caught:
        go(events=events)
    assert caught.value.exit_code == code
    assert caught.value.step == 3 and caught.value.events[-2:] == [("step", 3), ("save", 3)]
    assert signal.getsignal(number) is before
    resumed, state = go(resume=True)
    assert resumed[0] == ("started", 3) and ("step", 3) not in resumed
    straight = go("straight")[1]
    assert same(snapshot(state), snapshot(straight))
    names = [f"{name}/metrics.jsonl" for name in ("run", "straight")]
    assert (go.path / names[0]).read_bytes() == (go.path / names[1]).read_bytes()


def test_a_second_signal_ends_at_once(go, monkeypatch):
    monkeypatch.setattr("vitlab.train.stop._ONE_REQUEST_SECONDS", 0.0)

    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        go(events=Events({3: twice}))
    assert ("save", 3) not in caught.value.events


def test_a_signal_before_the_first_step_leaves_a_run_that_starts_over(go, monkeypatch):
    class Impatient(Events):
        def started(self, step, steps, batch_size):
            super().started(step, steps, batch_size)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises((Interrupted, KeyboardInterrupt)):
        go(events=Impatient())
    assert go(resume=True)[1].step == 6


def test_a_run_that_is_at_its_end_is_left_as_it_is(go, snapshot, same):
    _, state = go()
    before = (go.path / "run" / "metrics.jsonl").read_bytes()
    events, again = go(resume=True)
    assert events == [("started", 6)] and same(snapshot(state), snapshot(again))
    assert (go.path / "run" / "metrics.jsonl").read_bytes() == before


def test_every_image_that_cannot_be_decoded_is_named_and_no_other(go):
    with pytest.raises(BadImagesError) as caught:
        go(source=Rotten(), steps=20)
    assert [error.where for error in caught.value.images] == ["cat/3.png", "cat/17.png"]
    assert "2 of 40 images" in str(caught.value)


def test_a_loss_that_is_no_number_stops_the_run_with_the_last_checkpoint_whole(go, monkeypatch, snapshot, same):
    from vitlab.train.objective import Softmax

    losses, calls = Softmax.losses, []

    def poisoned(objective, logits, labels, weights):
        calls.append(None)
        return losses(objective, logits, labels, weights) * (np.inf if len(calls) == 5 else 1)

    monkeypatch.setattr(Softmax, "losses", poisoned)
    with pytest.raises(NonFiniteError, match="step 4: loss inf"):
        go(checkpoint_every=2)
    resumed, state = go(resume=True)
    assert resumed[0] == ("started", 4)
    assert same(snapshot(state), snapshot(go("straight")[1]))


def test_one_bad_image_stops_nothing_in_the_error_of_another_kind(go, monkeypatch):
    def broken(*_, **__):
        raise ValueError("a bug")

    monkeypatch.setattr(loop, "train_step", broken)
    with pytest.raises(ValueError, match="a bug"):
        go()
    assert issubclass(BadImagesError, Exception) and not issubclass(ImageError, BadImagesError)


@pytest.fixture
def poisoned(monkeypatch):
    """Return a function that makes the losses of update number `bad` (from 1) infinite, or so many times as large."""
    from vitlab.train.objective import Softmax

    losses, calls = Softmax.losses, []

    def poison(bad, factor=np.inf):
        def changed(objective, logits, labels, weights):
            calls.append(None)
            return losses(objective, logits, labels, weights) * (factor if len(calls) == bad else 1)

        monkeypatch.setattr(Softmax, "losses", changed)

    return poison


def events_of(path):
    return [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]


def test_an_update_that_may_be_left_out_is_counted_and_its_images_are_named(go, poisoned, snapshot, same):
    poisoned(3)
    events, state = go(skip_nonfinite=1, checkpoint_every=2, log_every=1)
    assert state.step == 6 and state.skipped == 1 and ("step", 3) not in events and ("step", 4) in events
    (event,) = events_of(go.path / "run")
    assert (event["step"], event["name"], event["value"], len(event["images"])) == (3, "train/skipped", 1.0, 8)
    logged = [event["name"] for event in read_metrics(go.path / "run") if event["step"] == 3]
    assert logged == ["train/skipped"]
    assert not same(snapshot(state), snapshot(go("straight")[1]))


def test_one_more_than_may_be_left_out_stops_the_run(go, monkeypatch):
    from vitlab.train.objective import Softmax

    monkeypatch.setattr(Softmax, "losses", lambda objective, logits, *_: logits.sum(dim=1) * np.nan)
    with pytest.raises(NonFiniteError, match="step 2: ") as caught:
        go(skip_nonfinite=2)
    assert caught.value.state.skipped == 2


def test_how_many_were_left_out_survives_a_resume(go, poisoned):
    poisoned(2)
    with pytest.raises(Interrupted):
        go(events=Events({4: lambda: os.kill(os.getpid(), signal.SIGINT)}), skip_nonfinite=1)
    assert go(resume=True, skip_nonfinite=1)[1].skipped == 1


def test_a_loss_that_stands_out_is_logged_with_its_images(go, poisoned):
    poisoned(30, 100.0)
    _, state = go(steps=32, log_every=1)
    (event,) = events_of(go.path / "run")
    assert (event["step"], event["name"], len(event["images"])) == (30, "train/spike", 8)
    assert len(state.recent) == 32


def test_what_stands_out():
    steady = [1.0 + 0.01 * (index % 5) for index in range(40)]
    assert not is_spike(1.05, steady) and is_spike(1.2, steady) and not is_spike(0.1, steady)
    assert not is_spike(9.0, steady[:19]) and not is_spike(9.0, [1.0] * 40)
