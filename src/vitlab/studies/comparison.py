"""Comparison: the runs below a folder in a list, and a few of them side by side."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from vitlab.errors import RunFolderError, SettingsError
from vitlab.inspection import charts
from vitlab.inspection.drawing import Drawing
from vitlab.studies.picture import check_picture, save_picture
from vitlab.studies.record import Record, differing, is_run, read_record

DEEP = 3
"""So many folders below the one that is given, runs are looked for."""
SHOWN_WIDTH = 48
DRAWN = (("loss", "loss"), ("map", "mean average precision"), ("top1", "top-1 accuracy"))
"""Which figures of evaluations are drawn, by the end of their name, and what they are called."""

SPEED = "images a second"

Row = list[str]
Found = Record | RunFolderError
"""A run, or what is wrong with the folder of one."""


def find_runs(given: Sequence[Path]) -> list[Found]:
    """Return the runs `given`, or those below the one folder that is given; of one of these that cannot be read, what is wrong.

    Raises:
        RunFolderError: there is no such folder, or one of several that were given is no run.
    """
    if len(given) > 1 or is_run(given[0]):
        return [read_record(path) for path in given]
    if not given[0].is_dir():
        raise RunFolderError(given[0], "is no folder", "give the folder that your runs are in")
    return [_read(path) for path in _runs_below(given[0], DEEP)]


def tables(found: Sequence[Found], given: Sequence[Path]) -> list[list[Row]]:
    """Return what is to be printed of what `find_runs` has found: a list, or the tables of a comparison."""
    if len(given) == 1 and not is_run(given[0]):
        return [_list(found, given[0])]
    return _comparison([run for run in found if isinstance(run, Record)])


def save_curves(found: Sequence[Found], path: Path) -> Path:
    """Draw the curves of the runs into the new file `path`.

    Raises:
        SettingsError: the file exists, its kind is unknown, it cannot be written, or there is nothing to draw.
    """
    check_picture(path)
    records = [run for run in found if isinstance(run, Record)]
    drawing = _curves_of(records) if records else None
    if drawing is None:
        raise SettingsError("--out", "no run has logged anything yet", "wait for its first figures")
    return save_picture(drawing, path)


def _runs_below(folder: Path, deep: int) -> Iterator[Path]:
    if is_run(folder):
        yield folder
    elif deep:
        try:
            inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        except OSError:  # not ours to read
            return
        for path in inside:
            yield from _runs_below(path, deep - 1)


def _read(path: Path) -> Found:
    try:
        return read_record(path)
    except RunFolderError as error:
        return error


def _list(runs: Sequence[Found], folder: Path) -> list[Row]:
    """Return a table of `runs`, its heading first."""
    rows = [
        ["run", "state", "steps", "result", "best", "images/s", "used", "started", "took", "model", "data", "recipe"]
    ]
    for run in runs:
        if isinstance(run, RunFolderError):
            rows.append([_name(Path(run.where), folder), f"unreadable: {run.what}"])
            continue
        speed, used = run.typical("train/images_per_second"), run.typical("train/utilisation")
        chosen = run.chosen
        rows.append(
            [
                _name(run.path, folder),
                run.state,
                f"{run.step:,}/{'?' if run.steps is None else f'{run.steps:,}'}",
                "" if chosen is None else f"{chosen} {_value(chosen, run.last[chosen])}",
                "" if chosen not in run.best else _value(chosen, run.best[chosen]),
                "" if speed is None else f"{speed:,.0f}",
                "" if used is None else f"{100 * used:.0f} %",
                "" if run.started is None else datetime.fromtimestamp(run.started).strftime("%Y-%m-%d %H:%M"),
                str(timedelta(seconds=round(run.seconds))) if run.seconds else "",
                run.model,
                run.data,
                run.recipe,
            ]
        )
    return rows


def notes(runs: Sequence[Found]) -> list[str]:
    """Return a line for everything in the folders that could not be read."""
    return [f"{run.path}: {note}" for run in runs if isinstance(run, Record) for note in run.notes]


def _comparison(runs: Sequence[Record]) -> list[list[Row]]:
    """Return two tables of a few runs side by side: the settings in which they differ, and the last value of every figure."""
    names = _names(runs)
    settings = [
        [path, *("-" if value is None else _short(value) for value in values)]
        for path, values in differing(runs).items()
    ]
    logged = dict.fromkeys(name for run in runs for name in run.last)
    figures_of = [["state", *(run.state for run in runs)], ["step", *(f"{run.step:,}" for run in runs)]]
    figures_of += [
        [name, *(_value(name, run.last[name]) if name in run.last else "-" for run in runs)] for name in logged
    ]
    for name in ("train/images_per_second", "train/utilisation", "train/memory_bytes"):
        values = [run.typical(name) for run in runs]
        if any(value is not None for value in values):
            figures_of.append([name, *("-" if value is None else _value(name, value) for value in values)])
    compared = [[["settings that differ", *names], *settings]] if settings else []
    return [*compared, [["figures", *names], *figures_of]]


def _curves_of(runs: Sequence[Record]) -> Drawing | None:
    """Draw the curves of runs: loss in training, loss and accuracy or precision on other images, rate, gradient, speed."""
    panels: dict[str, dict[str, charts.Curve]] = {"training loss": _curves(runs, "train/loss")}
    evaluated = dict.fromkeys(name for run in runs for name in run.best)
    for end, words in DRAWN:
        for name in evaluated:
            if name.endswith(f"/{end}"):
                panels[f"{name.rsplit('/', 1)[0]}: {words}"] = _curves(runs, name)
    panels["learning rate"] = _curves(runs, "train/lr")
    panels["gradient norm"] = _curves(runs, "train/grad_norm")
    panels[SPEED] = _curves(runs, "train/images_per_second")
    filled = {title: series for title, series in panels.items() if series}
    return charts.curves(filled, from_zero=(SPEED,)) if filled else None


def as_json(run: Found) -> dict[str, Any]:
    """Return what is known of a run as JSON; times are in UTC."""
    if isinstance(run, RunFolderError):
        return {"path": run.where, "state": "unreadable", "notes": [run.what]}
    return {
        "path": str(run.path),
        "state": run.state,
        "recipe": run.recipe,
        "model": run.model,
        "data": run.data,
        "step": run.step,
        "steps": run.steps,
        "last": run.last,
        "best": run.best,
        "images_per_second": run.typical("train/images_per_second"),
        "utilisation": run.typical("train/utilisation"),
        "started": _hour(run.started),
        "ended": _hour(run.ended),
        "seconds": round(run.seconds, 3),
        "notes": list(run.notes),
    }


def _curves(runs: Sequence[Record], name: str) -> dict[str, charts.Curve]:
    found = {label: run.curve(name) for label, run in zip(_names(runs), runs, strict=True)}
    return {label: curve for label, curve in found.items() if curve[0]}


def _names(runs: Sequence[Record]) -> list[str]:
    """Return the shortest names that tell the runs apart: the last part of their paths, or more of it."""
    paths = [run.path.resolve() for run in runs]
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            return names
    return [str(path) for path in paths]


def _name(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path != folder else str(path)


def _short(value: str) -> str:
    return value if len(value) <= SHOWN_WIDTH else f"{value[: SHOWN_WIDTH - 1]}…"


def _value(name: str, value: float) -> str:
    if name.endswith(("_bytes",)):
        return f"{value / 1e6:,.0f} MB"
    if name.endswith(("/loss", "/lr", "/grad_norm")):
        return f"{value:.4g}"
    return f"{100 * value:.1f} %" if 0 <= value <= 1 else f"{value:,.0f}"


def _hour(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
