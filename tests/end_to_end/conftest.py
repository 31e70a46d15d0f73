"""A folder of photos, a finished run on it, and the command line: as a process of its own, or within this one."""

import fcntl
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TINY = (
    *("--set", "model.width=16", "--set", "model.num_heads=2", "--set", "model.depth=2", "--set", "model.mlp_dim=32"),
    *("--image-size", "16", "--batch-size", "8", "--workers", "0", "--device", "cpu"),
)
COLOURS = {"cat": (200, 40, 40), "dog": (40, 200, 40), "owl": (40, 40, 200)}


@dataclass(frozen=True)
class Done:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def error(self):
        """The one error, in which a list may follow on indented lines."""
        assert "Traceback" not in self.err
        lines = self.err.splitlines()
        starts = [number for number, line in enumerate(lines) if line.startswith("error: ")]
        assert len(starts) == 1, self.err
        assert all(line.startswith("  ") for line in lines[starts[0] + 1 :]), self.err
        return "\n".join(lines[starts[0] :])


def environment():
    """Return the environment of a user's shell: without what pytest or a developer has set."""
    left_out = ("VITLAB_", "PYTEST_")
    return {name: value for name, value in os.environ.items() if not name.startswith(left_out)} | {
        "OMP_NUM_THREADS": "1"
    }


def vitlab(*arguments, cwd=None):
    """Run the command line as a process of its own."""
    command = [sys.executable, "-m", "vitlab", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def within(capsys, monkeypatch, tmp_path):
    """Run the command line within this process, which spares the import of torch."""
    from vitlab.cli import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["vitlab", *map(str, arguments)])
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("VITLAB_DEBUG", raising=False)
        capsys.readouterr()
        code = main._run()
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture
def refused(within, tmp_path):
    """Run a command, expect a refusal that says all of `words`, and nothing new beside what was there."""

    def check(*arguments, words):
        before = sorted(tmp_path.rglob("*"))
        done = within(*arguments)
        assert done.code == 2, done.err
        missing = [word for word in words if word not in done.error]
        assert missing == [], done.error
        assert sorted(tmp_path.rglob("*")) == before
        return done

    return check


def draw(folder, count=8, names=tuple(COLOURS)):
    """Fill `folder` with class folders of small pictures, each class of one colour."""
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            noise = rng.integers(-40, 40, (20, 24, 3))
            pixels = np.clip(np.array(COLOURS.get(name, (90, 90, 90))) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def once(tmp_path_factory, worker_id):
    """Make a folder once for all test processes."""
    root = tmp_path_factory.getbasetemp()
    root = (root if worker_id == "master" else root.parent) / "end_to_end"
    root.mkdir(exist_ok=True)

    def make(name, build):
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (root / name).exists():
                shutil.rmtree(root / f"{name}.draft", ignore_errors=True)
                build(root / f"{name}.draft")
                (root / f"{name}.draft").rename(root / name)
        return root / name

    return make


@pytest.fixture(scope="session")
def photos(once) -> Path:
    """Class folders of pictures: 8 each of cat, dog and owl. Only to be read."""
    return once("photos", draw)


@pytest.fixture(scope="session")
def trained(once, photos) -> Path:
    """A finished run on the photos, made by the command line. Only to be read."""

    def build(folder):
        folder.mkdir()
        done = vitlab("finetune", photos, "--out", folder / "run", "--steps", 20, "--lr", 0.01, *TINY)
        (folder / "err.txt").write_text(done.err)
        assert done.code == 0, done.err

    return once("trained", build) / "run"


@pytest.fixture
def rotten(photos, tmp_path):
    """The photos with unreadable ones among them, in the part for training and in that for evaluation."""
    from vitlab.data.folder import Folder

    folder = shutil.copytree(photos, tmp_path / "rotten")
    bad = []
    for side in Folder(photos).split(0.1, 0):
        keys = [side.read(index).key for index in range(len(side))]
        for key in keys[: 3 if side.part.side == "train" else 1]:
            (folder / key).write_bytes(b"not an image" if len(bad) % 2 else b"")
            bad.append(key)
    return folder, bad
