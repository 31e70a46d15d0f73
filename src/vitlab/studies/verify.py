"""Verify: whether the files of a run are those that it wrote, and whether its log is what its settings and data give.

Every file is compared with its checksum. Then updates are made again, the first one and the one after each checkpoint, and their
loss and gradient norm are compared with the log: the training wrote both there to the last bit.
"""

import json
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch

from vitlab import files
from vitlab.config import parse, read_json
from vitlab.data.loader import Pieces, load
from vitlab.data.source import Source
from vitlab.errors import RunFolderError, SettingsError, VitlabError
from vitlab.studies.plan import choose_device
from vitlab.studies.recipe import RunSettings
from vitlab.studies.record import Record, read_record
from vitlab.studies.run import begin, first_model, training_data
from vitlab.train import checkpoint
from vitlab.train.precision import Precision
from vitlab.train.preparation import prepared
from vitlab.train.run import CHECKPOINTS, CONFIG, MANIFEST, MODEL, config_at, describe_environment, environment_at
from vitlab.train.step import StepResult, train_step

TOLERANCES: Mapping[Precision, float] = {"float32": 1e-3, "bfloat16": 1e-2}
"""By this share loss and gradient norm may differ where the same bits are not owed: another machine, version or number of ranks."""
BITS_DEPEND_ON = ("torch", "processor", "device", "threads", "world_size")

Outcome = Literal["ok", "bad", "unchecked", "note"]


@dataclass(frozen=True)
class Finding:
    """What was looked at, and what came out; a run is verified when everything is ok but for the notes."""

    outcome: Outcome
    what: str
    said: str

    def __str__(self) -> str:
        return f"{self.outcome:9}  {self.what}: {self.said}"


def verify(path: Path) -> Iterator[Finding]:
    """Yield what is found in the run folder `path`, each as soon as it is known; nothing in the folder is changed.

    Raises:
        RunFolderError: it is no run, its settings cannot be read, or it is going on.
    """
    record = read_record(path)
    if record.state == "running":
        raise RunFolderError(path, "is being trained", "verify it when it has ended, or stop it first")
    yield from _listed(path)
    damaged: set[Path] = set()
    for each in checkpoint.steps(path / CHECKPOINTS):
        found = list(_checkpoint(path, each))
        damaged |= {each for finding in found if finding.outcome == "bad"}
        yield from found
    whole = [each for each in checkpoint.steps(path / CHECKPOINTS) if each not in damaged]
    yield from _replays(record, whole)
    for note in record.notes:
        yield Finding("bad", note.split(":")[0], note)


def is_verified(findings: Sequence[Finding]) -> bool:
    """Whether all that there is to check was checked and is right."""
    return not any(finding.outcome in ("bad", "unchecked") for finding in findings)


def verdict(findings: Sequence[Finding]) -> str:
    """Return what the findings come to, in a line."""
    count = Counter(finding.outcome for finding in findings)
    said = f"{count['ok']} checks passed, {count['bad']} failed, {count['unchecked']} could not be made"
    return f"verified: {said}" if is_verified(findings) else f"not verified: {said}"


def _listed(path: Path) -> Iterator[Finding]:
    """Compare the files of the run folder with its list of checksums."""
    sums = _read_sums(path / MANIFEST)
    if sums is None:
        yield Finding("unchecked", MANIFEST, "is missing or damaged: settings and model have no checksums")
        sums = {}
    for name, expected in sums.items():
        if name == MODEL and not (path / MODEL).exists():
            yield Finding("unchecked", MODEL, "is listed and not there: --resume writes it")
        else:
            yield _compared(path, path / Path(name).name, expected)
    if (path / MODEL).exists() and MODEL not in sums:
        yield Finding("unchecked", MODEL, f"is not in {MANIFEST}")
    others = sorted(entry.name for entry in path.iterdir() if entry.name not in {*sums, MANIFEST, MODEL, CHECKPOINTS})
    if others:
        yield Finding("note", "without a checksum", ", ".join(others))


def _checkpoint(run: Path, path: Path) -> Iterator[Finding]:
    what = str(path.relative_to(run))
    if (reason := checkpoint.problem(path)) is not None:
        yield Finding("bad", what, reason)
        return
    sums = _read_sums(path / checkpoint.MANIFEST) or {}
    yield Finding("ok", what, f"{len(sums)} files match their checksums")
    if others := sorted({entry.name for entry in path.iterdir()} - {*sums, checkpoint.MANIFEST}):
        yield Finding("note", what, f"without a checksum: {', '.join(others)}")


def _compared(run: Path, path: Path, expected: str) -> Finding:
    what = str(path.relative_to(run))
    try:
        same = files.sha256(path) == expected
    except OSError as error:
        return Finding("bad", what, f"cannot be read ({error.strerror})")
    return Finding("ok", what, "matches its checksum") if same else Finding("bad", what, "does not match its checksum")


