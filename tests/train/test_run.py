import errno
import fcntl
import json
import multiprocessing
import os
import signal
import warnings

import pytest

from tests.faults.injection import WHEN, Fault
from vitlab.errors import CheckpointError, RunFolderError
from vitlab.train.run import CONFIG, METRICS, RunFolder, read_metrics


def create(path):
    return RunFolder.create(path, {"lr": 0.1}, {"threads": 1})


def test_a_new_folder_holds_its_settings_before_anything_else_happens(tmp_path):
    with create(tmp_path / "deep" / "run") as run:
        assert run.config() == {"lr": 0.1} and run.environment() == {"threads": 1}
        assert not run.finished


@pytest.mark.parametrize("content", ["config.json", "photo.jpg"])
def test_a_folder_with_anything_in_it_is_refused_and_left_alone(tmp_path, content):
    (tmp_path / content).write_text("mine")
    with pytest.raises(
        RunFolderError, match="already exists; choose another --out, or continue that run with --resume"
    ):
        create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [content] and (tmp_path / content).read_text() == "mine"


def test_an_empty_folder_may_be_used(tmp_path):
    create(tmp_path).close()
    assert (tmp_path / CONFIG).exists()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(RunFolderError, match="already exists"):
        create(tmp_path / "run")


def test_a_folder_that_cannot_be_made_is_named_with_the_reason(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunFolderError) as caught:
        create(tmp_path / "file" / "run")
    assert (
        str(caught.value) == f"{tmp_path / 'file' / 'run'}: cannot be written (Not a directory); choose another --out"
    )
    assert caught.value.exit_code == 2


def test_a_folder_without_settings_is_no_run(tmp_path):
    with pytest.raises(RunFolderError, match="is not a run"):
        RunFolder.reopen(tmp_path)
    with pytest.raises(RunFolderError, match="is not a run"):
        RunFolder.reopen(tmp_path / "missing")


@pytest.mark.parametrize("at", range(1, 7))
@pytest.mark.parametrize("when", WHEN)
def test_a_creation_that_fails_anywhere_can_be_repeated_or_continued(tmp_path, monkeypatch, when, at):
    with monkeypatch.context() as patch:
        Fault(patch, at, when, errno.ENOSPC)
        with pytest.raises(RunFolderError, match="No space left on device"):
            create(tmp_path / "run")
    try:
        create(tmp_path / "run").close()
    except RunFolderError:
        RunFolder.reopen(tmp_path / "run").close()


class Child:
    """A second process that opens a run and then waits to be killed."""

    def __init__(self, act):
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside torch's threads, which it does not use
            self.pid = os.fork()
        if self.pid == 0:
            try:
                held = act()
                os.write(writer, b"1")
                signal.pause()
                held.close()
            finally:
                os._exit(1)
        os.close(writer)
        assert os.read(reader, 1) == b"1"
        os.close(reader)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def test_a_second_process_is_kept_out_and_told_who_is_inside_until_that_one_dies(tmp_path):
    child = Child(lambda: create(tmp_path / "run"))
    try:
        with pytest.raises(RunFolderError, match=f"is in use by process {child.pid} on .*; wait for it, or choose"):
            RunFolder.reopen(tmp_path / "run")
        with pytest.raises(RunFolderError, match=r"already exists|is in use"):
            create(tmp_path / "run")
    finally:
        child.kill()
    with RunFolder.reopen(tmp_path / "run") as run:
        assert run.config() == {"lr": 0.1}
        assert f"process {os.getpid()} on" in (tmp_path / "run" / "LOCK").read_text()


def test_a_worker_that_outlives_a_killed_run_does_not_keep_it_in_use(tmp_path):
    workers = tmp_path / "worker"

    def act():
        run = create(tmp_path / "run")
        pid = os.fork()
        if pid == 0:
            signal.pause()
        workers.write_text(str(pid))
        return run

    Child(act).kill()
    worker = int(workers.read_text())
    try:
        os.kill(worker, 0)
        RunFolder.reopen(tmp_path / "run").close()
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_run_that_was_closed_can_be_opened_again(tmp_path):
    create(tmp_path / "run").close()
    RunFolder.reopen(tmp_path / "run").close()
    RunFolder.reopen(tmp_path / "run").close()


def test_a_folder_that_holds_only_the_lock_of_a_dead_process_may_be_used(tmp_path):
    (tmp_path / "LOCK").write_text("process 1 on elsewhere")
    create(tmp_path).close()


def test_a_folder_whose_lock_another_holds_is_left_alone(tmp_path):
    with (tmp_path / "LOCK").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunFolderError, match="is in use by another process"):
            create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["LOCK"]


def test_every_value_is_a_line_of_its_own(tmp_path):
    with create(tmp_path / "run") as run:
        run.log(3, 24, {"train/loss": 0.5, "train/lr": 0.1})
    lines = (tmp_path / "run" / METRICS).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 3, "images": 24, "name": "train/loss", "value": 0.5},
        {"step": 3, "images": 24, "name": "train/lr", "value": 0.1},
    ]


