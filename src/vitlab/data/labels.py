"""Labels: one class an image, int64 [n], or any number of them, int64 [n, m].

A row of [n, m] holds the indices of the image's classes in ascending order, padded with -1; m is the most labels of any image, at
least 1. An image without labels, a row of -1 alone, shows none of the classes. Nothing else says which of the two a data set has.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vitlab.errors import DataError

NONE = -1
"""What pads a row of labels."""
MAX_CELLS = 1 << 30
"""How many numbers the labels of a data set may take, padding included: one row with very many labels widens every other."""

Labels = NDArray[np.int64]
Label = int | tuple[int, ...]
"""The class of one image, or its classes."""
Probabilities = Literal["softmax", "sigmoid"]
"""What a model's probabilities say: which one class an image shows, or of every class by itself whether it does."""


def is_multi_label(labels: Labels) -> bool:
    """Return whether an image may have several labels, or none."""
    return labels.ndim == 2


def distinct(classes: Sequence[str]) -> tuple[str, ...]:
    """Return class names with those that occurred before numbered: ImageNet's second "crane" becomes "crane (2)"."""
    taken, seen, names = set(classes), Counter[str](), list[str]()
    for name in classes:
        seen[name] += 1
        shown = name
        while seen[name] > 1 and (shown := f"{name} ({seen[name]})") in taken:
            seen[name] += 1
        taken.add(shown)
        names.append(shown)
    return tuple(names)


def check_range(labels: Labels, classes: Sequence[str], where: str) -> None:
    """Refuse the labels of the data set `where` if one is the number of no class.

    Raises:
        DataError: one is.
    """
    least, most = int(labels.min(initial=0)), int(labels.max(initial=0))
    if least < (NONE if is_multi_label(labels) else 0) or most >= len(classes):
        what = f"has the label {most if most >= len(classes) else least}, of {len(classes):,} classes: it is damaged"
        raise DataError(where, what, "make or fetch it again")


def label_at(labels: Labels, index: int) -> Label:
    """Return the label at `index`, or the tuple of them without padding."""
    row = labels[index]
    return tuple(row[row != NONE].tolist()) if is_multi_label(labels) else int(row)


def stack(labels: Sequence[int | Sequence[int]]) -> Labels:
    """Return the labels of some images as an array, rows filled up to the longest."""
    rows = [label for label in labels if isinstance(label, Sequence)]
    if not rows:
        return np.array(labels, np.int64)
    width = max(1, *map(len, rows))
    return np.array([[*row, *[NONE] * (width - len(row))] for row in rows], np.int64)


def from_flat(flat: Labels, counts: Labels) -> Labels:
    """Return labels [n, m] from those of all images one after another and how many each image has; repeated ones count once.

    Raises:
        ValueError: they would take more than `MAX_CELLS` numbers.
    """
    span = int(flat.max(initial=0)) + 1
    pairs = np.unique(np.repeat(np.arange(len(counts)), counts) * span + flat)
    rows, classes = np.divmod(pairs, span)
    kept = np.bincount(rows, minlength=len(counts))
    width = max(1, int(kept.max(initial=0)))
    if len(counts) * width > MAX_CELLS:
        raise ValueError(f"one of {len(counts):,} images has {width:,} labels")
    labels = np.full((len(counts), width), NONE, np.int64)
    labels[rows, np.arange(len(rows)) - (np.cumsum(kept) - kept)[rows]] = classes
    return labels


def renumber(labels: Labels, places: Labels) -> Labels:
    """Return `labels` with each class c called `places[c]`; the same array where every class keeps its number."""
    if np.array_equal(places, np.arange(len(places))):
        return labels
    return np.append(places, NONE)[labels] if is_multi_label(labels) else places[labels]


def count_labels(labels: Labels, num_classes: int) -> Labels:
    """Return how many images have each class: int64 [k]."""
    return np.bincount(labels[labels != NONE] if is_multi_label(labels) else labels, minlength=num_classes)


def multi_hot(labels: Labels, num_classes: int) -> NDArray[np.bool_]:
    """Return which classes each image has: bool [n, k]."""
    truth = np.zeros((len(labels), num_classes + 1), np.bool_)  # the last column takes the padding
    truth[np.arange(len(labels))[:, None], labels.reshape(len(labels), -1)] = True
    return truth[:, :num_classes]


def strata(labels: Labels) -> Labels:
    """Return the group in which each image is counted when a data set is divided: int64 [n].

    It is the image's class; of several the rarest, of equally rare ones the first. Images without labels are a group of their own.
    """
    if not is_multi_label(labels):
        return labels
    k = int(labels.max(initial=0)) + 1
    counts = np.append(count_labels(labels, k), len(labels) + 1)  # the last is what padding finds
    chosen = labels[np.arange(len(labels)), counts[labels].argmin(axis=1)]
    return np.where(chosen == NONE, k, chosen)
