"""What is quick stays quick: help and version import nothing heavy."""

import subprocess
import sys

import pytest

import vitlab as package
from tests.end_to_end.conftest import environment, vitlab

VERBS = (
    "demo",
    "finetune",
    "pretrain",
    "evaluate",
    "fewshot",
    "vtab",
    "predict",
    "inspect",
    "serve",
    "export",
    "convert",
    "cost",
    "models",
    "recipes",
    "runs",
    "verify",
)
DATA_VERBS = ("describe", "check")
STUDY_VERBS = ("list", "show", "run", "report")
HEAVY = ("torch", "matplotlib", "pyarrow", "PIL", "numpy")
RARE = ("torch.distributed.tensor", "torch._dynamo", "sympy", "matplotlib", "onnxruntime")
"""What a verb that has not begun does not need; with the first three, starting takes half as long again."""


def python(code):
    return subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)


def test_importing_the_package_imports_nothing_heavy():
    done = python(f"import sys, vitlab; dir(vitlab); print([m for m in {HEAVY} if m in sys.modules])")
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_every_help_and_the_version_are_shown_without_importing_anything_heavy():
    done = python(
        "import sys\n"
        "from vitlab.cli.main import _run\n"
        f"data = [['data', '--help'], *(['data', verb, '--help'] for verb in {DATA_VERBS})]\n"
        f"data += [['study', '--help'], ['study', 'list'], *(['study', verb, '--help'] for verb in {STUDY_VERBS})]\n"
        f"for words in (['--help'], ['--version'], *([verb, '--help'] for verb in {VERBS}), *data):\n"
        "    sys.argv = ['vitlab', *words]\n"
        "    print('>', *words)\n"
        "    assert _run() == 0\n"
        f"print('>', [m for m in {HEAVY} if m in sys.modules])\n"
    )
    assert done.stderr == ""
    parts = done.stdout.split("\n> ")
    assert parts[-1].strip() == "[]"
    assert "vitlab 0." in parts[1]
    assert len(parts) == 2 + len(VERBS) + 1 + len(DATA_VERBS) + 2 + len(STUDY_VERBS) + 1
    for part, words in zip(parts, ["", *VERBS], strict=False):
        assert "Usage:" in part or "--version" in part, words
    assert all(verb in parts[0] for verb in VERBS)


def test_a_verb_starts_without_what_only_sharding_compiling_drawing_and_exporting_need():
    done = python(
        "import sys\n"
        "from vitlab.cli.main import _run\n"
        "for verb in ('finetune', 'pretrain', 'evaluate', 'predict', 'fewshot', 'verify'):\n"
        "    sys.argv = ['vitlab', verb, *(['/none', 'digits'] if verb in ('evaluate', 'predict', 'fewshot') else ['/none'])]\n"
        "    assert _run() == 2\n"
        f"print([m for m in {RARE} if m in sys.modules], 'torch' in sys.modules)\n"
    )
    assert done.stdout == "[] True\n", done.stderr
    assert done.stderr.count("error: /none") == 6


def test_help_names_every_verb_that_there_is():
    from vitlab.cli.main import app

    assert tuple(command.callback.__name__ for command in app.registered_commands) == VERBS
    data, study = app.registered_groups
    named = [command.callback.__name__ for command in data.typer_instance.registered_commands]
    assert data.name == "data" and set(DATA_VERBS) <= set(named)
    named = [command.name or command.callback.__name__ for command in study.typer_instance.registered_commands]
    assert study.name == "study" and tuple(named) == STUDY_VERBS


def test_the_process_shows_help_and_version():
    done = vitlab("--help")
    assert done.code == 0 and "finetune" in done.out and done.err == ""
    done = vitlab("--version")
    assert done.code == 0 and done.out.startswith("vitlab ") and done.err == ""


@pytest.mark.parametrize("name", package.__all__)
def test_every_public_name_is_there(name):
    assert getattr(package, name) is not None
    assert name in dir(package)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'vitlab' has no attribute 'fineune'"):
        package.fineune  # noqa: B018
