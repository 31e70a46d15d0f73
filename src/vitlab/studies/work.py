"""Work: a piece of a study that is done once, by whoever comes first, and kept under a name that says what it is.

The folder of a piece is named by a hash of everything that its numbers depend on, the pieces that it starts from among them. So
studies share what they have in common, an edited study runs again only what its edit concerns, and results of another version of a
study are never mistaken for this one's.
"""

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vitlab import files
from vitlab.config import parse, read_json, to_json
from vitlab.models.classifier import Classifier, build
from vitlab.studies.cell import Outcome, Studio, carry_out, divided_as_before
from vitlab.studies.recipe import Origin, RunSettings, micro_batch_for
from vitlab.studies.run import FREE_TO_CHANGE
from vitlab.train.run import CONFIG, MODEL, OUTCOME, is_run, pretty
from vitlab.weights.load import load

Result = Mapping[str, Any]
"""What a piece came to, as JSON: of a training the last values of its metrics."""
RESULT = "result.json"
DIGITS = 10
"""Of a hash, in the name of a folder."""


@dataclass(frozen=True)
class Training:
    """A run as `settings` describe it, from the weights that `start` ends with, else from those of the settings or fresh ones."""

    name: str
    settings: RunSettings
    start: "Training | None" = None

    @cached_property
    def digest(self) -> str:
        """The hash of what decides the numbers."""
        settings = {name: value for name, value in to_json(self.settings).items() if name not in FREE_TO_CHANGE}
        return _hash({"settings": settings, "start": self.start and self.start.digest})

    @property
    def needs(self) -> "tuple[Training, ...]":
        """The pieces that have to be finished before."""
        return () if self.start is None else (self.start,)

    def result(self, pieces: Path) -> Result | None:
        """Return what came out, None before its end."""
        path = self.folder(pieces) / OUTCOME
        return parse(Outcome, read_json(path), path).metrics if path.exists() else None

    def folder(self, pieces: Path) -> Path:
        """Return its folder, an ordinary run folder, among those of all pieces."""
        return pieces / f"{self.name}-{self.digest[:DIGITS]}"

    def carry_out(self, pieces: Path, studio: Studio) -> None:
        """Train what is left of it."""
        settings = self.settings
        if self.start is not None:
            weights = self.start.folder(pieces) / MODEL
            origin = Origin(path=str(weights.resolve()), sha256=files.sha256(weights))
            settings = settings.model_copy(update={"weights": origin})
        settings = _divided(settings, self.folder(pieces), studio.ranks.world)
        carry_out(settings, self.folder(pieces), studio, studio.given(settings))

    def model(self, pieces: Path) -> Classifier:
        """Return the trained model."""
        return load(self.folder(pieces), kind=type(self.settings.model))


@dataclass(frozen=True)
class Untrained:
    """The network of `training` before its first step from fresh weights, which costs nothing to make."""

    training: Training

    @property
    def digest(self) -> str:
        """The hash of what decides the numbers."""
        return _hash({"untrained": self.training.digest})

    @property
    def needs(self) -> tuple[Training, ...]:
        """Nothing has to be finished before."""
        return ()

    def model(self, pieces: Path) -> Classifier:
        """Return the model."""
        del pieces
        settings = self.training.settings
        model = build(settings.model, settings.train.seed)
        model.image_spec = settings.image_spec
        return model


Measure = Callable[[Sequence[Classifier]], Result]


@dataclass(frozen=True)
class Measurement:
    """What the function `measure` of a module says of `models`: few-shot accuracies, attention distances, images a second.

    Its source text is part of what decides the numbers; `inputs` are what it was made with.
    """

    name: str
    measure: Measure
    models: tuple[Training | Untrained, ...] = ()
    inputs: Mapping[str, Any] | None = None

    @cached_property
    def digest(self) -> str:
        """The hash of what decides the numbers."""
        function = getattr(self.measure, "func", self.measure)
        measured = {"models": [model.digest for model in self.models], "source": inspect.getsource(function)}
        return _hash({**measured, "inputs": self.inputs})

    @property
    def needs(self) -> tuple[Training, ...]:
        """The trainings that have to be finished before."""
        return tuple(model for model in self.models if isinstance(model, Training))

    def result(self, pieces: Path) -> Result | None:
        """Return what came out, None before its end."""
        path = self.folder(pieces) / RESULT
        return read_json(path) if path.exists() else None

    def folder(self, pieces: Path) -> Path:
        """Return its folder among those of all pieces."""
        return pieces / f"{self.name}-{self.digest[:DIGITS]}"

    def carry_out(self, pieces: Path, studio: Studio) -> None:
        """Measure, on the first rank alone."""
        if not studio.ranks.first:
            return
        found = self.measure([model.model(pieces) for model in self.models])
        self.folder(pieces).mkdir(parents=True, exist_ok=True)
        files.write_atomic(self.folder(pieces) / RESULT, pretty(found))


Piece = Training | Measurement


def _divided(settings: RunSettings, folder: Path, world: int) -> RunSettings:
    """Return `settings` with batches that `world` ranks can share; a run that is there keeps its own."""
    if is_run(folder):
        return divided_as_before(settings, parse(type(settings), read_json(folder / CONFIG), folder / CONFIG))
    if settings.train.pieces % world == 0:
        return settings
    whole = settings.train.model_copy(update={"micro_batch_size": None})
    micro = micro_batch_for(settings.model, whole, world)
    return settings.model_copy(update={"train": whole.model_copy(update={"micro_batch_size": micro})})


def in_order(pieces: Sequence[Piece]) -> list[Piece]:
    """Return `pieces` with all that they need, each once and after what it needs."""
    found: dict[tuple[str, str], Piece] = {}

    def add(piece: Piece) -> None:
        for need in piece.needs:
            add(need)
        found.setdefault((piece.name, piece.digest), piece)

    for piece in pieces:
        add(piece)
    return list(found.values())


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
