"""Duplicates: examples of the same content, told by the SHA-256 of their bytes; 32 bytes of memory an example."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from vitlab.data.labels import distinct
from vitlab.data.scan import key_of
from vitlab.data.source import Example, Source

DIGEST_BYTES = 32
_MOST_GROUPS, _MOST_MEMBERS = 1000, 10  # that are named; all are counted
_SHOWN = 5  # of each, to a person

Digests = NDArray[np.uint8]
"""The content of every example: uint8 [n, 32]; zeros where it is not known."""


@dataclass(frozen=True)
class Group:
    """Examples of the same content: how many, the keys of the first ten, and the classes they are in."""

    count: int
    keys: tuple[str, ...]
    classes: tuple[str, ...]
    splits: tuple[str, ...]

    def __str__(self) -> str:
        more = f" and {self.count - _SHOWN} more" if self.count > _SHOWN else ""
        return " = ".join(self.keys[:_SHOWN]) + more


@dataclass(frozen=True)
class Duplicates:
    """The groups of examples of the same content, by what that means; a group may be a conflict and a leak.

    `repeats` are within one class of one split, `conflicts` have different labels, `leaks` are in more than one split.
    Each holds the first thousand groups, `counts` says of each how many there are.
    """

    repeats: tuple[Group, ...]
    conflicts: tuple[Group, ...]
    leaks: tuple[Group, ...]
    counts: dict[str, int]
    extra: int  # examples that would go if one of every group of repeats stayed

    def warnings(self) -> list[str]:
        """Return what to say of conflicts and of leaks, if there are any; a few that show it follow on lines of their own."""
        found = (
            (self.conflicts, "conflicts", "the same image with different labels"),
            (self.leaks, "leaks", "the same image in more than one split"),
        )
        lines: list[str] = []
        for groups, name, what in found:
            count = self.counts[name]
            if count:
                shown = [f"{group} ({', '.join(group.classes[:_SHOWN])})" for group in groups[:_SHOWN]]
                shown += ["…"] * (count > _SHOWN)
                lines.append("\n  ".join([f"{what}: {count:,} {'time' if count == 1 else 'times'}", *shown]))
        return lines


def digest_of(example: Example) -> bytes:
    """Return the SHA-256 of the file of an example, or of its shape and pixels; zeros for an empty file, which is like no other."""
    if isinstance(example.data, bytes):
        return hashlib.sha256(example.data).digest() if example.data else bytes(DIGEST_BYTES)
    return hashlib.sha256(repr(example.data.shape).encode() + example.data.tobytes()).digest()


def find_duplicates(sources: Mapping[str, Source], digests: Mapping[str, Digests]) -> Duplicates:
    """Return the examples of the same content within and between the splits `sources`; labels are compared by class name."""
    splits = list(sources)
    split = np.repeat(np.arange(len(splits)), [len(sources[name]) for name in splits])
    place = np.concatenate([np.arange(len(sources[name])) for name in splits])
    content = np.ascontiguousarray(np.concatenate([digests[name] for name in splits])).view(np.uint64)
    order = np.lexsort(content.T)
    order = order[np.any(content, axis=1)[order]]
    new = np.arange(len(order)) == 0
    for column in content.T:  # one at a time, for the sake of memory
        ordered = column[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    starts = np.flatnonzero(new)
    counts = np.diff(starts, append=len(order))
    several = counts > 1
    conflict = several & _vary(_label_codes(sources)[order], starts)
    leak = several & _vary(split[order], starts)
    repeat = several & ~conflict & ~leak

    names = {name: distinct(source.classes) for name, source in sources.items()}

    def name(chosen: NDArray[np.bool_]) -> tuple[Group, ...]:
        found = np.flatnonzero(chosen)
        found = found[np.argsort(order[starts[found]])]  # by the first of each
        groups = (order[starts[group] : starts[group] + counts[group]] for group in found)
        return tuple(_group(sources, names, split[members], place[members]) for members in islice(groups, _MOST_GROUPS))

    return Duplicates(
        name(repeat),
        name(conflict),
        name(leak),
        {"repeats": int(repeat.sum()), "conflicts": int(conflict.sum()), "leaks": int(leak.sum())},
        int((counts[repeat] - 1).sum()),
    )


def _group(
    sources: Mapping[str, Source],
    names: Mapping[str, Sequence[str]],
    split: NDArray[np.int64],
    place: NDArray[np.int64],
) -> Group:
    splits = list(sources)
    shown = [(splits[s], int(p)) for s, p in zip(split[:_MOST_MEMBERS], place[:_MOST_MEMBERS], strict=True)]
    labels = [(name, np.atleast_1d(sources[name].labels[index])) for name, index in shown]
    classes = dict.fromkeys(names[s][int(label)] for s, row in labels for label in row if label >= 0)
    keys = tuple(key_of(sources[name], index) for name, index in shown)
    return Group(len(split), keys, tuple(classes), tuple(splits[s] for s in np.unique(split)))


def _vary(values: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return for each run of `values` that begins at `starts` whether its values differ."""
    if not len(starts):
        return np.zeros(0, bool)
    return np.minimum.reduceat(values, starts) != np.maximum.reduceat(values, starts)


def _label_codes(sources: Mapping[str, Source]) -> NDArray[np.int64]:
    """Return a number for every example, the same for examples of the same class names: int64 [n]."""
    numbers: dict[str, int] = {}
    rows: list[NDArray[np.int64]] = []
    for source in sources.values():
        mapping = np.array(
            [numbers.setdefault(name, len(numbers)) for name in distinct(source.classes)] + [-1], np.int64
        )
        labels = source.labels
        rows.append(mapping[labels if labels.ndim == 2 else labels[:, None]])  # −1, no further label, stays −1
    widest = max(row.shape[1] for row in rows)
    padded = [np.pad(np.sort(row)[:, ::-1], ((0, 0), (0, widest - row.shape[1])), constant_values=-1) for row in rows]
    table = np.concatenate(padded)
    return table[:, 0] if widest == 1 else np.unique(table, axis=0, return_inverse=True)[1].reshape(-1)
