"""Standing: how the evaluations of a run compare, for ending it when they no longer get better."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

METRICS = (("map", 1), ("top1", 1), ("loss", -1))
"""What is compared, the first of these that an evaluation has, and whether more of it is better or less."""


@dataclass(frozen=True)
class Standing:
    """The best evaluation so far: its score (more is better), after which step it was made, and how many came after it."""

    score: float
    step: int
    since: int = 0


def score_of(values: Mapping[str, float]) -> float:
    """Return the score of an evaluation with `values` named "<source>/<metric>": that of the first source.

    Several labels an image are scored by mean average precision, one label by top-1, and where there is neither the loss counts;
    what is no number is worse than any.
    """
    source = next(iter(values)).rpartition("/")[0]
    name, sign = next((f"{source}/{metric}", sign) for metric, sign in METRICS if f"{source}/{metric}" in values)
    return -math.inf if math.isnan(values[name]) else sign * values[name]


def after(before: Standing | None, step: int, score: float) -> Standing:
    """Return the standing after an evaluation at `step`; one that is only as good as the best is not better."""
    if before is None or score > before.score:
        return Standing(score, step)
    return Standing(before.score, before.step, before.since + 1)
