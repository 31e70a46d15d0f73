import json
import sys
import types

import pytest

from vitlab.errors import SettingsError
from vitlab.train.tracking import TensorBoard, WeightsAndBiases, check_installed

CONFIG = {"train": {"lr": 0.1}}


class FakeRun:
    """Remembers what is logged; its connection may break."""

    def __init__(self):
        self.logged, self.finished, self.broken = [], 0, False

    def log(self, values, step):
        if self.broken:
            raise BrokenPipeError("the service is gone")
        self.logged.append((step, values))

    def finish(self):
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for the package, which needs an account or its own service."""
    module = types.ModuleType("wandb")
    module.Error = type("Error", (Exception,), {})
    module.Settings = lambda **settings: settings
    module.calls, module.run = [], FakeRun()

    def init(**options):
        module.calls.append(options)
        return module.run

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_a_run_is_sent_with_its_project_its_settings_and_everything_that_is_logged(wandb, tmp_path):
    watcher = WeightsAndBiases(tmp_path, "pets", CONFIG)
    watcher.logged(10, {"train/loss": 1.0})
    watcher.evaluated(10, {"test/top1": 0.5})
    watcher.noted(11, "train/spike", 9.0)
    watcher.close()
    (options,) = wandb.calls
    assert options["project"] == "pets" and options["name"] == tmp_path.name and options["config"] == CONFIG
    assert options["dir"] == str(tmp_path) and options["resume"] == "allow"
    assert wandb.run.logged == [(10, {"train/loss": 1.0}), (10, {"test/top1": 0.5}), (11, {"train/spike": 9.0})]
    assert wandb.run.finished == 1
    watcher.logged(20, {"train/loss": 1.0})
    watcher.close()
    assert len(wandb.run.logged) == 3 and wandb.run.finished == 1


def test_a_resumed_run_is_the_same_run_there(wandb, tmp_path):
    for _ in range(2):
        WeightsAndBiases(tmp_path, "pets", CONFIG).close()
    first, second = (call["id"] for call in wandb.calls)
    assert first == second == json.loads((tmp_path / "wandb.json").read_text())["id"]
    other = tmp_path / "other"
    other.mkdir()
    WeightsAndBiases(other, "pets", CONFIG).close()
    assert wandb.calls[-1]["id"] != first


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}"])
def test_a_damaged_id_begins_a_new_run_there(wandb, tmp_path, damage):
    (tmp_path / "wandb.json").write_text(damage)
    WeightsAndBiases(tmp_path, "pets", CONFIG).close()
    assert wandb.calls[0]["id"] == json.loads((tmp_path / "wandb.json").read_text())["id"]


def test_what_breaks_there_is_said_once_and_breaks_nothing_here(wandb, tmp_path, caplog):
    watcher = WeightsAndBiases(tmp_path, "pets", CONFIG)
    wandb.run.broken = True
    for step in (1, 2, 3):
        watcher.logged(step, {"train/loss": 1.0})
    watcher.close()
    assert caplog.messages == ["wandb gets no more of this run: the service is gone"]


def test_a_refusal_to_start_is_one_line_that_says_what_to_do(wandb, tmp_path, monkeypatch):
    def refuse(**_):
        raise wandb.Error("No API key configured.")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(SettingsError, match=r"^--wandb: No API key configured; set WANDB_MODE=offline"):
        WeightsAndBiases(tmp_path, "pets", CONFIG)


def test_a_package_that_is_missing_is_named_with_how_to_get_it(monkeypatch):
    monkeypatch.setattr("vitlab.train.tracking.find_spec", lambda name: None if name == "wandb" else object())
    check_installed(tensorboard=True, wandb=False)
    with pytest.raises(SettingsError, match=r"--wandb: is not installed; pip install 'vitlab\[wandb\]'"):
        check_installed(tensorboard=True, wandb=True)


def test_tensorboard_gets_every_value_once_also_of_a_run_that_was_resumed(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for begun, steps in ((0, (1, 2, 3, 4)), (2, (3, 4, 5))):  # killed after 4, the checkpoint was of 2
        watcher = TensorBoard(tmp_path, begun)
        for step in steps:
            watcher.logged(step, {"train/loss": float(step)})
        watcher.evaluated(steps[-1], {"test/top1": 0.5})
        watcher.close()
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [event.step for event in found.Scalars("train/loss")] == [1, 2, 3, 4, 5]
    assert [event.step for event in found.Scalars("test/top1")] == [5]
