"""Two models on the same images: how much better one is, and whether that may be chance."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitlab.data.labels import Labels, is_multi_label, renumber
from vitlab.data.source import class_indices
from vitlab.errors import DataError
from vitlab.evals.classify import AnyPredictions
from vitlab.evals.interval import wilson_interval


@dataclass(frozen=True)
class Paired:
    """How many images both models have right, one alone, the other alone, none."""

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def images(self) -> int:
        """How many images were compared."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def first(self) -> float:
        """The share that the first has right."""
        return (self.both + self.only_first) / self.images

    @property
    def second(self) -> float:
        """The share that the second has right."""
        return (self.both + self.only_second) / self.images

    @property
    def difference(self) -> float:
        """By how much the first is better."""
        return (self.only_first - self.only_second) / self.images

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the difference (Newcombe 1998, method 10).

        It joins the two Wilson intervals by how much the models' answers agree, and stays within -1 and 1 where the usual
        formula does not.
        """
        p, q, phi = self.first, self.second, self._agreement()
        (p_low, p_high), (q_low, q_high) = (wilson_interval(share, self.images) for share in (p, q))
        below, above = _joined(p - p_low, q_high - q, phi), _joined(p_high - p, q - q_low, phi)
        return max(-1.0, self.difference - below), min(1.0, self.difference + above)

    def p_value(self) -> float:
        """Return the probability of a difference at least as large if both were equally good: McNemar's exact test, two-sided.

        Only images that one model alone has right say anything: each would be a toss of a coin.
        """
        tosses, fewer = self.only_first + self.only_second, min(self.only_first, self.only_second)
        steps = np.arange(1, fewer + 1)
        logs = np.concatenate([[0.0], np.cumsum(np.log((tosses - steps + 1) / steps))])  # of the binomial coefficients
        return min(1.0, 2 * float(np.exp(logs - tosses * math.log(2)).sum()))

    def _agreement(self) -> float:
        """Return the correlation of the two models' answers, corrected for continuity where it is positive."""
        sides = (self.both + self.only_first, self.only_second + self.neither)
        others = (self.both + self.only_second, self.only_first + self.neither)
        product = math.prod(sides) * math.prod(others)
        if not product:
            return 0.0
        excess = self.both * self.neither - self.only_first * self.only_second
        return (excess if excess < 0 else max(excess - self.images / 2, 0.0)) / math.sqrt(product)

    def lines(self) -> list[str]:
        """Return the comparison for people."""
        low, high = self.interval()
        return [
            f"difference {100 * self.difference:+.2f} points of top-1 (95 % interval {100 * low:+.2f} to {100 * high:+.2f}) "
            f"on the same {self.images:,} images",
            f"right alone: {self.only_first:,} images, the other {self.only_second:,}; "
            f"p = {self.p_value():.2g} (McNemar's exact test)",
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the comparison for programs."""
        return {
            "top1": self.second,
            "difference": self.difference,
            "difference_interval": list(self.interval()),
            "p_value": self.p_value(),
            "both": self.both,
            "only_first": self.only_first,
            "only_second": self.only_second,
            "neither": self.neither,
        }


def _joined(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(one * one - 2 * phi * one * other + other * other, 0.0))


def pair(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Paired:
    """Return how the right answers of two models on the same images, [n] each in the same order, fall together."""
    both, only = int((first & second).sum()), int((first & ~second).sum())
    return Paired(both, only, int((~first & second).sum()), int((~first & ~second).sum()))


def compare(first: AnyPredictions, second: AnyPredictions) -> Paired:
    """Return the comparison in top-1 of two models on the same images, matched by their keys; images without a label do not count.

    Raises:
        DataError: they are of other images, of other classes, or of images that are labelled otherwise.
    """
    order = _matching(first.keys, second.keys)
    refuse_other_classes(first.classes, second.classes)
    places = class_indices(second.classes, first.classes, "the second model")
    rows, others = _rows(first.labels), _rows(renumber(second.labels, places)[order])
    same = (rows == others).all(axis=1) if rows.shape == others.shape else np.zeros(1, np.bool_)
    if not same.all():
        key = first.keys[int(same.argmin())]
        raise DataError("the two models", f"were given other labels, the first of '{key}'", "use the same labels")
    counted = first.counted
    return pair(first.hits(1)[counted], second.hits(1)[order][counted])


def refuse_other_classes(first: tuple[str, ...], second: tuple[str, ...]) -> None:
    """Refuse to compare models of other classes: to tell fewer apart is easier. The order may differ.

    Raises:
        DataError: it is so.
    """
    if sorted(first) != sorted(second):
        stray = [f", '{name}' is in one alone" for name in sorted(set(first) ^ set(second))] or [""]
        what = f"know other classes ({len(first):,} and {len(second):,}{stray[0]})"
        raise DataError("the two models", what, "compare models of the same classes")


def _matching(first: tuple[str, ...], second: tuple[str, ...]) -> NDArray[np.int64]:
    """Return the place in `second` of every key of `first`."""
    if first == second:
        return np.arange(len(first))
    index = {key: place for place, key in enumerate(second)}
    alone = [key for key in first if key not in index] or sorted(set(second) - set(first))
    if alone or len(first) != len(index) or len(second) != len(index):
        what = f"'{alone[0]}' is only in one of them" if alone else "a name is there more than once"
        raise DataError("the two models", f"were evaluated on other images: {what}", "evaluate both on the same ones")
    return np.array([index[key] for key in first], np.int64)


def _rows(labels: Labels) -> Labels:
    """Return labels as rows in which the same classes stand in the same order: [n, m]."""
    return np.sort(labels, axis=1) if is_multi_label(labels) else labels[:, None]
