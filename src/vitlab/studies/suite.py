"""Suite: all that the paper measures of weights, as far as the data are here, and the paper's own numbers.

A measurement is one data set in one part: the weights as they are on ImageNet's classes, linear heads on a few images a class,
fine-tuning by the paper's protocol, and VTAB-1k. Each leaves a file in the suite's folder when it is finished and is not made
again; one that cannot be made is left out with its reason, and the others go on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import numpy as np

from vitlab import files
from vitlab.config import Settings, nearest, parse, read_json, to_json
from vitlab.data.catalog import data_folder, entry, place_of, require
from vitlab.data.open import refuse_shadowed
from vitlab.errors import DataError, SettingsError, VitlabError
from vitlab.evals.interval import bootstrap_interval, over_runs, wilson_interval
from vitlab.models.classifier import AnySettings
from vitlab.studies.cell import Outcome, Studio, keep_plan
from vitlab.studies.evaluation import Reading, evaluate_model
from vitlab.studies.fewshot import Protocol as FewShot
from vitlab.studies.fewshot import measure_data, open_sides
from vitlab.studies.plan import Asked
from vitlab.studies.protocol import plan_protocol, run_protocol
from vitlab.studies.recipe import Origin, expectations
from vitlab.studies.vtab import all_tasks, plan_vtab, present, run_vtab, table9, usable
from vitlab.train.run import pretty
from vitlab.weights.load import find, read

PLAN, RESULTS = "suite.json", "results"
VTAB = "vtab-1k"
PARTS: dict[str, tuple[str, ...]] = {
    "classify": ("imagenet", "imagenet-real", "objectnet"),
    "fewshot": ("imagenet", "caltech101", "cifar100", "dtd", "pets"),
    "transfer": ("imagenet", "cifar10", "cifar100", "pets", "flowers102"),
    "vtab": (VTAB,),
}
"""The data sets of each part, by their names in the catalog. Few-shot is on those of the authors' later code that it has."""
CALLED = {
    "imagenet": "ImageNet",
    "imagenet-real": "ImageNet ReaL",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "pets": "Oxford-IIIT Pets",
    "flowers102": "Oxford Flowers-102",
    "objectnet": "ObjectNet",
    VTAB: "VTAB (19 tasks)",
}
"""What the paper's tables call them."""
IMAGENET_CLASSES = 1000
SHOTS = (1, 5, 10, 25)
OBJECTNET_MIDDLE = 480 / 512
"""The share of the shorter side that is seen of ObjectNet's images (Kolesnikov et al. 2020, appendix B)."""
LARGEST = "jft/H14"
"""Whose numbers stand beside those of networks that the paper has not."""


class Published(Settings):
    """A number of the paper in percent: of which weights, and where it stands."""

    model: str
    percent: float
    deviation: float | None = None
    source: str


class Number(Settings):
    """A share that was measured, its 95 % interval for so many `images` (or tasks), and its sample deviation over `runs`."""

    name: str
    value: float
    interval: tuple[float, float] | None = None
    deviation: float | None = None
    runs: int = 1
    images: int
    published: tuple[Published, ...] = ()


class Result(Settings):
    """What one measurement gave; `remarks` are what one should know beside it."""

    part: str
    data: str
    numbers: tuple[Number, ...]
    remarks: tuple[str, ...] = ()


class SuitePlan(Settings):
    """What decides the numbers; parts can be added. `steps` shortens every training, of which a tenth is then warm-up; None
    leaves them at the paper's length."""

    weights: Origin
    seed: int | None
    steps: int | None
    changes: tuple[str, ...]
    command: str = ""


@dataclass(frozen=True)
class Left:
    """A measurement that was not made, and why; `failed` says that it was tried."""

    part: str
    data: str
    reason: str
    failed: bool = False


@dataclass(frozen=True)
class Suite:
    """All that was measured and all that was not."""

    plan: SuitePlan
    model: AnySettings
    results: tuple[Result, ...]
    left: tuple[Left, ...]


@dataclass(frozen=True)
class Work:
    """What every measurement takes: the weights and how to use them, the suite's folder, and where it is shown."""

    asked: Asked
    model: AnySettings
    command: str
    out: Path
    studio: Studio

    @property
    def weights(self) -> str:
        """Where the weights are."""
        return str(self.asked.weights)


def choose_parts(names: Sequence[str]) -> tuple[str, ...]:
    """Return the parts called `names`, without any all of them.

    Raises:
        SettingsError: there is no such part.
    """
    for name in names:
        if name not in PARTS:
            raise SettingsError("--parts", f"there is no part '{name}'", nearest(name, list(PARTS)))
    return tuple(part for part in PARTS if part in names or not names)


