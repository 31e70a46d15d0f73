"""What the suite came to: lines for people, JSON for programs, one page; each number has its interval and the paper's beside it."""

from pathlib import Path
from typing import Any

from vitlab import files
from vitlab.config import to_json
from vitlab.data.catalog import entries
from vitlab.studies.report import render
from vitlab.studies.suite import CALLED, LARGEST, PARTS, VTAB, Left, Number, Published, Result, Suite
from vitlab.train.run import pretty

RESULT, PAGE = "result.json", "index.html"
TITLES = {
    "classify": "As it is, on ImageNet's classes",
    "fewshot": "A linear head on a few images a class",
    "transfer": "Fine-tuned by the paper's protocol",
    "vtab": "VTAB-1k: 19 tasks of 1,000 images",
}
EXPLAINED = {
    "classify": "No weight is changed. With ReaL labels any of an image's labels is right; of ObjectNet's images any of ImageNet's "
    "classes that stand for theirs. The paper's numbers are of weights that were fine-tuned on ImageNet.",
    "fewshot": "The features stay as they are; a linear head is fitted in closed form (section 4.1), with an l2 of 2^10. Mean and "
    "sample deviation are over draws of the images.",
    "transfer": "The learning rate is chosen on images that are held out, then all training images are used (table 4). Mean and "
    "sample deviation are over runs.",
    "vtab": "One setting for all tasks (appendix B.1.1). The interval of the mean is over tasks: how it would move with others of "
    "the kind.",
}


def as_json(suite: Suite) -> dict[str, Any]:
    """Return everything for programs: shares from 0 to 1, but the published numbers, which are percents as in the paper."""
    return {
        "suite": "paper",
        "command": suite.plan.command,
        "weights": to_json(suite.plan.weights),
        "model": suite.model.describe(),
        "steps": suite.plan.steps,
        "changes": list(suite.plan.changes),
        "results": [to_json(result) for result in suite.results],
        "left_out": [
            {"part": left.part, "data": left.data, "reason": left.reason, "failed": left.failed} for left in suite.left
        ],
    }


def rows(suite: Suite) -> list[list[str]]:
    """Return the table for a terminal, its heading first."""
    heading = ["part", "data", "measure", "here, %", "95 % interval", "in the paper, %"]
    return [heading, *([result.part, *cells] for result in suite.results for cells in cells_of(result))]


def cells_of(result: Result) -> list[list[str]]:
    """Return a row for each number of a result: data, measure, value, interval, published values."""
    return [
        [title_of(result.data), number.name, shown(number), interval(number), "; ".join(map(beside, number.published))]
        for number in result.numbers
    ]


def lines(suite: Suite) -> list[str]:
    """Return what there is to say below the table."""
    said = [f"{result.part} {result.data}: {remark}" for result in suite.results for remark in result.remarks]
    return said + [f"{reason_word(left)} {left.part} {left.data}: {left.reason}" for left in suite.left]


def write_files(suite: Suite, out: Path) -> Path:
    """Write the result as JSON and as a page into the suite's folder, and return the page."""
    files.write_atomic(out / RESULT, pretty(as_json(suite)))
    parts = [part for part in PARTS if any(part == each.part for each in (*suite.results, *suite.left))]
    sections = [
        {
            "title": TITLES[part],
            "text": EXPLAINED[part],
            "results": [result for result in suite.results if result.part == part],
            "left": [left for left in suite.left if left.part == part],
        }
        for part in parts
    ]
    context = {
        "title": f"{Path(suite.plan.weights.path).name}: measured as the paper measures",
        "suite": suite,
        "model": suite.model,
        "sections": sections,
        "largest": LARGEST,
        "shown": shown,
        "interval": interval,
        "beside": beside,
        "name": title_of,
        "word": reason_word,
        "shortened": suite.plan.steps is not None or bool(suite.plan.changes),
    }
    files.write_atomic(out / PAGE, render("suite.html", context).encode())
    return out / PAGE


def title_of(data: str) -> str:
    """Return what people call a data set."""
    if data == VTAB:
        return "VTAB-1k"
    return CALLED.get(data) or entries()[data].title.partition(":")[0]


def shown(number: Number) -> str:
    """Return a number in percent, with its deviation where it is of several runs."""
    return f"{100 * number.value:.2f}" + ("" if number.deviation is None else f" ± {100 * number.deviation:.2f}")


def interval(number: Number) -> str:
    """Return the interval of a number in percent, "" where it has none."""
    return "" if number.interval is None else "–".join(f"{100 * end:.1f}" for end in number.interval)


def beside(row: Published) -> str:
    """Return a number of the paper with the weights that it is of."""
    deviation = "" if row.deviation is None else f" ± {row.deviation:.2f}"
    return f"{row.percent:.2f}{deviation} {row.model} ({row.source})"


def reason_word(left: Left) -> str:
    """Return what to call a measurement that was not made."""
    return "failed" if left.failed else "left out"
