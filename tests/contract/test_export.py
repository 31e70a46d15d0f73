import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import vitlab
from tests.contract.examples import EXAMPLES, ODD, SQUARE
from tests.end_to_end.conftest import environment

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("size", [ODD, SQUARE], ids=str)
def test_every_model_exports_with_a_batch_of_any_size(size):
    sources = os.pathsep.join([str(ROOT), str(Path(vitlab.__file__).parents[1])])
    command = [sys.executable, "-m", "tests.contract.exporting", str(size.height), str(size.width)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment() | {"PYTHONPATH": sources}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    problems = json.loads(done.stdout)
    assert list(problems) == [example.name for example in EXAMPLES]
    assert {name: problem for name, problem in problems.items() if problem} == {}
