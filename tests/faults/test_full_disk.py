"""A disk that is full: said before training, and survived during it."""

import errno
import json
import logging
import shutil
from collections import namedtuple

import pytest

from tests.faults.injection import Fault
from vitlab import files
from vitlab.errors import CheckpointError, RunFolderError
from vitlab.models.classifier import build
from vitlab.models.vit import ViTSettings
from vitlab.nn.patches import Patches
from vitlab.train.config import TrainSettings
from vitlab.train.optimizer import SGD, Adam
from vitlab.train.run import RunFolder
from vitlab.train.space import check_space, checkpoint_bytes, lacking
from vitlab.train.state import TrainState

SHAPE = ViTSettings(
    image_size=(16, 16), stem=Patches(patch_size=(8, 8)), width=16, depth=1, num_heads=2, mlp_dim=32, num_classes=3
)
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def state():
    return TrainState.start(build(SHAPE, seed=0, classes=("a", "b", "c")), TrainSettings(steps=4, batch_size=8))


@pytest.fixture
def run(tmp_path):
    with RunFolder.create(tmp_path / "run", {}, {}) as opened:
        yield opened


def names(run):
    return sorted(path.name for path in (run.path / "checkpoints").iterdir())


def save(run, state, step):
    state.step = step
    run.save_checkpoint(state)
    run.wait_for_checkpoint()


def operations_of_a_checkpoint(monkeypatch, run, state):
    with monkeypatch.context() as patch:
        counted = Fault(patch)
        save(run, state, 1)
    return len(counted.names)


def test_at_any_operation_the_old_checkpoint_stays_and_the_next_one_is_tried_again(monkeypatch, run, state, caplog):
    last = operations_of_a_checkpoint(monkeypatch, run, state)
    assert last > 8
    for at in range(1, last + 1):
        caplog.clear()
        with monkeypatch.context() as patch:
            Fault(patch, at, "half", errno.ENOSPC)
            save(run, state, 10 * at)  # training goes on
            warned = [record.message for record in caplog.records if record.levelno == logging.WARNING]
            assert warned == [
                f"{run.path / 'checkpoints'}: a checkpoint could not be written (No space left on device); training goes on"
            ]
            assert len(names(run)) >= 1 and not [name for name in names(run) if name.startswith(".")]
            save(run, state, 10 * at + 1)
        run.finish_checkpoint()
        assert f"step-{10 * at + 1:06d}" in names(run)


def test_a_disk_that_stays_full_fails_the_run_at_its_end_and_not_before(monkeypatch, run, state):
    save(run, state, 1)
    Fault(monkeypatch)
    monkeypatch.setattr(files, "write_bytes", full)
    for step in (2, 3):
        save(run, state, step)
    with pytest.raises(
        CheckpointError, match=r"the last checkpoint could not be written \(No space.*; make room, and go on"
    ):
        run.finish_checkpoint()
    assert names(run) == ["step-000001"]


def full(path, data):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_metrics_wait_until_there_is_room(tmp_path, caplog):
    folder = tmp_path / "run"
    with RunFolder.create(folder, {}, {}) as run:
        run.log(1, 8, {"train/loss": 1.0})
        real, run._metrics = run._metrics, open("/dev/full", "ab", buffering=0)  # noqa: SIM115
        run.log(2, 16, {"train/loss": 2.0})
        assert "metrics.jsonl: cannot be written (No space left on device); training goes on" in caplog.text
        run._metrics.close()
        run._metrics = real
        run.log(3, 24, {"train/loss": 3.0})
    assert [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]


@pytest.mark.parametrize("optimizer", [SGD(), Adam()])
def test_the_size_of_a_checkpoint_is_known_before(run, optimizer):
    settings = TrainSettings(steps=4, batch_size=8, optimizer=optimizer)
    model = build(SHAPE.model_copy(update={"width": 64, "mlp_dim": 256}), seed=0, classes=("a", "b", "c"))
    state = TrainState.start(model, settings)
    for parameter in state.parameters():
        parameter.grad = parameter.detach().clone()
    state.optimizer.found_inf = state.refused
    state.optimizer.step()
    save(run, state, 1)
    written = sum(path.stat().st_size for path in (run.path / "checkpoints" / "step-000001").glob("*.safetensors"))
    assert checkpoint_bytes(model, settings) == pytest.approx(written, rel=0.1)


def test_a_run_without_room_for_two_checkpoints_is_refused_before_it_begins(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 0, 199_000_000))
    with pytest.raises(
        RunFolderError, match=r"its disk has 199 MB left, where two checkpoints of 100 MB do not fit; make room"
    ):
        check_space(tmp_path / "not" / "there", 100_000_000)
    assert lacking(tmp_path, 99_000_000) is None
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 0))  # a drive that does not say
    check_space(tmp_path, 100_000_000)
