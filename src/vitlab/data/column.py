"""The label column of a table: what its cells hold → class names and labels."""

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vitlab.data.labels import Labels, from_flat
from vitlab.errors import DataError

_types: Any = pa.types  # the stubs of pyarrow are incomplete

SEPARATOR, SEVERAL = "|", "labels"
"""What stands between labels in a cell of CSV, in a column of this name."""


class Column(NamedTuple):
    """Labels as they were written, int64 or strings as objects: one a row, or one after another with `counts` a row."""

    values: NDArray[Any]
    counts: Labels | None = None


def no_labels(count: int) -> Column:
    """Return the column of a table without labels: `count` empty lists."""
    return Column(np.empty(0, np.int64), np.zeros(count, np.int64))


def from_arrow(column: Any, file: Path, name: str) -> Column:
    """Return a column of parquet: integers, strings, or lists of either.

    Raises:
        DataError: it is of another type, or a row holds no label where it must.
    """
    kind, counts = column.type, None
    _refuse_missing(column, lambda place: f"{file}:{place}", name)
    if _types.is_list(kind) or _types.is_large_list(kind) or _types.is_fixed_size_list(kind):
        counts = np.concatenate([np.empty(0, np.int64), *map(_lengths, column.chunks)]).astype(np.int64)
        ends = np.cumsum(counts)
        column = pa.chunked_array([chunk.flatten() for chunk in column.chunks], kind.value_type)
        _refuse_missing(column, lambda place: f"{file}:{np.searchsorted(ends, place, 'right')}", name)
    inner = column.type.value_type if _types.is_dictionary(column.type) else column.type
    known = _types.is_integer(inner) or _types.is_string(inner) or _types.is_large_string(inner)
    if not known and not (_types.is_null(inner) and counts is not None):  # of lists that are all empty
        what = f"column '{name}' holds {kind}, not class names or integers, or lists of them"
        raise DataError(file, what, "choose another label_column, or convert it")
    return Column(column.cast(pa.int64()).to_numpy() if _types.is_integer(inner) else _strings(column), counts)


def _strings(column: Any) -> NDArray[Any]:
    """Return strings as objects; one that stands in many rows is there once, so that a long one cannot fill the memory."""
    texts = [np.empty(0, object)]
    for chunk in column.chunks:
        coded = chunk if _types.is_dictionary(chunk.type) else chunk.cast(pa.string()).dictionary_encode()
        texts.append(np.array([*coded.dictionary.to_pylist(), None], object)[coded.indices.to_numpy()])
    return np.concatenate(texts)


def _lengths(chunk: Any) -> NDArray[np.integer]:
    if _types.is_fixed_size_list(chunk.type):
        return np.full(len(chunk), chunk.type.list_size)
    return np.diff(chunk.offsets.to_numpy())


def _refuse_missing(column: Any, row: Callable[[int], str], name: str) -> None:
    if column.null_count:
        place = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise DataError(row(place), f"column '{name}' holds no label in this row", "add it, or remove the row")


class Cells:
    """The labels of CSV or JSONL rows, gathered one by one."""

    def __init__(self) -> None:
        self._values: list[int | str] = []
        self._counts: list[int] = []
        self._listed = False

    def add(self, cell: object, row: str, name: str) -> None:
        """Add a cell: a class name, an integer, or a list of either.

        Raises:
            DataError: it is something else, or of another type than those before.
        """
        listed = isinstance(cell, list)
        if cell is None:
            raise DataError(row, f"column '{name}' holds None in this row: no label", "add it, or remove the row")
        if self._counts and listed != self._listed:
            what = f"column '{name}' holds {'a list' if listed else 'no list'} in this row, unlike the rows above"
            raise DataError(row, what, "write all labels as lists, or none")
        labels = cast(list[object], cell) if listed else [cell]
        for label in labels:
            if not isinstance(label, str | int) or isinstance(label, bool) or label == "" or _is_large(label):
                what = f"column '{name}' holds {label!r} in this row, not a class name or an integer"
                raise DataError(row, what, "correct it, or remove the row")
            if self._values and type(label) is not type(self._values[0]):
                what = f"label {label!r} is of another type than {self._values[0]!r} above"
                raise DataError(row, what, "write all as names, or all as integers")
            self._values.append(label)
        self._listed = listed
        self._counts.append(len(labels))

    def column(self) -> Column:
        """Return what was gathered."""
        kind = np.int64 if self._values and isinstance(self._values[0], int) else object
        return Column(np.array(self._values, kind), np.array(self._counts, np.int64) if self._listed else None)