def _read_sums(path: Path) -> dict[str, str] | None:
    try:
        found: Any = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in cast(dict[str, Any], found).values()):
        return None
    return cast(dict[str, str], found)


def _replays(record: Record, checkpoints: list[Path]) -> Iterator[Finding]:
    """Make the updates again whose figures are in the log, from the start and from each of the whole `checkpoints`."""
    places: dict[int, Path | None] = {0: None, **{checkpoint.step_of(path): path for path in checkpoints}}
    logged = {step: _logged(record, step + 1) for step in places}
    due = [step for step, values in logged.items() if values is not None]
    if not due:
        yield Finding("unchecked", "updates", "the log has no update that could be made again")
        return
    try:
        source = training_data(parse(RunSettings, record.config, record.path / CONFIG), _nothing)
        len(source)  # now it is looked for: if it is gone that is said once
    except VitlabError as error:
        yield Finding("unchecked", "updates", f"none could be made again: {error}")
        return
    for step in due:
        yield _replay(record.path, source, step, places[step], cast(tuple[float, float], logged[step]))


def _logged(record: Record, step: int) -> tuple[float, float] | None:
    """Return loss and gradient norm of update number `step` as they are in the log."""
    values = {event.name: event.value for event in record.events if event.step == step}
    found = values.get("train/loss"), values.get("train/grad_norm")
    return None if found[0] is None or found[1] is None else (found[0], found[1])


def _replay(run: Path, source: Source, step: int, path: Path | None, logged: tuple[float, float]) -> Finding:
    """Make update number `step + 1` from the checkpoint at `path`, or from the start, and compare it with the log."""
    what, origin = f"update {step + 1}", "the start" if path is None else path.name
    try:
        place = config_at(run, step)
        settings = _here(parse(RunSettings, read_json(place), place))
        environment = environment_at(run, step)
        with _threads(environment.get("threads")):
            made, reasons = _make(settings, source, path), _reasons(settings, environment)
    except VitlabError as error:
        return Finding("unchecked", what, f"could not be made again from {origin}: {error}")
    if (made.loss, made.grad_norm) == logged:
        figures = f"loss {logged[0]:.6g}, gradient norm {logged[1]:.6g}"
        return Finding("ok", what, f"made again from {origin}, gives {figures} to the last bit")
    now = f"made again from {origin}, gives loss {made.loss:.9g}, gradient norm {made.grad_norm:.9g}"
    said = f"{now}; the log has {logged[0]:.9g}, {logged[1]:.9g}"
    if not reasons:
        return Finding("bad", what, said)
    share = TOLERANCES[settings.train.precision]
    near = all(abs(a - b) <= share * abs(b) for a, b in zip((made.loss, made.grad_norm), logged, strict=True))
    owed = f"within {100 * share:g} %, as more is not owed: {'; '.join(reasons)}"
    return Finding("ok", what, f"{said}: {owed}") if near else Finding("bad", what, f"{said}: not {owed}")


def _here(settings: RunSettings) -> RunSettings:
    """Return `settings` for a device that there is."""
    try:
        device = choose_device(settings.device)
    except SettingsError:
        device = torch.device("cpu")
    return settings.model_copy(update={"device": str(device)})


def _make(settings: RunSettings, source: Source, path: Path | None) -> StepResult:
    """Return the figures of the update after the checkpoint at `path`, or of the first one."""
    stored = None if path is None else checkpoint.load(path)
    # a checkpoint needs nothing of the weights that the run began with
    start = settings if stored is None else settings.model_copy(update={"weights": None})
    state, batches = begin(settings, source, first_model(start, source, _nothing))
    if stored is not None:
        state.restore(stored.step, stored.parameters, stored.optimizer, stored.recent, stored.skipped)
    pieces = load(batches, Pieces(state.step, state.step + 1, settings.train.pieces), 0)
    with prepared(state.model, settings.train):
        return train_step(state, pieces, settings.train).read(state)


def _reasons(settings: RunSettings, environment: Mapping[str, Any]) -> list[str]:
    """Return why the bits may differ from those of the run."""
    here = describe_environment(torch.device(settings.device), settings.workers, 1)
    exact = settings.train.exact
    counted = [name for name in BITS_DEPEND_ON if not (exact and name == "world_size")]
    changed = [name for name in counted if here.get(name) != environment.get(name)]
    reasons = [f"{name} {environment.get(name)} there, {here.get(name)} here" for name in changed]
    if settings.device != "cpu" and not exact:
        reasons.append("a GPU adds in any order unless the run is exact")
    return reasons


@contextmanager
def _threads(number: Any) -> Generator[None]:
    """Work with that number of threads, if it is one."""
    before = torch.get_num_threads()
    if isinstance(number, int) and number > 0:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _nothing(line: str) -> None:
    del line
