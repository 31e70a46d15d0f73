"""Schema: what the columns of a table must be, and that all files of a table agree on them."""

import csv
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from vitlab.data.column import Column
from vitlab.errors import DataError

_types: Any = pa.types
_DELIMITERS = {";": "semicolons", "\t": "tabs"}  # that spreadsheets write into CSV


class Opened(NamedTuple):
    """A file of a table: where its images are, its labels, and the class names in its schema."""

    file: Path
    images: Any  # as its reader finds them
    labels: Column
    names: tuple[str, ...] | None


def first_of(names: Collection[str | None], *wanted: str) -> str:
    """Return the first of `wanted` that is among the columns `names`, else the last but one: the one to ask for."""
    return next((name for name in wanted if name in names), wanted[-2])


def check_columns(where: Path | str, names: Sequence[str], *wanted: str) -> None:
    """Refuse a file or row at `where` that lacks one of the columns `wanted`."""
    for name in wanted:
        if name not in names:
            remedy = f"choose image_column and label_column from {', '.join(names)}"
            between = {char: called for char, called in _DELIMITERS.items() if len(names) == 1 and char in names[0]}
            if between:
                remedy = f"divide its columns by commas: it seems to have {' and '.join(between.values())} between them"
            raise DataError(where, f"has no column '{name}'", remedy)


def check_images(where: Path | str, schema: Any, column: str) -> bool:
    """Return whether `column` holds structs with the bytes of image files; else it holds the bytes themselves.

    Raises:
        DataError: it holds neither.
    """
    kind = schema.field(column).type
    nested = _types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    content = kind.field("bytes").type if nested else kind
    if not (_types.is_binary(content) or _types.is_large_binary(content)):
        what = f"column '{column}' holds {kind}, not the bytes of image files"
        raise DataError(where, what, "choose another image_column, or convert it")
    return nested


def check_alike(files: Sequence[Opened]) -> None:
    """Refuse the first of `files` whose labels are not of the kind and classes of those before it.

    Raises:
        DataError: the file is named, with the first difference.
    """
    first = files[0]
    for each in files:
        if _kind(each.labels) != _kind(first.labels):
            what = f"has labels of another type than {first.file.name}: {_kind(each.labels)}, not {_kind(first.labels)}"
        elif each.names == first.names:
            continue
        elif each.names is None or first.names is None or len(each.names) != len(first.names):
            counts = ["no" if file.names is None else str(len(file.names)) for file in (each, first)]
            what = f"has other class names than {first.file.name}: {counts[0]} in its schema, not {counts[1]}"
        else:
            names = zip(each.names, first.names, strict=True)
            place, (one, other) = next((place, pair) for place, pair in enumerate(names) if pair[0] != pair[1])
            what = f"has other class names than {first.file.name}: number {place} is '{one}', not '{other}'"
        raise DataError(each.file, what, "convert one of the two, or move it away")


def _kind(labels: Column) -> str:
    values = "integers" if labels.values.dtype == np.int64 else "class names"
    return values if labels.counts is None else f"lists of {values}"


@contextmanager
def reading(file: Path) -> Generator[None, None, None]:
    """Turn what libraries raise while `file` is read into one line that names it."""
    try:
        yield
    except (OSError, ValueError, csv.Error, RecursionError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        what = f"cannot be read as {file.suffix[1:]} ({reason})"
        raise DataError(file, what, "check its format, or fetch it again") from None