def plan_suite(asked: Asked, command: str = "") -> tuple[SuitePlan, AnySettings]:
    """Return the plan for the weights that `asked` names, and what network they are of.

    Raises:
        RequestError: there are no such weights.
    """
    assert asked.weights is not None
    path = find(asked.weights)
    origin = Origin(path=str(path.resolve()), sha256=files.sha256(path))
    plan = SuitePlan(weights=origin, seed=asked.seed, steps=asked.steps, changes=asked.changes, command=command)
    return plan, read(path).settings


def run_suite(
    asked: Asked,
    parts: Sequence[str],
    out: Path,
    studio: Studio,
    *,
    resume: bool = False,
    command: str = "",
    seen: Callable[[Suite], object] = lambda _: None,
) -> Suite:
    """Make what is left of the measurements of `parts` in the folder `out`; `seen` is given what there is after each.

    What other parts gave before is in it too.

    Raises:
        RequestError: there are no such weights, a setting is none or a path in the way, or the folder holds another plan or else.
        Interrupted: it was asked to stop; with `resume` it goes on.
    """
    plan, model = plan_suite(asked, command)
    for data in (data for part in parts for data in PARTS[part]):
        refuse_shadowed(data)
    if asked.changes:
        plan_protocol(_training(asked, "digits"))  # refuses what is no setting, before anything is computed or kept
    plan = keep_plan(out / PLAN, plan, resume)
    work = Work(asked, model, plan.command, out, studio)
    every = [(part, data) for part in PARTS for data in PARTS[part]]
    results = {each: result for each in every if (result := _finished(out, *each)) is not None}
    suite = Suite(plan, model, tuple(results.values()), ())
    for part, data in every:
        if part not in parts:
            continue  # what was finished of it before stays on the page
        found = results.get((part, data))
        if found is None or _may_grow(found):
            found = _made(work, part, data)
        if isinstance(found, Result):
            results[part, data] = found
        else:
            suite = replace(suite, left=(*suite.left, found))
        suite = replace(suite, results=tuple(results[each] for each in every if each in results))
        seen(suite)
    return suite


def _may_grow(result: Result) -> bool:
    """Return whether a finished measurement lacks tasks whose data may have come."""
    return result.part == "vtab" and bool(result.remarks)


def _finished(out: Path, part: str, data: str) -> Result | None:
    path = _path(out, part, data)
    return parse(Result, read_json(path), path) if path.exists() else None


def _made(work: Work, part: str, data: str) -> Result | Left:
    """Make a measurement and keep it, or say why not."""
    reason = _lacking(work.model, part, data)
    if reason:
        return Left(part, data, reason)
    work.studio.say(f"{part:8} {data}")
    try:
        result = MEASURES[part](work, data)
    except VitlabError as error:
        work.studio.say(f"         failed: {error}")
        return Left(part, data, str(error), failed=True)
    path = _path(work.out, part, data)
    path.parent.mkdir(exist_ok=True)
    files.write_atomic(path, pretty(to_json(result)))
    return result


def _path(out: Path, part: str, data: str) -> Path:
    return out / RESULTS / f"{part}-{data}.json"


def _lacking(model: AnySettings, part: str, data: str) -> str:
    """Return what a measurement lacks, "" when nothing."""
    if part == "classify" and model.num_classes != IMAGENET_CLASSES:
        head = f"a head of {model.num_classes:,} classes" if model.num_classes else "no head"
        return f"these weights have {head}: fine-tune them on ImageNet first"
    root = data_folder()
    try:
        if part == "vtab":
            present(list(all_tasks()))
        elif place_of(data, root) is None:
            require(data, root)
    except DataError as error:
        return f"{error.what}: {error.remedy}"
    return ""


def _classify(work: Work, data: str) -> Result:
    side = min(work.model.image_size)
    resize = round(side / OBJECTNET_MIDDLE) if data == "objectnet" else None
    found = evaluate_model(
        work.weights, data, Reading(resize=resize), workers=work.asked.workers, device=work.asked.device
    )
    predictions = found.predictions
    images = int(predictions.counted.sum())
    shares = {f"top-{k}": predictions.top(k) for k in (1, 5)}
    numbers = [
        _share(name, value, images, published(CALLED[data], work.model) if name == "top-1" else ())
        for name, value in shares.items()
    ]
    if predictions.calibration is not None:
        numbers.append(Number(name="calibration error (ECE)", value=predictions.calibration.ece, images=images))
    remarks = (f"the shorter side is {resize} pixels, of which the middle {side} are seen",) if resize else ()
    return Result(part="classify", data=data, numbers=tuple(numbers), remarks=remarks)


