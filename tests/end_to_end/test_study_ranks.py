"""`vitlab study run` under torchrun: two ranks train each piece together."""

import json
import subprocess
import sys

import pytest

from tests.end_to_end.conftest import environment
from tests.end_to_end.test_study import write


def together(own, out, *more):
    """Return how the study ends on two ranks, and what they say."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "vitlab", "study", "run", str(own), "--out", str(out), *more]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


def losses(out, width):
    (run,) = (out / "pieces").glob(f"width-{width}-*")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["value"] for line in lines if line["name"] == "train/loss"]


@pytest.mark.slow
def test_two_ranks_train_each_piece_together_to_the_same_numbers(within, tmp_path):
    own = write(tmp_path)
    code, said = together(own, tmp_path / "both")
    assert code == 0, said
    assert "1 at once, each on 2 devices" in said and "widths  agrees" in said
    assert within("study", "run", own, "--out", tmp_path / "alone", "--processes", 1).code == 0
    for width in (8, 16, 24):
        assert losses(tmp_path / "both", width) == pytest.approx(losses(tmp_path / "alone", width), rel=1e-4)
    (run,) = (tmp_path / "both" / "pieces").glob("width-8-*")
    assert json.loads((run / "config.json").read_text())["train"]["micro_batch_size"] == 32  # half a batch each
    assert within("study", "run", own, "--out", tmp_path / "both").code == 0  # finished by whichever number


@pytest.mark.slow
def test_a_piece_that_fails_ends_the_ranks_and_comes_last_the_next_time(tmp_path):
    own, out = write(tmp_path, right="models[0].settings.width != 8"), tmp_path / "out"
    code, said = together(own, out)
    assert code == 1 and "read-8" in said and "AssertionError: not as wide" in said, said
    code, said = together(own, out)
    assert code == 1 and "done     read-24" in said, said


@pytest.mark.slow
def test_pieces_at_once_are_not_for_ranks(tmp_path):
    code, said = together(write(tmp_path), tmp_path / "out", "--processes", "2")
    assert code == 1 and "under torchrun all devices train one together" in said, said  # torchrun's own code
