"""Describe: what a data set holds, and what a person should look at before training on it."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.cells import cell_len

from vitlab.data.duplicates import Digests, Duplicates, find_duplicates
from vitlab.data.folder import Folder, find_beside
from vitlab.data.oddity import FIRST_LEVEL, describe_twins, find_twins, shared_subfolders
from vitlab.data.source import Source
from vitlab.data.survey import FEW, Split, survey

_SHOWN = 5  # classes at either end of the balance, and names in a line
_WHOLE = 14  # classes or fewer are all shown


@dataclass(frozen=True)
class Description:
    """What the splits of a data set hold; the first is the one to train on.

    `twins` are class names that look alike, `untrained` the classes of other splits that the first lacks,
    `shared_subfolders` the names of sub-folders that are in several classes, `beside` what is in the folder of ready splits
    and belongs to none.
    """

    data: str
    splits: dict[str, Split]
    duplicates: Duplicates
    twins: list[tuple[str, ...]]
    untrained: dict[str, list[str]]
    shared_subfolders: dict[str, list[str]]
    beside: list[str]

    def as_json(self) -> dict[str, Any]:
        """Return everything, for programs."""
        result = asdict(self)
        for name, split in self.splits.items():
            sizes = split.sizes and {key: spread._asdict() for key, spread in split.sizes.items()}
            derived = {"sizes": sizes, "imbalance": split.imbalance, "near_empty": split.near_empty}
            result["splits"][name] |= derived
        return result | {"near_empty_below": FEW}

    def warnings(self) -> list[str]:
        """Return what to look at, most harmful first; examples follow on further lines."""
        first = next(iter(self.splits))
        lines = self.duplicates.warnings()
        lines += [
            f"{name} has classes that {first} lacks, so that it cannot be evaluated on: {_some(classes)}"
            for name, classes in self.untrained.items()
        ]
        lines += map(describe_twins, self.twins)
        few = self.splits[first].near_empty
        if few:
            named = _some([f"{name} ({count})" for name, count in few.items()])
            lines.append(f"classes with fewer than {FEW} images{self._of(first)}: {named}")
        for name, split in self.splits.items():
            if split.unknown:
                named = _some(split.unknown_keys, split.unknown)
                lines.append(f"not readable as images{self._of(name)} (`vitlab data check` says why): {named}")
        lines += [
            f"sub-folders of the same name in several classes{self._of(name)}: {_some(names)}; {FIRST_LEVEL}"
            for name, names in self.shared_subfolders.items()
        ]
        return lines

    def _of(self, split: str) -> str:
        return f" of {split}" if len(self.splits) > 1 else ""

    def lines(self) -> list[str]:
        """Return what the splits hold, for people: a table with a column a split, the class balance, what to look at."""
        rows = [["", *self.splits]]
        columns = [_column(split) for split in self.splits.values()]
        rows += [[label, *(column[label] for column in columns)] for label in columns[0]]
        lines = [self.data, "", *_table(rows), "", *_table(self._balance())]
        repeats = self.duplicates.extra
        if repeats:
            lines += ["", f"repeats: {repeats:,} images are copies of another in their class and split, such as"]
            lines += [f"  {group}" for group in self.duplicates.repeats[:3]]
        for name, split in self.splits.items():
            for reason, count in Counter(split.left_out.values()).most_common():
                names = [key for key, why in split.left_out.items() if why == reason]
                lines += ["", f"left out{self._of(name)}: {reason} ({count:,}): {_some(names)}"]
        if self.beside:
            lines += ["", f"left out beside the splits: {_some(self.beside)}"]
        warnings = self.warnings()
        return lines + [""] * bool(warnings) + [f"warning: {line}" for line in warnings]

    def _balance(self) -> list[list[str]]:
        """Return the rows of the classes by size in the first split: all, or those at either end."""
        every = dict.fromkeys(name for split in self.splits.values() for name in split.counts)
        first = next(iter(self.splits.values())).counts
        order = sorted(every, key=lambda name: -first.get(name, 0))
        rows = [[f"  {name}", *(f"{split.counts.get(name, 0):,}" for split in self.splits.values())] for name in order]
        if len(rows) > _WHOLE:
            gap = [f"  … {len(rows) - 2 * _SHOWN:,} more …", *[""] * len(self.splits)]
            rows = [*rows[:_SHOWN], gap, *rows[-_SHOWN:]]
        return [["images a class", *self.splits], *rows]


def describe(
    data: str, sources: Mapping[str, Source], workers: int = 0, seen: Callable[[], None] = lambda: None
) -> Description:
    """Return what the splits `sources` of the data set `data` hold; the first is the one to train on.

    Every file is read once, by `workers` processes, and none is decoded; `seen` is called after each. An example costs
    some 150 bytes of memory, however large its image is.
    """
    digests: dict[str, Digests] = {}
    splits: dict[str, Split] = {}
    for name, source in sources.items():
        splits[name], digests[name] = survey(source, workers, seen)
    trained = set(next(iter(splits.values())).counts)
    untrained = {name: [each for each in split.counts if each not in trained] for name, split in splits.items()}
    shared = {name: shared_subfolders(source) for name, source in sources.items()}
    one = next(iter(sources.values()))
    return Description(
        data,
        splits,
        find_duplicates(sources, digests),
        find_twins(list(dict.fromkeys(name for split in splits.values() for name in split.counts))),
        {name: classes for name, classes in untrained.items() if classes},
        {name: names for name, names in shared.items() if names},
        find_beside(one.path) if isinstance(one, Folder) and one.subset else [],
    )


def _column(split: Split) -> dict[str, str]:
    """Return what is said of a split, by the labels of the rows."""
    counts = split.counts.values()

    def share(count: int) -> str:
        return f"{100 * count / max(split.images, 1):.3g} %"

    def spread(name: str, digits: int = 0) -> str:
        return " / ".join(f"{value:,.{digits}f}" for value in split.sizes[name]) if split.sizes else "unknown"

    formats = [f"{name} {share(count)}" for name, count in split.formats.items()]
    return {
        "images": f"{split.images:,}",
        "classes": f"{len(counts):,}",
        "images a class": f"{min(counts):,} to {max(counts):,}",
        "largest : smallest class": f"{split.imbalance:.3g}",
        f"classes with fewer than {FEW} images": f"{len(split.near_empty):,}",
        "width, min / median / max": spread("width"),
        "height": spread("height"),
        "width : height": spread("aspect_ratio", 2),
        "bytes of a file": spread("bytes"),
        "bytes in all": f"{split.total_bytes:,}",
        "format": ", ".join(formats[:3] + [f"{len(formats) - 3} others"] * (len(formats) > 3)) or "unknown",
        "greyscale": share(split.grey),
        "turned by a tag": share(split.turned),
        "not readable": f"{split.unknown:,}",
        "left out": f"{len(split.left_out):,}",
    }


def _table(rows: list[list[str]]) -> list[str]:
    """Return the rows as lines: the first column to the left, the others to the right."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]

    def line(row: list[str]) -> str:
        space = [" " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        return "  ".join([row[0] + space[0], *map(str.__add__, space[1:], row[1:])]).rstrip()

    return [line(row) for row in rows]


def _some(names: list[str], count: int | None = None) -> str:
    """Return the first of `names`, and how many more there are of `count` (all that are given, by default)."""
    more = (len(names) if count is None else count) - len(names[:_SHOWN])
    return ", ".join(names[:_SHOWN]) + (f" and {more:,} more" if more else "")