def _is_large(label: int | str) -> bool:
    return isinstance(label, int) and label.bit_length() > 63


def split_cell(text: object, row: str, name: str, separator: str | None) -> object:
    """Return the list of labels in a cell of CSV, or the cell where the column `name` holds one label a row.

    Raises:
        DataError: a name between two separators is empty, or the separator stands in a column that holds one label.
    """
    between = separator or (SEPARATOR if name == SEVERAL else None)
    if not isinstance(text, str):  # the row is too short
        return text
    if between is None:
        if SEPARATOR in text:
            what = f"column '{name}' holds '{text}': one class, or several?"
            raise DataError(row, what, f"for several labels an image call the column '{SEVERAL}'")
        return text
    labels = [label.strip() for label in text.split(between)] if text.strip() else []
    if "" in labels:
        raise DataError(row, f"column '{name}' holds '{text}', in which a name is empty", f"remove a '{between}'")
    return labels


def names_in(metadata: Mapping[bytes, bytes] | None, name: str) -> tuple[str, ...] | None:
    """Return the class names of column `name` in a parquet schema of Hugging Face, None where there are none."""
    return _names_in((metadata or {}).get(b"huggingface", b""), name)


@lru_cache(maxsize=8)  # a thousand files say the same: once in memory, and read once
def _names_in(text: bytes, name: str) -> tuple[str, ...] | None:
    try:
        feature = json.loads(text)["info"]["features"][name]
        feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
        return tuple(map(str, feature["names"]))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None


def encode(
    where: str, column: Column, names: tuple[str, ...] | None, row: Callable[[int], str]
) -> tuple[tuple[str, ...], Labels]:
    """Return class names and labels; `names` are those of a schema, else the values that occur are; `row` names a row in errors.

    Raises:
        DataError: there is nothing to tell apart, or a label has no class name.
    """
    values, counts = column
    several = counts is not None
    if not (len(counts) if several else len(values)):
        raise DataError(where, "has no rows", "give a table with images")
    if several and _is_multi_hot(values, counts):
        what = f"holds rows of {counts[0]} zeros and ones as labels, where the numbers of an image's classes are wanted"
        raise DataError(where, what, "write [0, 3] for the classes 0 and 3, or their names")
    if names is not None and values.dtype == np.int64:
        outside = np.flatnonzero((values < 0) | (values >= len(names)))
        if len(outside):
            first = int(outside[0])
            place = int(np.searchsorted(np.cumsum(counts), first, "right")) if several else first
            what = f"{len(outside)} labels are outside the {len(names)} class names: {values[first]} in {row(place)}"
            raise DataError(where, what, "choose a subset that has labels, or correct them")
        classes, flat = names, values
    else:
        found, flat = np.unique(values, return_inverse=True) if values.dtype == np.int64 else _unique(values)
        classes = tuple(map(str, found))
    flat = flat.astype(np.int64)
    if len(classes) + (several and bool((counts == 0).any())) < 2 or not classes:
        what = f"has only one class ({', '.join(classes)}): there is nothing to learn" if classes else "has no labels"
        raise DataError(where, what, "give two or more")
    try:
        return classes, from_flat(flat, counts) if several else flat
    except ValueError as error:
        raise DataError(where, f"has labels that take too much memory ({error})", "remove that image") from None


def _unique(values: NDArray[Any]) -> tuple[list[str], Labels]:
    """Return what `np.unique` does with its inverse, for strings; it would sort them all, a million in seconds."""
    found = sorted(set(values.tolist()))
    place = {value: index for index, value in enumerate(found)}
    return found, np.fromiter((place[value] for value in values.tolist()), np.int64, len(values))


def _is_multi_hot(values: NDArray[Any], counts: Labels) -> bool:
    """Return whether rows are vectors of zeros and ones: all of one length, in some of which a number is there twice."""
    width = int(counts[0])
    if values.dtype != np.int64 or width < 2 or (counts != width).any() or (values < 0).any() or (values > 1).any():
        return False
    ones = values.reshape(-1, width).sum(axis=1)
    return width > 2 or bool((ones != 1).any())