def test_a_last_line_that_was_cut_short_is_left_out(tmp_path):
    with create(tmp_path / "run") as run:
        run.log(1, 8, {"a": 1.0})
        run.log(2, 16, {"a": 2.0})
    path = tmp_path / "run" / METRICS
    path.write_bytes(path.read_bytes()[:-5])
    assert [event["step"] for event in read_metrics(tmp_path / "run")] == [1]


def steps_logged(path):
    assert b"\0" not in (path / METRICS).read_bytes()
    return [event["step"] for event in read_metrics(path)]


def logged(run, state, last):
    for step in range(state.step + 1, last + 1):
        state.step = step
        run.log(step, 0, {"loss": 1.0})


def test_metrics_are_cut_to_what_belongs_to_the_checkpoint(tmp_path, make_state):
    state = make_state()
    with create(tmp_path / "run") as run:
        logged(run, state, 3)
        run.save_checkpoint(state)
        logged(run, state, 5)
    state = make_state()
    with RunFolder.reopen(tmp_path / "run") as run:
        assert run.restore_checkpoint(state) == () and state.step == 3
        assert steps_logged(tmp_path / "run") == [1, 2, 3]
        logged(run, state, 5)
    assert steps_logged(tmp_path / "run") == [1, 2, 3, 4, 5]


def test_metrics_of_a_run_that_never_saved_are_cut_to_nothing(tmp_path, make_state):
    state = make_state()
    with create(tmp_path / "run") as run:
        logged(run, state, 2)
    state = make_state()
    with RunFolder.reopen(tmp_path / "run") as run:
        assert run.restore_checkpoint(state) == () and state.step == 0
        assert steps_logged(tmp_path / "run") == []


def test_a_checkpoint_saved_right_after_a_cut_counts_the_metrics_that_are_left(tmp_path, make_state):
    """Saved at 3, logged to 5, killed; resumed and interrupted before anything is logged; resumed again."""
    state = make_state()
    with create(tmp_path / "run") as run:
        logged(run, state, 3)
        run.save_checkpoint(state)
        logged(run, state, 5)
    for last in (3, 6):
        state = make_state()
        with RunFolder.reopen(tmp_path / "run") as run:
            run.restore_checkpoint(state)
            logged(run, state, last)
            state.step += 1
            run.save_checkpoint(state)
    assert steps_logged(tmp_path / "run") == [1, 2, 3, 5, 6]


def test_metrics_that_somebody_has_shortened_are_said_and_get_no_zeros(tmp_path, make_state, caplog):
    state = make_state()
    with create(tmp_path / "run") as run:
        logged(run, state, 3)
        run.save_checkpoint(state)
    path = tmp_path / "run" / METRICS
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))
    with RunFolder.reopen(tmp_path / "run") as run:
        run.restore_checkpoint(state)
        logged(run, state, 4)
    assert steps_logged(tmp_path / "run") == [1, 4] and "bytes of it are missing" in caplog.text


def test_a_damaged_checkpoint_is_said_and_the_metrics_go_back_with_the_state(tmp_path, make_state):
    state = make_state()
    with create(tmp_path / "run") as run:
        for last in (2, 4):
            logged(run, state, last)
            run.save_checkpoint(state)
    model = tmp_path / "run" / "checkpoints" / "step-000004" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1])
    state = make_state()
    with RunFolder.reopen(tmp_path / "run") as run:
        (reason,) = run.restore_checkpoint(state)
    assert str(model) in reason and state.step == 2 and steps_logged(tmp_path / "run") == [1, 2]
    for path in (tmp_path / "run" / "checkpoints").glob("*/model.safetensors"):
        path.write_bytes(b"")
    with RunFolder.reopen(tmp_path / "run") as run, pytest.raises(CheckpointError):
        run.restore_checkpoint(state)
    assert steps_logged(tmp_path / "run") == [1, 2]


def test_a_run_is_finished_when_its_model_is_whole(tmp_path, make_state, monkeypatch):
    state = make_state()
    with create(tmp_path / "run") as run:
        with monkeypatch.context() as patch:
            Fault(patch, 1, "half", errno.ENOSPC)
            with pytest.raises(CheckpointError, match=r"model.safetensors: cannot be written \(No space.*make room"):
                run.save_model(state)
        assert not run.finished
        run.save_model(state)
        assert run.finished


def begin(path, barrier, answers):
    """Try to make the run at the moment when all others do, and hold it for a while."""
    barrier.wait()
    try:
        with create(path):
            answers.put("proceeds")
            barrier.wait()
    except RunFolderError as error:
        answers.put(str(error))
        barrier.wait()


def test_of_twenty_starts_in_one_folder_exactly_one_proceeds(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(20), context.Queue()
    starts = [context.Process(target=begin, args=(tmp_path / "run", barrier, answers)) for _ in range(20)]
    for start in starts:
        start.start()
    said = [answers.get(timeout=60) for _ in starts]
    for start in starts:
        start.join()
    assert said.count("proceeds") == 1
    assert all("already exists" in line or "is in use by" in line for line in said if line != "proceeds")
