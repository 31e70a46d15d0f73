"""What the README shows is true: its code runs, its commands exist, its links lead somewhere."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitlab.weights.hub import published

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```([^\n]*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [code for info, code in BLOCKS if info.startswith("python")]
RUNNING = [code for info, code in BLOCKS if info == "python"]
SHELL = [
    shlex.split(line, comments=True)
    for info, code in BLOCKS
    if info in ("", "bash", "sh")
    for line in code.splitlines()
]
COMMANDS = [words[1:] for words in SHELL if words[:1] == ["vitlab"]]
TINY = (
    "model.width=16",
    "model.num_heads=2",
    "model.depth=2",
    "model.mlp_dim=32",
    "train.steps=2",
    "train.batch_size=8",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what the README names: photos of three classes, more of them, and one."""
    folder = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(0)
    for number, name in enumerate(["cat", "dog", "owl"]):
        for index in range(10):
            for path in (folder / "photos" / name / f"{index}.jpg", folder / "more-photos" / f"{name}{index}.jpg"):
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 80, (48, 64, 3))
                pixels[..., number] += 150
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    lines = [f"photos/{name}/{index}.jpg,{name}|pet" for name in ("cat", "dog") for index in range(10)]
    (folder / "photos.csv").write_text("\n".join(["path,labels", *lines]))
    (folder / "cat.jpg").write_bytes((folder / "photos" / "cat" / "0.jpg").read_bytes())
    return folder


def run_python(code, cwd):
    env = os.environ | {"OMP_NUM_THREADS": "1", "VITLAB_CACHE": str(cwd / "cache")}
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True)


def test_the_readme_shows_code_and_commands():
    assert RUNNING and len(COMMANDS) >= 5


def test_every_python_block_is_python():
    for code in PYTHON:
        compile(code, "README.md", "exec")


def test_every_public_name_in_the_readme_is_there():
    import vitlab

    for name in re.findall(r"\bvit\.(\w+)", "\n".join(PYTHON)):
        assert name in vitlab.__all__


@pytest.mark.slow
def test_the_python_code_runs_as_it_stands(place):
    done = run_python("\n".join(RUNNING), place)
    assert done.returncode == 0, done.stderr
    assert (place / "rollout.png").exists() and (place / "runs" / "pets" / "model.safetensors").exists()


def test_the_python_code_runs_on_smaller_batches(place):
    """The same lines, with the recipe's batch of 512 reduced: the folder of the test has 30 images."""
    short = (
        "from vitlab.studies import recipe\n"
        "import vitlab.studies.finetune as module\n"
        "whole = module.transfer\n"
        "module.transfer = lambda steps: whole(steps).model_copy(update={'batch_size': 8})\n"
    )
    code = "\n".join(RUNNING).replace("runs/pets", "runs/small")
    done = run_python(short + code, place)
    assert done.returncode == 0, done.stderr
    assert (place / "rollout.png").exists() and (place / "runs" / "small" / "model.safetensors").exists()


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_a_verb_and_options_that_there_are(words):
    import typer

    from vitlab.cli.main import app

    verb, *arguments = words
    command = typer.main.get_command(app).commands[verb]
    command.make_context(verb, arguments)


@pytest.mark.slow
def test_the_commands_run_one_after_the_other(place):
    """Those whose files are there, as they stand but for the size of the model and the number of steps."""
    runnable = []
    for verb, *arguments in COMMANDS:
        named = [word for word in arguments if word.endswith(("/", ".npz", ".jpg", ".pth"))]
        downloads = {row.name for row in published()} & set(arguments)
        endless = (
            verb == "serve" or "--all" in arguments or "paper" in arguments
        )  # the whole paper takes most of an hour
        if not endless and all((place / word).exists() for word in named) and not downloads:
            changes = [word for change in TINY for word in ("--set", change)]
            runnable.append([verb, *arguments, *(changes if verb in ("finetune", "pretrain") else [])])
    assert {words[0] for words in runnable} >= {"finetune", "evaluate", "predict", "pretrain", "models"}
    code = (
        "import json, sys\n"
        "from vitlab.cli.main import _run\n"
        f"for words in json.loads({json.dumps(json.dumps(runnable))}):\n"
        "    sys.argv = ['vitlab', *words]\n"
        "    code = _run()\n"
        "    assert code == 0, words\n"
    )
    done = run_python(code, place)
    assert done.returncode == 0, done.stderr


def test_every_make_target_in_the_readme_is_there():
    makefile = (ROOT / "Makefile").read_text()
    targets = [words[1] for words in SHELL if words[:1] == ["make"]]
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_link_and_file_in_the_readme_leads_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README) + re.findall(
        r"`((?:src|docs|benchmarks)/[^`]+)`", README
    ):
        assert (ROOT / target).exists(), target


def test_every_setting_in_the_readme_is_there():
    from vitlab.cli import options  # noqa: F401  (the command line is what the settings are for)
    from vitlab.config import override
    from vitlab.studies.plan import Asked, plan_finetune

    changes = re.findall(r"--set ([\w.]+=[^\s`]+)", README)
    assert changes
    settings = plan_finetune(Asked(data="digits", device="cpu")).settings
    for change in changes:
        override(settings, [change])