def _fewshot(work: Work, data: str) -> Result:
    sides = open_sides(data)
    fewest = int(np.bincount(sides[0].labels, minlength=len(sides[0].classes)).min())
    protocol = FewShot(shots=tuple(shots for shots in SHOTS if shots <= fewest) or (1,))
    found = measure_data(work.weights, sides, protocol, workers=work.asked.workers, device=work.asked.device)
    numbers: list[Number] = []
    for shots, accuracies in found.accuracies.items():
        scores = [float(score) for score in accuracies[:, found.best(shots)]]
        rows = published(f"{CALLED.get(data, entry(data).title)}, {shots} shots", work.model)
        numbers.append(_over_runs(f"{shots} {'image' if shots == 1 else 'images'} a class", scores, found.images, rows))
    missing = [str(shots) for shots in SHOTS if shots not in found.accuracies]
    remarks = (f"a class has {fewest} images, too few for {', '.join(missing)}",) if missing else ()
    return Result(part="fewshot", data=data, numbers=tuple(numbers), remarks=remarks)


def _training(asked: Asked, data: str) -> Asked:
    """Return what is asked of a transfer to `data`."""
    asked = replace(asked, data=data)
    if asked.steps:  # a recipe refuses a run that is not longer than its warm-up
        asked = replace(asked, changes=(f"train.schedule.warmup_steps={asked.steps // 10}", *asked.changes))
    return asked


def _transfer(work: Work, data: str) -> Result:
    _, protocol = plan_protocol(_training(work.asked, data), command=work.command)
    found = run_protocol(protocol, work.out / "transfer" / data, work.studio, resume=True)
    outcomes = list(found.finals.values())
    images = round(outcomes[0].of("count"))
    rows = published(CALLED[data], work.model)
    number = _over_runs("top-1", [outcome.score for outcome in outcomes], images, rows)
    remarks = (f"by recipe {protocol.settings.recipe}, {protocol.settings.train.steps:,} steps with {found.chosen}",)
    return Result(part="transfer", data=data, numbers=(number,), remarks=remarks)


def _vtab(work: Work, data: str) -> Result:
    here, missing = present(list(all_tasks()))
    here, wrong = usable(here, (), work.out / "vtab")
    for task, what in wrong.items():
        work.studio.say(f"         left out {task}: {what}")
    plan = plan_vtab(work.asked, here[0], command=work.command)
    scored = run_vtab(plan, work.asked, here, work.out / "vtab", work.studio, resume=True, missing=missing | wrong)
    titles = {row["task"]: row["title"] for row in table9()}
    numbers = [_task(titles[task], outcome, work.model) for task, outcome in scored.tasks.items()]
    scores = [outcome.score for outcome in scored.tasks.values()]
    if scored.missing:
        remarks = tuple(f"{task} is missing: {how}" for task, how in scored.missing.items())
    else:
        whole = Number(
            name=f"mean of {len(scores)} tasks",
            value=mean(scores),
            interval=bootstrap_interval(scores),
            images=len(scores),
            published=published(CALLED[data], work.model),
        )
        numbers, remarks = [*numbers, whole], ()
    return Result(part="vtab", data=data, numbers=tuple(numbers), remarks=remarks)


def _task(title: str, outcome: Outcome, model: AnySettings) -> Number:
    return _share(title, outcome.score, round(outcome.of("count")), published(f"VTAB {title}", model))


MEASURES: dict[str, Callable[[Work, str], Result]] = {
    "classify": _classify,
    "fewshot": _fewshot,
    "transfer": _transfer,
    "vtab": _vtab,
}


def _share(name: str, value: float, images: int, rows: tuple[Published, ...]) -> Number:
    return Number(name=name, value=value, interval=wilson_interval(value, images), images=images, published=rows)


def _over_runs(name: str, scores: list[float], images: int, rows: tuple[Published, ...]) -> Number:
    found = over_runs(scores)
    number = _share(name, found.mean, images, rows)
    return number.model_copy(update={"deviation": found.std, "runs": found.runs})


def published(on: str, model: AnySettings) -> tuple[Published, ...]:
    """Return the paper's numbers `on` a data set for the network of `model`; for one that it has not, those of its largest."""
    rows = [row for row in expectations() if row.on == on]
    chosen = [row for row in rows if row.is_of(model)] or [row for row in rows if row.pretrained == LARGEST]
    return tuple(
        Published(
            model=row.pretrained,
            percent=row.top1,
            deviation=row.deviation,
            source=", ".join(filter(None, (row.source, row.note))),
        )
        for row in chosen
    )
