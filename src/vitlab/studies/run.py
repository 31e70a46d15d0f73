"""Start, resume and finish a run: settings in, a run folder out."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from vitlab import files
from vitlab.config import Settings, difference, parse, to_json
from vitlab.data.check import find_bad_images
from vitlab.data.labels import Labels, distinct, is_multi_label, renumber
from vitlab.data.limits import Limits
from vitlab.data.loader import LOOKED_THROUGH, TrainBatches
from vitlab.data.oddity import oddities
from vitlab.data.source import Source, Subset, class_indices
from vitlab.errors import BadImagesError, DataError, ImageError, RunFolderError, SettingsError, WeightsError
from vitlab.evals.classify import Accuracy, AnyPredictions, classify
from vitlab.evals.multilabel import refuse_unlabelled
from vitlab.models.classifier import Classifier, build
from vitlab.ranks import ALONE, Ranks
from vitlab.studies.recipe import InProgram, Origin, RunSettings
from vitlab.studies.resources import explained
from vitlab.studies.watching import check_watchers, watchers
from vitlab.train.balance import describe
from vitlab.train.layers import frozen_names
from vitlab.train.loop import train
from vitlab.train.masked import MaskedLoss, MaskedPatches, MaskedTask
from vitlab.train.objective import check_objective, weights_for
from vitlab.train.preparation import check_compiler
from vitlab.train.replicas import check_shardable
from vitlab.train.run import (
    BAD_IMAGES,
    CLASS_WEIGHTS,
    RunFolder,
    describe_environment,
    read_metrics,
    refuse_taken,
)
from vitlab.train.space import check_space, checkpoint_bytes, lacking
from vitlab.train.state import TrainState
from vitlab.train.watcher import Watcher
from vitlab.weights.load import fit, load, read

log = logging.getLogger("vitlab")

Say = Callable[[str], None]
FREE_TO_CHANGE = ("workers", "device", "tensorboard", "wandb")
OVERRIDABLE = ("train.", "augment.", "evals", "on_bad_image")
"""Settings that a resumed run can be given others of, when that is asked for: no tensor of a checkpoint depends on them …"""
FIXED = ("train.optimizer.type", "train.objective.type", "train.seed", "train.batch_size")
"""… but for these."""


@dataclass(frozen=True)
class Given:
    """What a Python program hands over instead of naming it in the settings; where `model` is None it is theirs."""

    model: Classifier | None
    train: Source
    evals: Mapping[str, Source]


@dataclass(frozen=True)
class Data:
    """The opened sources of a run, and the images left out of them."""

    train: Source
    evals: Mapping[str, Source]
    bad: tuple[ImageError, ...] = ()


@dataclass(frozen=True)
class RunResult:
    """A finished run: its folder, its model, the last value of every metric, and the predictions on each evaluation source.

    A run that was finished before it was resumed has no predictions here.
    """

    path: Path
    model: Classifier
    metrics: dict[str, float]
    predictions: dict[str, AnyPredictions]
    sources: Mapping[str, Source]


def start(
    settings: RunSettings, out: Path, watcher: Watcher, say: Say, *, given: Given | None = None, ranks: Ranks = ALONE
) -> RunResult:
    """Make the run that `settings` describe, in the new folder `out`. Everything is checked before the folder is made.

    With several `ranks` all of them call this; the first one makes the folder and writes in it.

    Raises:
        RequestError: the data, the weights or the folder cannot be used.
        Interrupted: the run was asked to stop; it can be resumed.
    """
    if ranks.first:
        refuse_taken(out)
    check_watchers(settings)
    check_objective(settings.train.objective, settings.model)
    check_shardable(settings.train, settings.model)
    check_compiler(settings.train, torch.device(settings.device))
    _check_ranks(settings, ranks)
    data = _open_data(settings, say, given, ranks)
    _check_options(settings, data)
    weights_for(settings.train.objective, data.train.classes, data.train.labels)  # refused before there is a folder
    model = (given and given.model) or first_model(settings, data.train, say)
    if not ranks.first:
        _use_threads(ranks.tell(), say)
        with explained(settings):
            return _finish(settings, data, model, RunFolder.follow(out, ranks), watcher, say)
    check_space(out, checkpoint_bytes(model, settings.train))
    environment = _environment(settings, ranks)
    with explained(settings), RunFolder.create(out, to_json(settings), environment, ranks) as run:
        if data.bad:
            run.write(BAD_IMAGES, "".join(f"{error}\n" for error in data.bad))
        ranks.tell(environment["threads"])
        return _finish(settings, data, model, run, watcher, say)


def resume(
    out: Path,
    watcher: Watcher,
    say: Say,
    *,
    asked: RunSettings | None = None,
    given: Given | None = None,
    ranks: Ranks = ALONE,
    override: bool = False,
) -> RunResult:
    """Continue the run in `out` from its newest whole checkpoint; the end is bit for bit that of an uninterrupted run.

    On another number of `ranks` than before it is so if the run is exact, else up to rounding.

    `asked` are the settings of the command that resumes; they may differ only in what changes no number, or with `override` also
    in how the rest is trained and evaluated: then the folder keeps the settings of before as `config-until-step-N.json`.

    Raises:
        RunFolderError: there is no run, it was started with other settings, or its source exists only in a Python program.
        Interrupted: the run was asked to stop again.
    """
    with RunFolder.reopen(out, ranks) if ranks.first else RunFolder.follow(out, ranks) as run:
        ranks.tell()  # the others read what is in the folder once the first has it
        stored = parse(RunSettings if asked is None else type(asked), run.config(), out / "config.json")
        settings = _merged(stored, asked, out, override)
        check_watchers(settings)
        _check_ranks(settings, ranks)
        if run.finished:
            say(f"{out} is finished; nothing to resume")
            return _result(out, load(out, kind=type(settings.model)), {}, {})
        data = _open_data(settings, say, given, ranks)
        _use_threads(int(run.environment()["threads"]), say)
        model = (given and given.model) or first_model(settings, data.train, say)
        if lack := lacking(out, checkpoint_bytes(model, settings.train)):
            say(f"{out}: {lack}")
        with explained(settings):
            return _finish(settings, data, model, run, watcher, say, replaced=stored)


def _check_ranks(settings: RunSettings, ranks: Ranks) -> None:
    """Refuse a number of ranks that cannot divide a batch among them, each a number of whole pieces."""
    pieces, images = settings.train.pieces, settings.train.batch_size
    if pieces % ranks.world:
        fitting = ", ".join(str(world) for world in range(1, pieces + 1) if pieces % world == 0)
        parts = f"{pieces} pieces ({images // pieces} images each)" if pieces > 1 else f"one piece ({images} images)"
        what = f"{ranks.world} cannot share batches of {parts}"
        raise SettingsError("--processes", what, f"use {fitting}, or start with another --set train.micro_batch_size")


def _check_options(settings: RunSettings, data: Data) -> None:
    """Refuse options that the model or the data have nothing for."""
    frozen_names((), settings.model, settings.train.frozen)
    if settings.train.patience is not None and not data.evals:
        raise SettingsError("train.patience", "there is nothing to evaluate on", "give --eval-data, or leave it out")


def _use_threads(threads: int, say: Say) -> None:
    if torch.get_num_threads() != threads:
        say(f"using {threads} threads, as the run was started with: another number changes the last bits")
        torch.set_num_threads(threads)


def _merged(stored: RunSettings, asked: RunSettings | None, out: Path, override: bool) -> RunSettings:
    """Return the stored settings with those changes of `asked` that may be made; refuse any other difference by name."""
    if asked is None:
        return stored
    merged = stored.model_copy(update={name: getattr(asked, name) for name in FREE_TO_CHANGE})
    changes = difference(merged, asked)
    remedy = "resume without changing them, or with --override-resume"
    if override:
        changes = [line for line in changes if not line.startswith(OVERRIDABLE) or line.startswith(FIXED)]
        merged, remedy = asked, "start a new run for that"
    if changes:
        raise RunFolderError(out, f"was started with other settings ({'; '.join(changes)})", remedy)
    return merged


def _finish(
    settings: RunSettings,
    data: Data,
    model: Classifier,
    run: RunFolder,
    watcher: Watcher,
    say: Say,
    *,
    replaced: RunSettings | None = None,
) -> RunResult:
    """Train to the end, write the model, and return what came out; a run that goes on `replaced` settings, maybe the same."""
    state, batches = begin(settings, data.train, model, run.ranks)
    _keep_class_weights(settings, model.classes or data.train.classes, batches.labels, run, say)
    if replaced is not None:
        for reason in run.restore_checkpoint(state):
            say(f"damaged checkpoint left out: {reason}")
        say(f"resuming at step {state.step} of {settings.train.steps}")
        _keep_settings(settings, replaced, state.step, run, say)
        run.note_environment(state.step, _environment(settings, run.ranks))
    watcher = watchers(settings, run, state.step, watcher)
    if isinstance(state.task, MaskedTask):
        losses = {name: MaskedLoss(source, state.task, workers=settings.workers) for name, source in data.evals.items()}
        train(state, batches, settings.train, run, losses, watcher, settings.workers)
        _say_best(state, say)
        run.save_model(state)
        return _result(run.path, model, {}, data.evals)
    model.probabilities = "sigmoid" if is_multi_label(batches.labels) else "softmax"
    evaluators = {
        name: Accuracy(source, workers=settings.workers, ranks=run.ranks) for name, source in data.evals.items()
    }
    train(state, batches, settings.train, run, evaluators, watcher, settings.workers)
    _say_best(state, say)
    with state.evaluated():
        predictions = {
            name: evaluator.last
            or classify(
                model, evaluator.source, workers=settings.workers, ranks=run.ranks
            )  # none: no step was left to make
            for name, evaluator in evaluators.items()
        }
    run.save_model(state)
    if state.sharded and run.ranks.first:  # the others go home: what they have of the model does not come back
        model = load(run.path, kind=type(settings.model))
    return _result(run.path, model, predictions, data.evals)


def _keep_settings(settings: RunSettings, before: RunSettings, step: int, run: RunFolder, say: Say) -> None:
    """Write the settings of a run that goes on with others than before, and keep those that it had."""
    changes = difference(before.model_copy(update={name: getattr(settings, name) for name in FREE_TO_CHANGE}), settings)
    for line in changes:
        say(f"changed from here on: {line}")
    run.keep_config(step, to_json(settings) if changes else None)


def _say_best(state: TrainState, say: Say) -> None:
    if state.standing is not None and state.standing.step != state.step:
        say(f"best     step {state.standing.step} of {state.step}, whose weights the model has")


def begin(
    settings: RunSettings, source: Source, model: Classifier, ranks: Ranks = ALONE
) -> tuple[TrainState, TrainBatches]:
    """Return the state of a run before its first update, and the batches of its updates, in pieces."""
    classes, train = model.classes or source.classes, settings.train
    labels = renumber(source.labels, class_indices(source.classes, classes, str(source)))
    weights = weights_for(train.objective, classes, labels)
    state = TrainState.start(model.to(settings.device), train, weights, ranks)
    size = train.batch_size // train.pieces
    return state, TrainBatches(source, labels, settings.image_spec, settings.augment, size, train.seed)


def _environment(settings: RunSettings, ranks: Ranks) -> dict[str, Any]:
    return describe_environment(torch.device(settings.device), settings.workers, ranks.world)


def _keep_class_weights(
    settings: RunSettings, classes: tuple[str, ...], labels: Labels, run: RunFolder, say: Say
) -> None:
    """Say how much each class counts in the loss, and keep it in the run folder, unless all count alike."""
    weights = weights_for(settings.train.objective, classes, labels)
    if weights is not None:
        resolved = dict(zip(distinct(classes), weights.tolist(), strict=True))
        say(f"weights  {describe(resolved)}")
        text = json.dumps(resolved, indent=2, ensure_ascii=False) + "\n"
        run.write(CLASS_WEIGHTS, text)


def _result(
    path: Path, model: Classifier, predictions: dict[str, AnyPredictions], sources: Mapping[str, Source]
) -> RunResult:
    metrics = {event["name"]: float(event["value"]) for event in read_metrics(path)}
    return RunResult(path, model, metrics, predictions, sources)


def _open_data(settings: RunSettings, say: Say, given: Given | None, ranks: Ranks) -> Data:
    """Return the sources, without their bad images where the settings say to skip them; the first rank looks for these."""
    train_source = given.train if given else _opened(settings.train_data)
    evals = given.evals if given else {name: _opened(source) for name, source in settings.evals.items()}
    lines = oddities(train_source)
    for source in evals.values():
        class_indices(source.classes, train_source.classes, str(source))
        if not isinstance(settings.train.objective, MaskedPatches):
            refuse_unlabelled(source)
        lines += oddities(source, twins=False)  # its classes are among those
    if not evals and not given:
        lines.append(f"{train_source}: no class has two images, so that none is held back to evaluate on")
    for line in dict.fromkeys(lines) if ranks.first else ():
        log.warning("%s", line)
    if settings.on_bad_image == "fail":
        if ranks.first:
            _refuse_bad_images([train_source, *evals.values()], settings.workers, settings.image_spec.limits, say)
        ranks.tell()  # so long it may take
        return Data(train_source, evals)
    bad: list[ImageError] = []
    kept_train = _without_bad_images(train_source, settings, bad, say, ranks)
    kept_evals = {name: _without_bad_images(source, settings, bad, say, ranks) for name, source in evals.items()}
    return Data(kept_train, kept_evals, tuple(bad))


def training_data(settings: RunSettings, say: Say) -> Source:
    """Return what a run is trained on, without its bad images where the settings say to skip them.

    Raises:
        DataError: it cannot be opened, or exists only in a Python program.
    """
    source = _opened(settings.train_data)
    return source if settings.on_bad_image == "fail" else _without_bad_images(source, settings, [], say, ALONE)


def _opened(source: Settings) -> Source:
    if isinstance(source, InProgram):
        raise DataError(source.description, "exists only in the program that made it", "resume the run from there")
    return cast(Source, source)


def _refuse_bad_images(sources: Sequence[Source], workers: int, limits: Limits, say: Say) -> None:
    """Refuse files that cannot be decoded before the run begins; with more than `LOOKED_THROUGH`, when it comes to one of them."""
    count = sum(map(len, sources))
    if count > LOOKED_THROUGH or not any(isinstance(source.read(0).data, bytes) for source in sources):
        return
    say(f"checking {count:,} images")
    found = {str(source): list(find_bad_images(source, workers, limits).values()) for source in sources}
    named = ", ".join(name for name, errors in found.items() if errors)
    if named:
        raise BadImagesError(named, [error for errors in found.values() for error in errors], count)


def _without_bad_images(source: Source, settings: RunSettings, bad: list[ImageError], say: Say, ranks: Ranks) -> Source:
    """Return the part of `source` that can be decoded; the rest is said, and added to `bad`."""
    found = find_bad_images(source, settings.workers, settings.image_spec.limits) if ranks.first else {}
    bad.extend(found.values())
    for error in found.values():
        say(f"skipped {error}")
    left_out = set(ranks.tell(list(found)))
    say(f"{source}: {len(source) - len(left_out):,} of {len(source):,} images can be used")
    return Subset(source, [index for index in range(len(source)) if index not in left_out]) if left_out else source


def first_model(settings: RunSettings, source: Source, say: Say) -> Classifier:
    """Return the model before its first step, from the weights that the settings name, or fresh."""
    classes = source.classes if settings.model.num_classes else ()
    if settings.weights is None:
        model = build(settings.model, settings.train.seed, classes)
        model.image_spec = settings.image_spec
        return model
    check_origin(settings.weights)
    path = Path(settings.weights.path)
    contents = read(path, kind=type(settings.model))
    loaded = fit(contents, path, settings.model, settings.image_spec, classes)
    for line in loaded.report.lines():
        say(line)
    return loaded.model


def check_origin(origin: Origin) -> None:
    """Check that the weights file is the one that the settings name.

    Raises:
        WeightsError: it is missing or has changed.
    """
    path = Path(origin.path)
    if not path.is_file():
        raise WeightsError(path, "is gone", "the run starts from it: put it back")
    if files.sha256(path) != origin.sha256:
        raise WeightsError(path, "has changed since the run was set up", "put the first file back, or start a new run")
