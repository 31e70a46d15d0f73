"""What is odd about a data set, told from the names of its classes and files alone."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence

from vitlab.data.folder import Folder
from vitlab.data.path import DataPath
from vitlab.data.source import Source, Subset

FIRST_LEVEL = "a class is a folder of the first level, whatever is below it"


def find_twins(classes: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the groups of class names that differ only by case, zero padding, spaces around, or Unicode normalisation."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in classes:
        groups[_plain(name)].append(name)
    return [tuple(names) for names in groups.values() if len(names) > 1]


def _plain(name: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip()
    return re.sub(r"(?<![0-9.,])0+(?=[0-9])", "", folded)  # 007 is 7, but 1.05 is not 1.5


def oddities(source: Source, twins: bool = True) -> list[str]:
    """Return a line for everything that a person should know before these classes and files are trained on.

    Classes that look alike (unless `twins` is False), sub-folders that might have been meant as classes, files that were left out.
    """
    while isinstance(source, Subset):
        source = source.source
    where = str(source.model_copy(update={"part": None})) if isinstance(source, DataPath) else str(source)
    lines = [f"{where}: {line}" for line in map(describe_twins, find_twins(source.classes))] if twins else []
    if isinstance(source, Folder):
        shared = shared_subfolders(source)
        if shared:
            names = ", ".join(shared[:5]) + ", …" * (len(shared) > 5)
            lines.append(f"{where}: sub-folders of the same name in several classes: {names}; {FIRST_LEVEL}")
        reasons = Counter(source.listing.ignored.values())
        if reasons:
            counted = ", ".join(f"{reason} ({count:,})" for reason, count in reasons.most_common())
            lines.append(f"{where}: left out {sum(reasons.values()):,}: {counted}")
    return lines


def describe_twins(names: Sequence[str]) -> str:
    """Return what is odd about class names that look alike."""
    quoted = [f"'{name}'" for name in names]
    if len({unicodedata.normalize("NFC", name) for name in names}) < len(names):
        quoted = [f"'{name}' ({ascii(name)[1:-1]})" for name in names]  # else they would be told as the same
    shown = ", ".join(quoted[:5]) + ", …" * (len(quoted) > 5)
    return f"classes {shown} differ only by case, zero padding, spaces or Unicode form; each is a class of its own"


def shared_subfolders(source: Source) -> list[str]:
    """Return the names of the sub-folders that hold images in more than one class, sorted; none where there are no folders."""
    if not isinstance(source, Folder):
        return []
    folder = source
    skipped = 1 if folder.subset is None else 2  # the class, or the split and the class
    holders: defaultdict[str, set[str]] = defaultdict(set)
    for name in folder.listing.names:
        if name.count("/") == skipped:
            continue
        parts = name.split("/")
        for part in parts[skipped:-1]:
            holders[part].add(parts[skipped - 1])
    return sorted(name for name, classes in holders.items() if len(classes) > 1)
