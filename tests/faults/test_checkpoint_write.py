"""A checkpoint write that fails or dies at any operation leaves the old state or the new one, whole."""

import errno
import os
import resource
import signal
import warnings

import pytest
import torch

from tests.faults.injection import WHEN, Fault, litter
from vitlab.models.classifier import build
from vitlab.models.vit import ViTSettings
from vitlab.nn.patches import Patches
from vitlab.train import checkpoint
from vitlab.train.config import TrainSettings
from vitlab.train.optimizer import Adam
from vitlab.train.state import TrainState

SHAPE = ViTSettings(
    image_size=(8, 8), stem=Patches(patch_size=(4, 4)), width=16, depth=1, num_heads=2, mlp_dim=16, num_classes=3
)
OPERATIONS = range(1, 13)
"""More than a write has; the last ones change nothing, which shows that every one was reached."""


def state_at(step):
    """Return a state whose every number says its step."""
    state = TrainState.start(build(SHAPE, classes=("a", "b", "c")), TrainSettings(optimizer=Adam()))
    for group in state.optimizer.param_groups:
        group["lr"] = 0.1
    for parameter in state.model.parameters():
        parameter.grad = torch.full_like(parameter, float(step))
    state.optimizer.step()
    with torch.no_grad():
        for parameter in state.model.parameters():
            parameter.fill_(float(step))
    state.step = step
    return state


def whole(found):
    """Return the step of a checkpoint, after a check that all of it is of that step."""
    assert found.metrics_bytes == 10 * found.step
    assert all((tensor == found.step).all() for tensor in found.parameters.values())
    momenta = [tensor for name, tensor in found.optimizer.items() if name.endswith("/exp_avg")]
    assert momenta
    for tensor in momenta:
        torch.testing.assert_close(tensor, torch.full_like(tensor, 0.1 * found.step))
    return found.step


def write(folder, step):
    return checkpoint.write(folder, state_at(step), 10 * step)


def check_after_fault(folder, old, new):
    """Read as a resumed run does, then write on: everything is whole, and nothing is left lying about."""
    found = checkpoint.read(folder)
    assert (0 if found is None else whole(found)) in (old, new)
    assert litter(folder) == []
    write(folder, new)
    write(folder, new + 1)
    again = checkpoint.read(folder)
    assert whole(again) == new + 1 and litter(folder) == []
    assert len(checkpoint.steps(folder)) == checkpoint.KEEP


def begin(folder, count):
    for step in range(1, count + 1):
        write(folder, step)


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("code", [errno.ENOSPC, pytest.param(errno.EIO, marks=pytest.mark.slow)])
@pytest.mark.parametrize("when", WHEN)
def test_an_error_at_any_operation_leaves_the_old_or_the_new_state(tmp_path, monkeypatch, when, code, count):
    reached = set()
    for at in OPERATIONS:
        folder = tmp_path / str(at)
        folder.mkdir()
        begin(folder, count)
        with monkeypatch.context() as patch:
            fault = Fault(patch, at, when, code)
            try:
                write(folder, count + 1)
            except OSError as error:
                assert error.errno == code
                reached.add(at)
        assert len(fault.names) >= at or at not in reached
        check_after_fault(folder, count, count + 1)
    assert reached == set(range(1, len(reached) + 1)) and len(reached) >= 9
    assert max(OPERATIONS) not in reached


def in_child(act):
    """Run `act` in a process of its own and return its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside torch's threads, which it does not use
        pid = os.fork()
    if pid == 0:
        code = 255
        try:
            act()
            code = 0
        except OSError as error:
            code = error.errno
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("when", WHEN)
def test_a_process_that_dies_at_any_operation_leaves_the_old_or_the_new_state(tmp_path, monkeypatch, when):
    died = set()
    for at in OPERATIONS:
        folder = tmp_path / str(at)
        folder.mkdir()
        begin(folder, 2)
        new = state_at(3)
        with monkeypatch.context() as patch:
            Fault(patch, at, when, None)
            code = in_child(lambda: checkpoint.write(folder, new, 30))  # noqa: B023
        assert code in (0, 9)
        if code:
            died.add(at)
        check_after_fault(folder, 2, 3)
    assert died == set(range(1, len(died) + 1)) and len(died) >= 9


def test_a_death_while_a_damaged_checkpoint_is_replaced_leaves_the_old_or_the_new_state(tmp_path, monkeypatch):
    for at in OPERATIONS:
        for when in WHEN:
            folder = tmp_path / f"{at}-{when}"
            folder.mkdir()
            begin(folder, 2)
            (folder / "step-000002" / checkpoint.MODEL).write_bytes(b"rot")
            new = state_at(2)
            with monkeypatch.context() as patch:
                Fault(patch, at, when, None)
                in_child(lambda: checkpoint.write(folder, new, 20))  # noqa: B023
            assert whole(checkpoint.read(folder)) in (1, 2)


@pytest.mark.parametrize("limit", [0, 100, 5_000, 10_000, 20_000])
def test_a_full_disk_is_an_error_and_leaves_the_old_state(tmp_path, limit):
    """The real calls fail here: no file may grow beyond `limit` bytes."""
    begin(tmp_path, 2)
    new = state_at(3)

    def fill():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        checkpoint.write(tmp_path, new, 30)

    assert in_child(fill) == errno.EFBIG
    assert whole(checkpoint.read(tmp_path)) == 2
    check_after_fault(tmp_path, 2, 3)


def test_the_checksums_are_written_last_and_old_checkpoints_deleted_after_the_new_one_is_in_place(
    tmp_path, monkeypatch
):
    begin(tmp_path, 2)
    seen = []
    for name in ("write_bytes", "flush_folder", "rename", "remove"):
        real = getattr(checkpoint.files, name)

        def told(path, *rest, name=name, real=real):
            seen.append((name, path.name))
            return real(path, *rest)

        monkeypatch.setattr(checkpoint.files, name, told)
    write(tmp_path, 3)
    written = [path for name, path in seen if name == "write_bytes"]
    assert written[-1] == checkpoint.MANIFEST and len(written) == 4
    order = [
        seen.index(("write_bytes", checkpoint.MANIFEST)),
        seen.index(("flush_folder", ".step-000003.part")),
        seen.index(("rename", ".step-000003.part")),
        seen.index(("flush_folder", tmp_path.name)),
        seen.index(("remove", "step-000001")),
    ]
    assert order == sorted(order)
