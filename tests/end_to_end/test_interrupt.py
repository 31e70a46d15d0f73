"""Ctrl-C in a terminal, and a machine that is shut down: the run stops with a checkpoint and can be continued."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

from tests.end_to_end.conftest import TINY, environment, vitlab


def begin(out, *arguments):
    """Start a run in a process group of its own, as a terminal does, and return it when it has saved once."""
    command = [sys.executable, "-m", "vitlab", *map(str, arguments), "--out", str(out)]
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list(out.glob("checkpoints/step-*")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_run_interrupted_with_its_workers_saves_and_goes_on_by_the_command_it_prints(photos, tmp_path, number):
    options = ("--steps", 150, "--checkpoint-every", 10, "--eval-every", 75, *TINY, "--workers", 1)
    process = begin(tmp_path / "run", "finetune", photos, *options)
    os.killpg(process.pid, number)
    _, said = process.communicate()
    assert process.returncode == (130 if number == signal.SIGINT else 75), said
    assert "Traceback" not in said and said.splitlines()[-1].startswith("interrupted at step ")
    found = re.search(r"interrupted at step (\d+); continue with: vitlab (.*)", said)
    step, command = int(found[1]), shlex.split(found[2])
    assert (tmp_path / "run" / "checkpoints" / f"step-{step:06d}").is_dir()
    assert not (tmp_path / "run" / "model.safetensors").exists()
    done = vitlab(*command)
    assert done.code == 0 and f"resuming at step {step} of 150" in done.err, done.err
    events = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = sorted({*range(10, 151, 10), *range(1, 150, 10)})  # every tenth, and what `verify` makes again
    assert [event["step"] for event in events if event["name"] == "train/loss"] == steps
    assert (tmp_path / "run" / "model.safetensors").exists() and (tmp_path / "run" / "report" / "index.html").exists()


def test_ctrl_c_while_the_command_line_is_loaded_ends_in_one_line(tmp_path):
    (tmp_path / "typer.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = environment() | {"PYTHONPATH": os.pathsep.join(paths)}
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from vitlab.__main__ import run; run()"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
