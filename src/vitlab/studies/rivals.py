"""Rivals: ViTs and ResNets that cost about the same, and which of them is ahead."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from vitlab.evals.interval import OverRuns
from vitlab.studies.study import Scale


class Rivals(NamedTuple):
    """The names of a ViT and a ResNet whose forward pass costs about the same."""

    vit: str
    resnet: str


RIVALS: Mapping[Scale, tuple[Rivals, ...]] = {
    "miniature": (Rivals("Nano/4", "R8x0.5"), Rivals("Micro/4", "R8x1")),
    "small": (Rivals("Mini/4", "R26x1"), Rivals("Ti/8", "R14x2")),
    "paper": (Rivals("B/32", "BiT-R50x1"), Rivals("L/16", "BiT-R152x2")),
}
"""The smaller two and the larger two; the paper's are those that it compares in section 4.3."""

NEAREST: Mapping[Scale, str] = {"miniature": "new fractals", "small": "cifar10", "paper": "imagenet"}
"""The task on which rivals are judged: of images like those of the pre-training, as ImageNet's are like JFT's."""


class Lead(NamedTuple):
    """How far a ViT is ahead of its rival, and how far that varies over seeds, both as shares."""

    mean: float
    deviation: float

    def words(self, other: str = "") -> str:
        """Return it in points, for people, with the name of the `other`."""
        side = f"ahead of {other}" if self.mean >= 0 else f"behind {other}"
        return f"{100 * abs(self.mean):.1f} ± {100 * self.deviation:.1f} points {side if other else side.split()[0]}"


def lead(vit: OverRuns | None, resnet: OverRuns | None) -> Lead | None:
    """Return the lead of a ViT over its rival, None where one of them was not measured."""
    if vit is None or resnet is None:
        return None
    return Lead(vit.mean - resnet.mean, math.hypot(vit.std or 0, resnet.std or 0))


def turns(first: Lead, last: Lead) -> bool | None:
    """Return whether a ViT that is behind at `first` is ahead at `last`, each by more than the deviation.

    It is False where one of the two is clearly the other way, and None where a difference is too small to tell.
    """
    if first.mean > first.deviation or last.mean < -last.deviation:
        return False
    return True if first.mean < -first.deviation and last.mean > last.deviation else None
