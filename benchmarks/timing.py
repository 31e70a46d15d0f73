"""Paired timings: the contestants take turns, medians are compared, the spread is kept."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One measured claim: how many times faster `ours` is than `against`, in the same run."""

    claim: str
    against: str
    ratio: float
    low: float
    high: float

    def markdown(self) -> str:
        return f"| {self.claim} | {self.against} | {self.ratio:.2f} | {self.low:.2f}–{self.high:.2f} |"


def compare(claim: str, against: str, ours: Callable[[], object], other: Callable[[], object], rounds: int = 9) -> Row:
    """Time both in turn, A B A B …, after one warm-up each; ratios are taken round by round."""
    ours(), other()
    ratios: list[float] = []
    for _ in range(rounds):
        seconds: list[float] = []
        for work in (ours, other):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[1] / seconds[0])
    return Row(claim, against, statistics.median(ratios), min(ratios), max(ratios))
