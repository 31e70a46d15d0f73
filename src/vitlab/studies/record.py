"""Record: what a run folder tells of its run, read without touching it, from a run of any version, going on or broken off."""

import fcntl
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from pydantic import TypeAdapter, ValidationError

from vitlab.config import Json, leaves, read_json
from vitlab.errors import RunFolderError, SettingsError
from vitlab.models.catalog import SHAPES
from vitlab.models.classifier import AnySettings, ModelSettings
from vitlab.models.vit import ViTSettings
from vitlab.nn.patches import Patches
from vitlab.train import checkpoint
from vitlab.train.meter import TIMING
from vitlab.train.run import CHECKPOINTS, CONFIG, LOCK, METRICS, MODEL, OUTCOME

State: TypeAlias = Literal["running", "finished", "resumable", "interrupted"]
LOWER_IS_BETTER = ("loss",)
CHOSEN = ("map", "top1", "loss")
"""What a run is judged by where one figure is to be shown: the first that its evaluations have."""


@dataclass(frozen=True)
class Event:
    """One figure of a log: its name and value after `step` updates, and when, where the log says that (seconds since 1970)."""

    step: int
    name: str
    value: float
    time: float | None = None


@dataclass(frozen=True)
class Record:
    """A run as its folder tells it; `notes` say what in there could not be read."""

    path: Path
    config: Json
    events: tuple[Event, ...]
    timing: tuple[Event, ...]
    state: State
    notes: tuple[str, ...]

    @property
    def recipe(self) -> str:
        """The name of the recipe."""
        return str(self.config.get("recipe", "?"))

    @property
    def model(self) -> str:
        """The model by its name in the catalog where it has one, else by its dimensions."""
        try:
            settings: AnySettings = TypeAdapter(ModelSettings).validate_python(self.config["model"])
        except (ValidationError, KeyError):
            return str(_part(self.config, "model").get("type", "?"))
        if isinstance(settings, ViTSettings) and isinstance(settings.stem, Patches):
            shape = (settings.depth, settings.width, settings.mlp_dim, settings.num_heads)
            name = next((name for name, known in SHAPES.items() if known[:4] == shape), None)
            if name is not None:
                return f"{name}/{settings.stem.patch_size.height} at {settings.image_size}"
        return settings.describe()

    @property
    def data(self) -> str:
        """What it is trained on: a path or a name."""
        source = _part(self.config, "train_data")
        found = (source.get(name) for name in ("name", "path", "description", "type"))
        return str(next((value for value in found if value), "?"))

    @property
    def step(self) -> int:
        """How many updates the log knows of."""
        return max((event.step for event in self.events), default=0)

    @property
    def steps(self) -> int | None:
        """How many updates the run is to make."""
        steps = _part(self.config, "train").get("steps")
        return steps if isinstance(steps, int) else None

    @cached_property
    def last(self) -> dict[str, float]:
        """The last value of every figure of `metrics.jsonl`."""
        return {event.name: event.value for event in self.events}

    @cached_property
    def best(self) -> dict[str, float]:
        """The best value of every figure of an evaluation: the lowest loss, the highest of all others."""
        found: dict[str, float] = {}
        for event in self.events:
            if not event.name.startswith("train/") and not event.name.endswith("/count"):
                better = min if event.name.endswith(LOWER_IS_BETTER) else max
                found[event.name] = better(found.get(event.name, event.value), event.value)
        return found

    @property
    def chosen(self) -> str | None:
        """The figure by which the run is judged where one is to be shown."""
        names = [name for name in self.last if not name.startswith("train/")]
        fitting = (name for end in CHOSEN for name in names if name.endswith(f"/{end}"))
        return next(fitting, "train/loss" if "train/loss" in self.last else None)

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Return the steps at which a figure was logged, and its values; of a step that was made again, the last."""
        points = {event.step: event.value for event in (*self.events, *self.timing) if event.name == name}
        return list(points), list(points.values())

    def typical(self, name: str) -> float | None:
        """Return the middle value of a figure of speed, None where there is none; pauses and starts do not move it."""
        values = sorted(event.value for event in self.timing if event.name == name)
        return values[len(values) // 2] if values else None

    @property
    def started(self) -> float | None:
        """When the run began, in seconds since 1970."""
        return min((event.time for event in self.timing if event.time), default=None)

    @property
    def ended(self) -> float | None:
        """When the run was last heard of, in seconds since 1970."""
        return max((event.time for event in self.timing if event.time), default=None)

    @property
    def seconds(self) -> float:
        """How long it worked: training, evaluations, checkpoints; what was lost in a crash and made again counts twice."""
        counted = ("train/seconds", "train/evaluation_seconds", "train/checkpoint_seconds")
        return sum(event.value for event in self.timing if event.name in counted)


def read_record(path: Path) -> Record:
    """Return what the run folder `path` tells.

    Raises:
        RunFolderError: it is no run, or its settings cannot be read.
    """
    if not (path / CONFIG).is_file():
        cut_short = (path / LOCK).exists()
        what = "has no config.json: its start was cut short" if cut_short else "is not a run (it has no config.json)"
        raise RunFolderError(path, what, "start it again" if cut_short else "give a folder that has one")
    try:
        config = read_json(path / CONFIG)
    except (SettingsError, UnicodeDecodeError) as error:
        what = error.what if isinstance(error, SettingsError) else "is not text"
        raise RunFolderError(path, f"config.json {what}", "put the file back") from None
    events, metrics_note = _events(path / METRICS)
    timing, timing_note = _events(path / TIMING)
    notes = tuple(note for note in (metrics_note, timing_note) if note)
    return Record(path, config, events, timing, _state(path), notes)


def is_run(path: Path) -> bool:
    """Whether a folder is one of a run, or of the start of one."""
    return (path / CONFIG).exists() or (path / LOCK).exists()


def differing(records: Sequence[Record]) -> dict[str, list[str | None]]:
    """Return the settings in which runs differ: by dotted path, the value of each as JSON, None where it has no such setting."""
    each = [{path: json.dumps(value) for path, value in leaves(record.config)} for record in records]
    paths = dict.fromkeys(path for found in each for path in found)
    rows = {path: [found.get(path) for found in each] for path in paths}
    return {path: values for path, values in rows.items() if len(set(values)) > 1}


def _part(config: Json, name: str) -> Mapping[str, Any]:
    part = config.get(name)
    return cast(Mapping[str, Any], part) if isinstance(part, Mapping) else {}


def _events(path: Path) -> tuple[tuple[Event, ...], str | None]:
    """Return the events in the file `path`, and a note on what there is no event in."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return (), None
    except OSError as error:
        return (), f"{path.name} cannot be read ({error.strerror})"
    events = [_event(line) for line in lines if line.endswith(b"\n")]  # the last may be in the making
    damaged = events.count(None)
    note = f"{path.name}: {damaged} of {len(events)} lines are damaged" if damaged else None
    return tuple(event for event in events if event is not None), note


def _event(line: bytes) -> Event | None:
    try:
        found = json.loads(line)
        time = found.get("time")
        return Event(
            int(found["step"]), str(found["name"]), float(found["value"]), None if time is None else float(time)
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _state(path: Path) -> State:
    if _locked(path / LOCK):
        return "running"
    if (path / MODEL).exists() or (path / OUTCOME).exists():
        return "finished"
    return "resumable" if checkpoint.steps(path / CHECKPOINTS) else "interrupted"


def _locked(path: Path) -> bool:
    """Whether a process holds the lock; it is tried for an instant, as a reader."""
    try:
        with path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none, or it cannot be looked at
        return False
    return False
