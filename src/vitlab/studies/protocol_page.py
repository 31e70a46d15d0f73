"""What a transfer by the paper's protocol came to: lines for people, JSON for programs, and both as files in its folder."""

from pathlib import Path
from typing import Any

from vitlab import files
from vitlab.config import to_json
from vitlab.evals.interval import over_runs
from vitlab.studies.cell import JUDGED_BY
from vitlab.studies.protocol import DEV, Found
from vitlab.studies.recipe import Expected, recipes
from vitlab.train.run import pretty

RESULT, REPORT = "result.json", "report.md"


def as_json(found: Found) -> dict[str, Any]:
    """Return everything that came out, for programs; shares are from 0 to 1, the deviation is that of the sample."""
    protocol, settings = found.protocol, found.protocol.settings
    scores = _scores(found)
    (name, test), *_ = settings.evals.items()
    return {
        "protocol": "paper",
        "command": protocol.command,
        "recipe": settings.recipe,
        "model": settings.model.describe(),
        "weights": settings.weights and to_json(settings.weights),
        "train": str(settings.train_data),
        "dev_share": protocol.share,
        "trials": {name: to_json(outcome) for name, outcome in found.trials.items()},
        "chosen": found.chosen,
        "metric": _metric(found),
        "test": str(test),
        "images": int(next(iter(found.finals.values())).of("count")),
        "seeds": {str(seed): to_json(outcome) for seed, outcome in found.finals.items()},
        "scores": scores,
        "mean": over_runs(scores).mean,
        "deviation": over_runs(scores).std,
        "average": settings.train.average,
        "published": [to_json(row) for row in _published(found)],
        "evaluated": name,
    }


def lines(found: Found) -> list[str]:
    """Return what came out for people."""
    called = JUDGED_BY[_metric(found)]
    said = [f"{DEV} {name}: {outcome.words()}" for name, outcome in found.trials.items()]
    if found.trials:
        said.append(f"chosen   {found.chosen}")
    scores = _scores(found)
    each = ", ".join(f"{100 * score:.2f}" for score in scores)
    said.append(f"{called}{'':{max(1, 9 - len(called))}}{_mean(scores)} on {_count(found):,} images (seeds: {each})")
    return said + [f"paper    {row.top1:.2f}{_plus(row.deviation)} % ({_origin(row)})" for row in _published(found)]


def write_files(found: Found, out: Path) -> Path:
    """Write the result as JSON and as a page of Markdown into the folder of the protocol, and return the page."""
    files.write_atomic(out / RESULT, pretty(as_json(found)))
    files.write_atomic(out / REPORT, markdown(found).encode())
    return out / REPORT


def markdown(found: Found) -> str:
    """Return the page."""
    protocol, settings, called = found.protocol, found.protocol.settings, JUDGED_BY[_metric(found)]
    (_, test), *_ = settings.evals.items()
    train, weights = settings.train, settings.weights.path if settings.weights else "none: from scratch"
    average = f", averaged weights ({train.average:g})" if train.average else ""
    parts = [
        f"# Transfer to {settings.train_data}\n\n{called} {_mean(_scores(found))} on {_count(found):,} images of {test}.\n\n",
        f"- weights: {weights}\n- model: {settings.model.describe()}\n- recipe: {settings.recipe}, {train.steps:,} steps of "
        f"{train.batch_size} images{average}\n- command: `{protocol.command}`\n\n",
    ]
    if found.trials:
        parts.append(f"## Trials\n\nOn {protocol.share:.0%} of the training images, held out of every class.\n\n")
        rows = [
            [name, *([outcome.diverged, ""] if outcome.diverged else _cells(outcome.score, outcome.of("loss")))]
            for name, outcome in found.trials.items()
        ]
        parts.append(_table(["trial", called, "loss"], rows) + f"\nChosen: {found.chosen}.\n\n")
    rows = [[str(seed), *_cells(outcome.score, outcome.of("loss"))] for seed, outcome in found.finals.items()]
    parts.append(f"## Runs on all training images, with {found.chosen}\n\n" + _table(["seed", called, "loss"], rows))
    if published := _published(found):
        rows = [[_origin(row), f"{row.top1:.2f}{_plus(row.deviation)}"] for row in published]
        parts.append("\n## Published\n\n" + _table(["of the same network", "top-1, %"], rows))
    return "".join(parts)


def _metric(found: Found) -> str:
    return next(iter(found.finals.values())).judged_by


def _scores(found: Found) -> list[float]:
    return [outcome.score for outcome in found.finals.values()]


def _count(found: Found) -> int:
    return int(next(iter(found.finals.values())).of("count"))


def _mean(scores: list[float]) -> str:
    found = over_runs(scores)
    return f"{100 * found.mean:.2f}{'' if found.std is None else _plus(100 * found.std)} %"


def _plus(deviation: float | None) -> str:
    return "" if deviation is None else f" ± {deviation:.2f}"


def _published(found: Found) -> list[Expected]:
    """Return the published results of the same network and recipe, from whatever weights."""
    settings = found.protocol.settings
    known = recipes().get(settings.recipe)
    return [row for row in (known.expected if known else ()) if row.is_of(settings.model) and "ReaL" not in row.on]


def _origin(row: Expected) -> str:
    return ", ".join(filter(None, (f"{row.pretrained} on {row.on}", row.source, row.note)))


def _cells(score: float, loss: float) -> list[str]:
    return [f"{100 * score:.2f} %", f"{loss:.4f}"]


def _table(columns: list[str], rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (columns, ["---"] * len(columns), *rows))
