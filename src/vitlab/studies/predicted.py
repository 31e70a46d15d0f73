"""What a model says of images as a table: its columns, and how it becomes parquet, CSV or JSON lines."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from vitlab.data.gallery import as_text
from vitlab.errors import ImageError, SettingsError
from vitlab.evals.multilabel import most_probable
from vitlab.serve.predict import Prediction

_pa: Any = pa  # the stubs of pyarrow are incomplete
_parquet: Any = pyarrow.parquet

METADATA = "vitlab"
"""The key of a parquet file's metadata under which is, as JSON, what the rows were made by."""
_GROUP_ROWS = 16_384  # of a row group: with 768 features a row 50 MB


@dataclass(frozen=True)
class Answer:
    """What became of one image, of the name `key`: the prediction, or why there is none."""

    key: str
    prediction: Prediction | ImageError


@dataclass(frozen=True)
class Columns:
    """What a row says beside the image's key, its class and that one's probability: the `top` most probable classes, why there are
    none (`error`), the labels where the images have them, and the features [r] that the head read where that is asked for."""

    top: int
    labels: Literal["label", "labels"] | None = None
    features: bool = False

    @property
    def schema(self) -> Any:
        """The columns, with their types."""
        text, number = _pa.string(), _pa.float32()
        columns = {
            "key": text,
            "class": text,
            "probability": number,
            "top_classes": _pa.list_(text),
            "top_probabilities": _pa.list_(number),
            "error": text,
        }
        if self.labels is not None:
            columns[self.labels] = text if self.labels == "label" else _pa.list_(text)
        return _pa.schema(columns | ({"features": _pa.list_(number)} if self.features else {}))

    def table(self, answers: Sequence[Answer], shown: Sequence[tuple[str, ...] | None]) -> Any:
        """Return the rows of `answers`, of which `shown` are the labels."""
        best = iter(self._best([each.prediction for each in answers if isinstance(each.prediction, Prediction)]))
        rows: dict[str, list[Any]] = {name: [] for name in self.schema.names}
        for answer, labels in zip(answers, shown, strict=True):
            found = answer.prediction
            bad = isinstance(found, ImageError)
            classes, probabilities = (None, None) if bad else next(best)
            values: dict[str, Any] = {
                "key": answer.key,
                "class": None if classes is None else classes[0],
                "probability": None if probabilities is None else probabilities[0],
                "top_classes": classes,
                "top_probabilities": probabilities,
                "error": as_text(found.what) if bad else None,
                "label": None if labels is None else next(iter(labels), None),
                "labels": labels,
                "features": None if bad else found.features,
            }
            for name, cells in rows.items():
                cells.append(values[name])
        return _pa.table(rows, schema=self.schema)

    def _best(self, found: Sequence[Prediction]) -> Iterator[tuple[list[str], Any]]:
        """Yield for each prediction its most probable classes, best first, and their probabilities."""
        if not found:
            return
        classes = [as_text(name) for name in found[0].classes]
        probabilities = np.stack([each.probabilities for each in found])
        for row, leaders in zip(probabilities, most_probable(probabilities, self.top), strict=True):
            yield [classes[int(leader)] for leader in leaders], row[leaders]


Write = Callable[[Iterable[Any], Any, Mapping[str, Any], IO[bytes]], None]
"""Writes tables of a schema, one after another, with what they were made by, to a file."""


def writer_for(out: Path) -> Write:
    """Return what writes the format that the name of the file `out` says.

    Raises:
        SettingsError: it says none that is known.
    """
    formats: dict[str, Write] = {".parquet": _write_parquet, ".csv": _write_csv, ".jsonl": _write_lines}
    if out.suffix.lower() not in formats:
        what = f"'{out}' is no .parquet, .csv or .jsonl file"
        raise SettingsError("--out", what, "give one, as predictions.parquet")
    return formats[out.suffix.lower()]


def _write_parquet(tables: Iterable[Any], schema: Any, made_by: Mapping[str, Any], file: IO[bytes]) -> None:
    """Write row groups of one size, whatever that of the tables, so that the bytes do not depend on it."""
    options: dict[str, Any] = {"compression": "zstd", "store_schema": False}
    with _parquet.ParquetWriter(file, schema, **options) as writer:
        waiting = schema.empty_table()
        for table in tables:
            waiting = _pa.concat_tables([waiting, table])
            while len(waiting) >= _GROUP_ROWS:
                writer.write_table(waiting.slice(0, _GROUP_ROWS).combine_chunks(), row_group_size=_GROUP_ROWS)
                waiting = waiting.slice(_GROUP_ROWS)
        if len(waiting):
            writer.write_table(waiting.combine_chunks(), row_group_size=_GROUP_ROWS)
        writer.add_key_value_metadata({METADATA: json.dumps(made_by, ensure_ascii=False, sort_keys=True)})


def _write_csv(tables: Iterable[Any], schema: Any, made_by: Mapping[str, Any], file: IO[bytes]) -> None:
    """Write CSV; a list is a cell of JSON."""
    del made_by  # CSV has no place for it
    text = _Text(file)
    writer = csv.writer(text)  # quotes what is in its line end, "\r\n"
    writer.writerow(schema.names)
    for table in tables:
        for row in table.to_pylist():
            cells = [
                json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value for value in row.values()
            ]
            writer.writerow(cells)


def _write_lines(tables: Iterable[Any], schema: Any, made_by: Mapping[str, Any], file: IO[bytes]) -> None:
    """Write a JSON object a line, with every column in each."""
    del schema, made_by
    for table in tables:
        for row in table.to_pylist():
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())


class _Text:
    """A file of bytes that takes lines of text, and ends each in "\\n"."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        return self._file.write((text.removesuffix("\r\n") + "\n").encode())
