"""Source: a data set as a list of examples, each read on demand."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vitlab.config import Settings, nearest
from vitlab.data.labels import NONE, Label, Labels, count_labels, is_multi_label, strata
from vitlab.errors import DataError

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Example:
    """One labelled image: the bytes of its file, or its pixels (uint8 [h, w, 3]) where there is none; `key` names it.

    `label` is a tuple where the data set allows several labels an image, or none.
    """

    data: bytes | Pixels
    label: Label
    key: str


@runtime_checkable
class Source(Protocol):
    """A data set: class names in the order of their indices, the label of every example, and the examples themselves."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""
        ...

    @property
    def labels(self) -> Labels:
        """The labels of every example, known without reading its image: int64 [len], or [len, m] padded with -1."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> Example:
        """Return the example at `index`; decoding its image is the reader's business."""
        ...

    def __str__(self) -> str: ...


@runtime_checkable
class Keyed(Protocol):
    """A source that knows what its examples are called without reading them."""

    def key(self, index: int) -> str:
        """Return the key of the example at `index`."""
        ...


@runtime_checkable
class Filed(Protocol):
    """A source whose examples may be files of their own."""

    def file(self, index: int) -> Path | None:
        """Return the file of the example at `index`, None where it is a part of another."""
        ...


def name_of(source: Source, index: int) -> str:
    """Return what to call an example that is not to be read: its key where that is known, else its number."""
    return source.key(index) if isinstance(source, Keyed) else f"example {index} of {source}"


class Part(Settings):
    """One side of a seeded, stratified split: `fraction` of every class is the test side, the rest the training side.

    An image with several labels is counted for its rarest one, see `labels.strata`. A class that would then have examples on the
    test side alone has the first of them moved to the training side. Where there is a part that this is a part `of`, that one is
    divided, and not the whole.
    """

    side: Literal["train", "test"]
    fraction: Annotated[float, Field(gt=0, lt=1)]
    seed: Annotated[int, Field(ge=0)] = 0
    of: "Part | None" = None

    def __hash__(self) -> int:
        return hash((self.side, self.fraction, self.seed, self.of))

    def __str__(self) -> str:
        return f"{self.side} part" + (f" of the {self.of}" if self.of else "")

    def indices(self, labels: Labels) -> NDArray[np.int64]:
        """Return the sorted indices of this side; of every class (group) of two or more at least one is on either side."""
        if self.of is not None:
            outer = self.of.indices(labels)
            return outer[self.alone.indices(labels[outer])]
        groups = strata(labels)
        order = np.argsort(groups, kind="stable")
        names, starts = np.unique(groups[order], return_index=True)
        tested = np.zeros(len(groups), np.bool_)
        for name, members in zip(names.tolist(), np.split(order, starts[1:]), strict=False):
            count = min(max(1, round(len(members) * self.fraction)), len(members) - 1)
            tested[np.random.default_rng((self.seed, name)).permutation(members)[:count]] = True
        if is_multi_label(labels):
            _move_untrained(labels, tested)
        return np.flatnonzero(tested if self.side == "test" else ~tested)

    @property
    def alone(self) -> "Part":
        """The same division, of a whole."""
        return self.model_copy(update={"of": None})


def _move_untrained(labels: Labels, tested: NDArray[np.bool_]) -> None:
    """Take the first example of every class that is tested alone out of `tested`."""
    k = int(labels.max(initial=NONE)) + 1
    for label in np.flatnonzero(count_labels(labels, k) - count_labels(labels[tested], k) == 0):
        tested[np.flatnonzero((labels == label).any(axis=1))[:1]] = False


class Subset:
    """Some examples of a source, in the order of `indices`."""

    def __init__(self, source: Source, indices: Sequence[int] | NDArray[np.int64]) -> None:
        self.source = source
        self.indices = np.asarray(indices, np.int64)
        self.labels: Labels = source.labels[self.indices]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of the whole source."""
        return self.source.classes

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> Example:
        """Return the example at `index` of this subset."""
        return self.source.read(int(self.indices[index]))

    def key(self, index: int) -> str:
        """Return what the example at `index` of this subset is called."""
        return name_of(self.source, int(self.indices[index]))

    def __str__(self) -> str:
        return f"{self.source} ({len(self):,} of {len(self.source):,})"


def class_indices(found: Sequence[str], wanted: Sequence[str], where: str) -> NDArray[np.int64]:
    """Return for each class name in `found` its index in `wanted`: labels are mapped by name, never by position.

    A wanted class that was not found is no error; it has no examples. `labels.renumber` applies it.

    Raises:
        DataError: a found class is not among the wanted ones, or one of its name is there twice and the order differs.
    """
    if tuple(found) == tuple(wanted):  # ImageNet has two classes of one name: a crane is a bird, or lifts loads
        return np.arange(len(found))
    index = {name: position for position, name in enumerate(wanted)}
    unknown = [name for name in found if name not in index]
    if unknown:
        names = ", ".join(f"'{name}'" for name in unknown[:5]) + (
            f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        )
        raise DataError(
            where, f"has classes that the model does not know: {names}", nearest(unknown[0], list(wanted)[:20])
        )
    once, other = Counter(found), Counter(wanted)
    twice = [name for name in found if once[name] > 1 or other[name] > 1]
    if twice:
        what = f"has its classes in another order than the model, and '{twice[0]}' is the name of two"
        raise DataError(where, what, "give both in the same order, or the two classes different names")
    return np.array([index[name] for name in found], np.int64)
