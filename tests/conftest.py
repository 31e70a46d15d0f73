"""What every test may ask for: the reference data beside the project, small models, and data sets in memory."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch

from vitlab.data.labels import label_at
from vitlab.data.source import Example
from vitlab.models.classifier import build
from vitlab.models.vit import ViT, ViTSettings
from vitlab.nn.grid import Size
from vitlab.nn.patches import Patches

# A deadline would make the speed of the machine part of the tests.
hypothesis.settings.register_profile("vitlab", deadline=None)
hypothesis.settings.load_profile("vitlab")
# The models here are so small that a second thread costs more than it gives, and much more on a machine that is busy.
torch.set_num_threads(1)


@dataclass(frozen=True)
class Case:
    """One entry of the golden index with the files that belong to it."""

    name: str
    entry: dict[str, Any]
    folder: Path

    @property
    def config(self) -> dict[str, Any]:
        return self.entry["config"]

    @property
    def tolerance(self) -> Any:
        return self.entry["tolerance"]

    def path(self, role: str) -> Path:
        return self.folder / self.entry["files"][role]

    def arrays(self, role: str) -> dict[str, np.ndarray]:
        with np.load(self.path(role), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    def json(self, role: str = "json") -> Any:
        return json.loads(self.path(role).read_text())


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the project; tests that need it are skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no reference data: {folder} does not exist")
    return folder


@pytest.fixture(scope="session")
def golden(shared: Path) -> Callable[[str], Case]:
    """Find a golden case by its name in the index."""
    folder = shared / "golden"
    cases = json.loads((folder / "index.json").read_text())["cases"]
    return lambda name: Case(name, cases[name], folder)


@pytest.fixture(scope="session")
def nasty(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of odd and broken files: `images`, what each must get in `manifest.json`, and layouts in `fs`. Only to be read."""
    folder = tmp_path_factory.mktemp("nasty")
    subprocess.run([sys.executable, shared / "nasty" / "make_nasty.py", folder], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="session")
def layouts(nasty: Path) -> Path:
    """The folder of odd folder layouts. Only to be read."""
    return nasty / "fs"


@pytest.fixture(scope="session")
def odd_images(nasty: Path) -> list[bytes]:
    """The odd and broken image files themselves."""
    return [path.read_bytes() for path in sorted((nasty / "images").rglob("*")) if path.is_file()]


@pytest.fixture
def unprivileged(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Any]:
    """Work in a folder without root's power to read everything, whoever runs the tests."""

    @contextmanager
    def work(folder: Path) -> Iterator[None]:
        monkeypatch.chdir(folder)  # which needs no permission on what is above it
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield
        finally:
            if root:
                os.seteuid(0)

    return work


@pytest.fixture
def make_settings() -> Callable[..., ViTSettings]:
    """Settings of a ViT that costs nothing; every field can be replaced."""

    def make(**changes: Any) -> ViTSettings:
        size, stem = Size(8, 8), Patches(patch_size=Size(4, 4))
        small = {"width": 16, "depth": 2, "num_heads": 2, "mlp_dim": 32, "num_classes": 3}
        return ViTSettings(**{"image_size": size, "stem": stem, **small, **changes})

    return make


@pytest.fixture
def make_model(make_settings: Callable[..., ViTSettings]) -> Callable[..., ViT]:
    """A small ViT in which no parameter is zero, so that every part of it shows in the output."""

    def make(seed: int = 0, classes: tuple[str, ...] = (), **changes: Any) -> ViT:
        model = build(make_settings(**changes), seed=seed, classes=classes)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        return model.eval()

    return make


class Memory:
    """A source of images in memory; an image given as bytes is a file that has to be decoded."""

    def __init__(self, images: list[Any], labels: list[int], classes: tuple[str, ...]) -> None:
        self.images, self.classes = images, classes
        self.labels = np.array(labels, np.int64)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> Example:
        return Example(self.images[index], label_at(self.labels, index), f"image-{index}")

    def __str__(self) -> str:
        return "memory"


@pytest.fixture
def make_source() -> Callable[..., Memory]:
    """A source of random images, `count` of them, with the labels 0, 1, 2, 0, 1, 2, … unless they are given."""

    def make(
        count: int = 7,
        side: int = 8,
        classes: tuple[str, ...] = ("ant", "bee", "cat"),
        labels: list[int] | None = None,
        images: list[Any] | None = None,
    ) -> Memory:
        rng = np.random.default_rng(0)
        drawn = [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(count)]
        given = [index % len(classes) for index in range(count)] if labels is None else labels
        return Memory(drawn if images is None else images, given, classes)

    return make
