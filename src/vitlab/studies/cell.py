"""Cell: a run that is part of a study. It is carried out once, whatever interrupts it, and leaves what came out in its folder."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

from rich.console import Console

from vitlab import files
from vitlab.config import Settings, difference, parse, read_json, to_json
from vitlab.data.decoded import Decoded, decode_once
from vitlab.data.preprocess import ImageSpec
from vitlab.data.source import Source
from vitlab.errors import NonFiniteError, RunFolderError
from vitlab.ranks import ALONE, Ranks
from vitlab.studies import run
from vitlab.studies.recipe import RunSettings
from vitlab.studies.run import FREE_TO_CHANGE, Given
from vitlab.train.progress import Terminal
from vitlab.train.run import CHECKPOINTS, MANIFEST, MODEL, OUTCOME, is_run, pretty
from vitlab.train.watcher import Quiet

JUDGED_BY = {"map": "mAP", "top1": "top-1"}
"""What decides between trials and is the result of a study, the first that its evaluations have; and what people call it."""
SHOWN_CHANGES = 4

S = TypeVar("S", bound=Settings)


class Outcome(Settings):
    """What a finished run came to: the last value of every figure of its evaluations, or how it `diverged`."""

    metrics: Mapping[str, float] = {}
    diverged: str = ""

    @property
    def judged_by(self) -> str:
        """The name of the figure that counts."""
        names = {name.rpartition("/")[2] for name in self.metrics}
        return next(metric for metric in JUDGED_BY if metric in names)

    @property
    def score(self) -> float:
        """The figure that counts: mean average precision, else top-1, as a share."""
        return self.of(self.judged_by)

    def of(self, metric: str) -> float:
        """Return the figure called `metric`, of the one source that was evaluated."""
        return next(value for name, value in self.metrics.items() if name.rpartition("/")[2] == metric)

    def words(self) -> str:
        """Return the figure that counts for people."""
        return self.diverged or f"{JUDGED_BY[self.judged_by]} {100 * self.score:.2f} %"


@dataclass(frozen=True)
class Studio:
    """What the runs of a study on one data set share: where they are shown, the `ranks` that train each together, and its
    images once they are decoded.
    """

    console: Console
    say: Callable[[str], None]
    ranks: Ranks = ALONE
    _decoded: dict[str, Source] = field(default_factory=dict[str, Source])

    def decoded(self, source: Source, spec: ImageSpec) -> Source:
        """Return `source` with its images decoded and kept for the runs to come, where that gives the same pixels."""
        key = repr((source, spec.decoding, spec.limits))
        if key not in self._decoded:
            kept = self._decoded[key] = decode_once(source, spec)
            if isinstance(kept, Decoded):
                self.say(f"decoded  {source}: once for all runs")
        return self._decoded[key]

    def given(self, settings: RunSettings) -> Given:
        """Return the data of a run, as `decoded`."""
        evals = {
            name: self.decoded(cast(Source, source), settings.image_spec) for name, source in settings.evals.items()
        }
        return Given(None, self.decoded(cast(Source, settings.train_data), settings.image_spec), evals)


def silent(ranks: Ranks = ALONE) -> Studio:
    """Return the studio of a process that says nothing: another one shows what is done."""
    return Studio(Console(file=io.StringIO()), lambda _: None, ranks)


def carry_out(
    settings: RunSettings, folder: Path, studio: Studio, given: Given | None = None, *, trial: bool = False
) -> Outcome:
    """Return what the run of `settings` in `folder` came to, after carrying out what is left of it: all ranks of `studio` call it.

    Its checkpoints are removed in the end. Of a `trial` the model goes too, whose use was to be compared: settings, log and
    outcome stay; and a trial whose loss stops being a number is one that has lost, not an error.

    Raises:
        RequestError: the data or weights cannot be used, or the folder holds something else.
        NonFiniteError: the loss stopped being a number, and it is no trial.
        Interrupted: it was asked to stop; called again, it goes on.
    """
    ranks, path = studio.ranks, folder / OUTCOME
    if not ranks.tell(path.exists()):
        outcome = _made(settings, folder, studio, given, trial)
        if ranks.first:
            files.write_atomic(path, pretty(to_json(outcome)))
    outcome = finished(folder, trial=trial) if ranks.first else None
    return parse(Outcome, ranks.tell(outcome and to_json(outcome)), path)


def finished(folder: Path, *, trial: bool = False) -> Outcome | None:
    """Return what the run in `folder` came to, after removing what is left of what `carry_out` removes; None before its end."""
    path = folder / OUTCOME
    if not path.exists():
        return None
    _tidy(folder, keep_model=not trial)
    return parse(Outcome, read_json(path), path)


def _made(settings: RunSettings, folder: Path, studio: Studio, given: Given | None, trial: bool) -> Outcome:
    ranks = studio.ranks
    watcher = Terminal(studio.console, brief=True) if ranks.first else Quiet()
    try:
        if ranks.tell(is_run(folder)):
            result = run.resume(folder, watcher, _nothing, asked=settings, given=given, ranks=ranks)
        else:
            result = run.start(settings, folder, watcher, _nothing, given=given, ranks=ranks)
    except NonFiniteError as error:
        if not trial:  # the plan of a study is kept, so that it cannot be resumed with another rate
            raise NonFiniteError(
                folder, f"{error.where}: {error.what}", "give lower rates: --lr, in another --out"
            ) from error
        return Outcome(diverged=f"diverged at {error.where}: {error.what.partition(';')[0]}")
    names = tuple(f"{name}/" for name in settings.evals)
    return Outcome(metrics={name: value for name, value in result.metrics.items() if name.startswith(names)})


def _nothing(_: str) -> None:
    """Leave it to the study to say."""


def _tidy(folder: Path, *, keep_model: bool) -> None:
    """Remove what a finished run is not needed for any more; its list of checksums is made to agree first."""
    sums = read_json(folder / MANIFEST)
    kept = {name: value for name, value in sums.items() if keep_model or name != MODEL}
    kept[OUTCOME] = files.sha256(folder / OUTCOME)
    if kept != sums:
        files.write_atomic(folder / MANIFEST, pretty(kept))
    for checkpoint in (folder / CHECKPOINTS).glob("*"):
        files.remove(checkpoint)
    if not keep_model:
        files.remove(folder / MODEL)


def keep_plan(path: Path, plan: S, resume: bool) -> S:
    """Write the plan of a study to `path`, a file in its folder, and return it; to `resume`, return the one there if it is this.

    Where and how fast it runs may differ (`FREE_TO_CHANGE`), and how batches are divided, which follows from the free memory,
    and the command.

    Raises:
        RunFolderError: the folder holds another plan or something else, or a plan and nobody asked to go on with it.
    """
    folder = path.parent
    if path.exists():
        stored = parse(type(plan), read_json(path), path)
        free = (*FREE_TO_CHANGE, "micro_batch_size", "command")
        changes = [line for line in difference(stored, plan) if line.partition(":")[0].rpartition(".")[2] not in free]
        if changes:
            more = f"; and {len(changes) - SHOWN_CHANGES} more" if len(changes) > SHOWN_CHANGES else ""
            what = f"was begun with another plan ({'; '.join(changes[:SHOWN_CHANGES])}{more})"
            raise RunFolderError(folder, what, "give the same, or choose another --out")
        if not resume:
            raise RunFolderError(folder, "already exists", "choose another --out, or go on with --resume")
        return stored
    try:
        if folder.exists() and any(entry.name != f".{path.name}.part" for entry in folder.iterdir()):
            raise RunFolderError(folder, f"already exists, without {path.name}", "choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        files.write_atomic(path, pretty(to_json(plan)))
    except OSError as error:
        raise RunFolderError(folder, f"cannot be written ({error.strerror})", "choose another --out") from None
    return plan


def divided_as_before(settings: RunSettings, stored: RunSettings) -> RunSettings:
    """Return `settings` with batches in the pieces that the study was begun with."""
    micro = stored.train.micro_batch_size
    return settings.model_copy(update={"train": settings.train.model_copy(update={"micro_batch_size": micro})})
