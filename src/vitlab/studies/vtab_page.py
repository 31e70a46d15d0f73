"""What VTAB-1k came to: the table with group means and the paper's numbers beside it, for people and for programs."""

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from vitlab import files
from vitlab.config import to_json
from vitlab.evals.interval import wilson_interval
from vitlab.studies.vtab import Scored, all_tasks, table9
from vitlab.train.run import pretty

RESULT, REPORT = "result.json", "report.md"
TOTAL = "all"

Row = list[str]


def group_means(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Return the mean of each group of tasks, and under "all" that of the 19; None for those of which a task has no score."""
    tasks = all_tasks()
    groups = {group: [task for task in tasks if tasks[task] == group] for group in dict.fromkeys(tasks.values())}
    return {
        name: mean(scores[task] for task in names) if all(task in scores for task in names) else None
        for name, names in {**groups, TOTAL: list(tasks)}.items()
    }


def as_json(scored: Scored) -> dict[str, Any]:
    """Return everything for programs: shares from 0 to 1, but the published numbers, which are percents as in the paper."""
    tasks = all_tasks()
    return {
        "command": scored.plan.command,
        "weights": to_json(scored.plan.weights),
        "setting": to_json(scored.setting),
        "choice": scored.choice and to_json(scored.choice),
        "tasks": {
            task: {
                "group": tasks[task],
                "top1": outcome.score,
                "top1_interval": list(wilson_interval(outcome.score, round(outcome.of("count")))),
                "loss": outcome.of("loss"),
                "images": round(outcome.of("count")),
            }
            for task, outcome in scored.tasks.items()
        },
        "means": group_means(_scores(scored)),
        "missing": dict(scored.missing),
        "published": {model: _published(model) for model in _models()},
    }


def table(scored: Scored) -> list[Row]:
    """Return the table, its heading first: a row a task that was run, then the means of the groups and of the 19."""
    tasks, scores, titles = all_tasks(), _scores(scored), {row["task"]: row["title"] for row in table9()}
    rows = [["group", "task", "top-1, %", "95 % interval", *_models()]]
    for task, outcome in scored.tasks.items():
        low, high = wilson_interval(outcome.score, round(outcome.of("count")))
        shown = [f"{100 * outcome.score:.1f}", f"{100 * low:.1f}–{100 * high:.1f}"]
        rows.append([tasks[task], titles[task], *shown, *(f"{_published(model)[task]:.1f}" for model in _models())])
    theirs = {model: group_means(_published(model)) for model in _models()}
    for name, value in group_means(scores).items():
        members = [task for task in tasks if name in (TOTAL, tasks[task])]
        run = sum(task in scores for task in members)
        ours = f"{100 * value:.1f}" if value is not None else f"{run} of {len(members)}"
        rows.append([name, f"mean of {len(members)}", ours, "", *(f"{theirs[model][name]:.1f}" for model in _models())])
    return rows


def remarks(scored: Scored) -> list[str]:
    """Return what there is to say below the table: how the setting was chosen, and what is missing."""
    said = [f"setting  {scored.setting}, the same for all tasks"]
    if scored.choice:
        each = ", ".join(f"{name} {100 * score:.1f} %" for name, score in scored.choice.scores.items())
        said.append(f"chosen   by the mean over {len(scored.choice.tasks)} tasks on 200 validation images each: {each}")
    said += [f"missing  {task}: {how}" for task, how in scored.missing.items()]
    if len(scored.tasks) < len(all_tasks()):
        said.append(f"{len(scored.tasks)} of {len(all_tasks())} tasks: no mean of 19 is claimed")
    return said


def write_files(scored: Scored, out: Path) -> Path:
    """Write the result as JSON and as a page of Markdown into the folder of the study, and return the page."""
    files.write_atomic(out / RESULT, pretty(as_json(scored)))
    heading, *rows = table(scored)
    lines = ["# VTAB-1k", "", *(f"| {' | '.join(row)} |" for row in (heading, ["---"] * len(heading), *rows))]
    lines += ["", *(f"- {line}" for line in remarks(scored)), f"- weights: {scored.plan.weights.path}"]
    lines += [f"- command: `{scored.plan.command}`", "- columns at the right: table 9 of the paper", ""]
    files.write_atomic(out / REPORT, "\n".join(lines).encode())
    return out / REPORT


def _models() -> list[str]:
    return [name for name in table9()[0] if name not in ("task", "title")]


def _published(model: str) -> dict[str, float]:
    return {row["task"]: float(row[model]) for row in table9()}


def _scores(scored: Scored) -> dict[str, float]:
    return {task: outcome.score for task, outcome in scored.tasks.items()}
