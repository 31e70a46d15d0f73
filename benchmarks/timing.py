"""Paired timings: the contestants take turns, medians are compared, the spread is kept."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One measured claim: how many times faster `ours` is than `against`, in the same run."""

    claim: str
    against: str
    ratio: float
    low: float
    high: float

    @classmethod
    def of(cls, claim: str, against: str, ours: list[float], other: list[float]) -> "Row":
        """Return the row of seconds that were taken in turn; ratios are taken round by round."""
        ratios = [theirs / our for our, theirs in zip(ours, other, strict=True)]
        return cls(claim, against, statistics.median(ratios), min(ratios), max(ratios))

    def markdown(self) -> str:
        return f"| {self.claim} | {self.against} | {self.ratio:.2f} | {self.low:.2f}–{self.high:.2f} |"


def compare(claim: str, against: str, ours: Callable[[], object], other: Callable[[], object], rounds: int = 9) -> Row:
    """Time both in turn, A B A B …, after one warm-up each; ratios are taken round by round."""
    seconds = take_turns({"ours": ours, "other": other}, rounds)
    return Row.of(claim, against, seconds["ours"], seconds["other"])


def take_turns(work: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each contestant, round by round, after one warm-up each."""
    for each in work.values():
        each()
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, each in work.items():
            start = time.perf_counter()
            each()
            seconds[name].append(time.perf_counter() - start)
    return seconds
