"""k nearest neighbours on frozen features, by cosine."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from vitlab.errors import SettingsError
from vitlab.evals.features import Labelled

TEMPERATURE = 0.07
"""How a neighbour's vote falls with its distance: exp(cosine / temperature) (Caron et al. 2021, DINO, appendix F.1)."""
_CELLS = 1 << 25  # similarities at a time: 128 MB


def neighbours(
    train: Labelled,
    test: Labelled,
    num_classes: int,
    counts: Sequence[int] = (20,),
    temperature: float | None = TEMPERATURE,
) -> dict[int, float]:
    """Return for each of `counts` the share of `test` whose class gets most votes of so many nearest examples of `train`.

    Without a `temperature` every neighbour has one vote. Where classes are equal the first of them is taken. Memory is bounded,
    whatever the number of examples.

    Raises:
        SettingsError: a count is not between 1 and the number of examples.
    """
    check_counts(counts, len(train))
    bank, labels = torch.from_numpy(train.values), torch.from_numpy(train.labels)
    lengths = bank.norm(dim=1).clamp_min(1e-12)
    rows = max(1, _CELLS // max(len(train), num_classes))
    right = dict.fromkeys(counts, 0)
    for start in range(0, len(test), rows):
        queries = functional.normalize(torch.from_numpy(test.values[start : start + rows]))
        wanted = torch.from_numpy(test.labels[start : start + rows])
        cosines, places = (queries @ bank.T).div_(lengths).topk(max(counts))
        found, votes = labels[places], torch.ones_like(cosines, dtype=torch.float64)
        if temperature is not None:
            votes = (cosines.double() / temperature).exp()
        for count in counts:
            each = torch.zeros(len(queries), num_classes, dtype=torch.float64)
            each.scatter_add_(1, found[:, :count], votes[:, :count])
            right[count] += int((each.argmax(dim=1) == wanted).sum())
    return {count: hits / len(test) for count, hits in right.items()}


def check_counts(counts: Sequence[int], examples: int) -> None:
    """Refuse a number of neighbours that so many training examples do not have.

    Raises:
        SettingsError: a count is not between 1 and the number of examples.
    """
    for count in counts:
        if not 1 <= count <= examples:
            what = f"there are no {count:,} neighbours among {examples:,} training images"
            raise SettingsError("--knn", what, f"give a number from 1 to {examples:,}")


def nearest(
    bank: NDArray[np.float32], queries: NDArray[np.float32], count: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the cosines [q, count] of the `count` rows of `bank` nearest to each of `queries`, nearest first, and their places.

    There are fewer where the bank has fewer rows.
    """
    known, asked = torch.from_numpy(bank), torch.from_numpy(queries)
    cosines = functional.normalize(asked) @ known.T / known.norm(dim=1).clamp_min(1e-12)
    values, places = cosines.sort(dim=1, descending=True, stable=True)
    return values[:, :count].numpy(), places[:, :count].numpy()
