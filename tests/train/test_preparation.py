"""A model is set up for training, and is as it was afterwards."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vitlab.errors import SettingsError
from vitlab.nn.remat import stacks
from vitlab.train.config import TrainSettings
from vitlab.train.preparation import check_compiler, prepared


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_layers_compute_the_same(backend):
    program = Path(__file__).with_name("compiling.py")
    done = subprocess.run([sys.executable, program, backend], capture_output=True, text=True, check=False)
    assert done.stdout.endswith("the same\n"), done.stderr


def test_layers_are_recomputed_only_while_training(make_state):
    model = make_state().model
    with prepared(model, TrainSettings(remat=True)):
        assert all(stack.remat for stack in stacks(model))
    assert not any(stack.remat for stack in stacks(model))


@pytest.mark.parametrize(("device", "variable", "missing"), [("cpu", "CXX", r"C\+\+"), ("cuda", "CC", "C")])
def test_what_cannot_compile_is_refused_at_once(device, variable, missing, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(SettingsError, match=f"--compile: needs a {missing} compiler, and there is none; install g"):
        check_compiler(TrainSettings(compile=True), torch.device(device))
    check_compiler(TrainSettings(), torch.device(device))
