"""A run that is killed and resumed ends bit for bit as one that was not."""

import json
import signal

import pytest

DETAILED = {"checkpoint_every": 4, "eval_every": 8, "seed": 3}


def contents(folder):
    """Return the bytes of everything that a run leaves, by name, but for who had it and how long it took."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("LOCK", "timing.jsonl"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="session")
def straight(runs, tmp_path_factory):
    """Return what an uninterrupted run leaves, for a number of steps."""
    known = {}

    def run(steps):
        if steps not in known:
            folder = tmp_path_factory.mktemp("straight") / "run"
            status, events = runs("start", folder, steps=steps, **DETAILED)
            assert status == 0
            assert ("evaluated", "8") in events and ("saved", "4") in events
            known[steps] = contents(folder)
        return known[steps]

    return run


def check(runs, straight, folder, kills, steps, luck):
    ends, begun = runs.killed_often(folder, kills, luck, steps=steps, **DETAILED)
    assert ends.count(-signal.SIGKILL) >= 0.8 * kills
    assert len(set(begun)) > 2, "every run began at the same step: nothing was resumed"
    status, _ = runs("resume", folder)
    assert status == 0
    found, expected = contents(folder), straight(steps)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    for name in ("model.safetensors", "metrics.jsonl", f"checkpoints/step-{steps:06d}/optimizer.safetensors"):
        assert name in expected


@pytest.mark.parametrize("luck", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_killed_again_and_again_ends_as_an_uninterrupted_one(runs, straight, tmp_path, luck):
    check(runs, straight, tmp_path / "run", kills=7, steps=60, luck=luck)


@pytest.mark.slow
@pytest.mark.parametrize("luck", range(100, 104))
def test_a_run_killed_thirty_times_ends_as_an_uninterrupted_one(runs, straight, tmp_path, luck):
    check(runs, straight, tmp_path / "run", kills=30, steps=240, luck=luck)


def test_other_settings_end_otherwise(runs, straight, tmp_path):
    """The comparison can fail: dropout, augmentation, order and weights follow from the seed."""
    runs("start", tmp_path / "run", steps=60, **DETAILED | {"seed": 4})
    assert contents(tmp_path / "run")["model.safetensors"] != straight(60)["model.safetensors"]


def test_a_resumed_run_goes_on_from_its_newest_checkpoint_and_repeats_nothing_before_it(runs, straight, tmp_path):
    status, events = runs("start", tmp_path / "run", kill_after=12, delay=0.0, steps=60, **DETAILED)
    assert status == -signal.SIGKILL and ("stepped", "5") in events
    status, events = runs("resume", tmp_path / "run")
    begun = int(dict(events)["started"])
    assert status == 0 and begun % 4 == 0 and begun >= 4
    assert [int(rest) for word, rest in events if word == "stepped"] == list(range(begun + 1, 61))


@pytest.mark.parametrize("victim", ["optimizer.safetensors", pytest.param("manifest.json", marks=pytest.mark.slow)])
def test_a_run_whose_newest_checkpoint_has_rotted_ends_the_same_and_says_so(runs, straight, tmp_path, victim):
    folder = tmp_path / "run"
    status, _ = runs("start", folder, kill_after=20, steps=60, **DETAILED)
    assert status == -signal.SIGKILL
    newest = max((folder / "checkpoints").glob("step-*"))
    path = newest / victim
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    status, events = runs("resume", folder)
    said = [rest for word, rest in events if word == "said"]
    assert status == 0 and any(
        line.startswith("damaged checkpoint left out: ") and str(newest) in line for line in said
    )
    assert contents(folder) == straight(60)


def test_a_finished_run_is_left_as_it_is(runs, straight, tmp_path):
    folder = tmp_path / "run"
    runs("start", folder, steps=60, **DETAILED)
    status, events = runs("resume", folder)
    assert status == 0 and events == [("said", f"{folder} is finished; nothing to resume")]
    assert contents(folder) == straight(60)


def test_a_run_killed_between_its_last_checkpoint_and_its_model_still_gets_the_model(runs, straight, tmp_path):
    folder = tmp_path / "run"
    runs("start", folder, steps=60, **DETAILED)
    (folder / "model.safetensors").unlink()
    (folder / ".model.safetensors.part").write_bytes(b"half")
    status, _ = runs("resume", folder)
    assert status == 0 and contents(folder) == straight(60)


def test_every_step_of_a_killed_run_is_in_the_metrics_once(straight):
    events = [json.loads(line) for line in straight(60)["metrics.jsonl"].splitlines()]
    logged = [event["step"] for event in events if event["name"] == "train/loss"]
    evaluated = [event["step"] for event in events if event["name"] == "test/top1"]
    assert logged == sorted({*range(3, 61, 3), *range(1, 61, 4)})
    assert evaluated == [*range(8, 60, 8), 60]
