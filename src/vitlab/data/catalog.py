"""Catalog: the paper's data sets by name: what they hold, where they are from, and the tasks of VTAB-1k made of them.

The facts are in the JSON files of the folder `catalog`: one file a data set, and vtab.json for the 19 tasks of the Visual Task
Adaptation Benchmark (Zhai et al. 2019).
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vitlab.config import Json, Settings, nearest, parse
from vitlab.data.archive import Kind
from vitlab.data.labels import label_at
from vitlab.data.layouts.examples import Examples, numbered_classes
from vitlab.data.layouts.files import ImageLists
from vitlab.data.layouts.kinds import AnyLayout
from vitlab.data.path import DataPath, printable
from vitlab.data.source import Example
from vitlab.errors import DataError
from vitlab.files import cache_folder

VTAB_FOLDER = "vtab-1k"
"""Where the archive of VTAB-1k that is handed around for PyTorch belongs: <task>/train800.txt, ..., a path and a class a line."""
_SALTS = {"train": "train", "val": "validation", "test": "test"}
_PIECE = re.compile(r"(\w+)(?:\[(\d*):(\d*)\])?")


class File(Settings):
    """A file to download. Where bytes or SHA-256 are not given, none were published that are known for certain.

    `unpack` says how, and `most_bytes` to how much at most; archives in it named by `inner` are unpacked too.
    """

    url: str
    bytes: int | None = None
    sha256: str | None = None
    unpack: Kind | None = None
    inner: tuple[str, ...] = ()
    most_bytes: int | None = None

    @property
    def name(self) -> str:
        """The name of the file."""
        return urlsplit(self.url).path.rpartition("/")[2]


class Entry(Settings):
    """A data set of the catalog.

    `examples` are the images of each split of the files, None where releases differ; `slices` are further subsets made of pieces
    of them, in the order of TensorFlow Datasets: "train[:800]+val[:200]". `take` says what a person has to do who wants a data
    set that cannot be downloaded. `order` is "seeded" where that order cannot be told from the files, so that slices are
    as large as the original's, but other images.
    """

    title: str
    homepage: str
    licence: str
    note: str = ""
    files: tuple[File, ...] = ()
    take: str = ""
    folder: str
    layout: AnyLayout
    classes: int
    names: tuple[str, ...] = ()
    examples: dict[str, int | None]
    slices: dict[str, str] = Field(default_factory=dict)
    order: Literal["exact", "seeded"] = "exact"
    train: str | None = "train"
    evals: tuple[str, ...] = ("test",)
    group: str = ""
    archive: str = ""
    hub: str = ""

    @property
    def subsets(self) -> tuple[str, ...]:
        """The names of all subsets."""
        return tuple(dict.fromkeys([*self.slices, *self.examples]))

    def size(self, subset: str) -> int | None:
        """Return how many images a subset has, None where that differs between releases."""
        if subset not in self.slices:
            return self.examples[subset]
        sizes = [(piece, self.examples[piece.split]) for piece in pieces(self.slices[subset])]
        return (
            None
            if any(whole is None for _, whole in sizes)
            else sum(len(piece.of(whole or 0)) for piece, whole in sizes)
        )

    @property
    def known_bytes(self) -> int:
        """The size of all downloads together, as far as it is known."""
        return sum(file.bytes or 0 for file in self.files)

    @property
    def download(self) -> str:
        """The size of all downloads together, in words; "" where there are none."""
        if not self.files:
            return ""
        size, known = self.known_bytes, all(file.bytes for file in self.files)
        told = f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.0f} MiB"
        return told if known else f"over {told}" if size else "unknown size"


class Piece(NamedTuple):
    """A part of a split, from one place to another in its order."""

    split: str
    start: int | None
    stop: int | None

    def of(self, count: int) -> range:
        """Return the places of this piece among `count`."""
        return range(count)[self.start : self.stop]


def pieces(text: str) -> list[Piece]:
    """Return "train[:800]+val[:200]" as pieces.

    Raises:
        ValueError: it is written otherwise.
    """
    found: list[Piece] = []
    for part in text.split("+"):
        match = _PIECE.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"'{part}' is no piece of a split")
        split, start, stop = match.groups()
        found.append(Piece(split, int(start) if start else None, int(stop) if stop else None))
    return found


@cache
def entries() -> dict[str, Entry]:
    """Return every data set of the catalog by name; the tasks of VTAB-1k are "vtab/caltech101" and so on."""
    folder = resources.files("vitlab.data").joinpath("catalog")
    files = {each.name.removesuffix(".json"): each for each in folder.iterdir() if each.name.endswith(".json")}
    facts: dict[str, Json] = {name: json.loads(files[name].read_text("utf-8")) for name in sorted(files)}
    tasks: dict[str, Json] = {f"vtab/{name}": task for name, task in facts.pop("vtab").items()}
    return {name: parse(Entry, _whole_facts(name, facts | tasks), f"catalog/{name}") for name in [*facts, *tasks]}


def _whole_facts(name: str, facts: dict[str, Json]) -> Json:
    """Return the facts of a data set with those of the one that it is made `of`."""
    own = dict(facts[name])
    base = own.pop("of", None)
    return {"folder": name} | own if base is None else _whole_facts(base, facts) | own


def entry(name: str) -> Entry:
    """Return the data set `name`.

    Raises:
        DataError: there is none of that name.
    """
    known = entries()
    if name not in known:
        raise DataError(name, "is not in the catalog", nearest(name, list(known), "see `vitlab data list`"))
    return known[name]


def data_folder() -> Path:
    """Return the folder of data sets: $VITLAB_DATA, or data in the folder for downloads."""
    ours = os.environ.get("VITLAB_DATA")
    return Path(ours) if ours else cache_folder() / "data"


def place_of(name: str, root: Path) -> Path | None:
    """Return the folder in `root` where the data set `name` is, None if it is not there."""
    found = entry(name)
    task = root / VTAB_FOLDER / found.archive
    if found.archive and task.is_dir():
        return task
    return root / found.folder if (root / found.folder).is_dir() else None


def require(name: str, root: Path) -> Path:
    """Return the folder in `root` where the data set `name` is.

    Raises:
        DataError: it is not there; the error says how to get it.
    """
    place = place_of(name, root)
    if place is not None:
        return place
    found = entry(name)
    if found.files:
        remedy = f"run `vitlab data download {name}` ({found.download}), or set VITLAB_DATA to the folder that has it"
    else:
        remedy = f"{found.take}; put or link it at {root / found.folder}, or set VITLAB_DATA"
    raise DataError(name, f"is not in {root}", remedy)


class Catalogued(DataPath):
    """A subset of a data set of the catalog, by its name; `path` is the folder of data sets, by default `data_folder()`.

    How many images and classes it has is compared with what was published when it is first used. A pickled one holds its
    settings only, so worker processes copy no data.

    Raises, on first use:
        DataError: it is not in the catalog or not here, has no such subset, or is not whole.
    """

    whole: ClassVar[bool] = True
    """Whether a subset with fewer images than were published is refused."""

    type: Literal["Catalogued"] = "Catalogued"
    name: str
    path: Annotated[Path, Field(default_factory=data_folder)]

    def __init__(self, name: str | None = None, **fields: Any) -> None:
        super().__init__(**(fields if name is None else {"name": name, **fields}))

    def __getstate__(self) -> dict[Any, Any]:
        return {**super().__getstate__(), "__dict__": self._settings()}

    def __hash__(self) -> int:
        return hash((self.name, self.path, self.subset, self.part))

    def __str__(self) -> str:
        name = f"{self.name} {self.subset}" if self.subset else self.name
        return name if self.part is None else f"{name} ({self.part})"

    @cached_property
    def listing(self) -> "Chosen":
        """The labels, the class names, and how to read an image."""
        found = entry(self.name)
        place = require(self.name, self.path)
        if self.subset not in found.subsets:
            what = "needs a subset" if self.subset is None else f"has no subset '{self.subset}'"
            raise DataError(self.name, what, nearest(self.subset or "", found.subsets))
        if found.archive and place == self.path / VTAB_FOLDER / found.archive:
            return Chosen([_from_archive(found, place, self.subset)])
        if found.order == "seeded" and self.subset in found.slices:
            logging.getLogger("vitlab").warning("%s: %s", self.name, found.note)
        return Chosen(list(_chosen(found, place, self.subset, self.whole)))

    def read(self, index: int) -> Example:
        """Return the image at `index`; its key is what the original calls it.

        Raises:
            ImageError: the file has gone, or may not be read.
        """
        data, name = self.listing.read(self.place_of(index))
        return Example(data, label_at(self.labels, index), f"{self.name}/{printable(name)}")


class Remaining(Catalogued):
    """What is there of a subset from which images are missing, for evaluation alone: no run's settings can name it.

    A subset that is cut from a split by its order is refused still, because any missing image would change it.
    """

    whole: ClassVar[bool] = False

    @property
    def expected(self) -> int | None:
        """How many images were published; None where releases differ."""
        return entry(self.name).size(self.subset or "")

    @property
    def missing(self) -> tuple[str, ...]:
        """The files (and folders, with a / at the end) that are not there, as far as their names are known."""
        return self.listing.missing


class Chosen:
    """Some examples of one or more splits, in order."""

    def __init__(self, parts: Sequence[tuple[Examples, NDArray[np.int64]]]) -> None:
        self._parts = [(examples, places) for examples, places in parts]
        self._starts = np.cumsum([0, *(len(places) for _, places in parts)])
        self.classes: tuple[str, ...] = parts[0][0].classes
        self.labels: NDArray[np.int64] = np.concatenate([examples.labels[places] for examples, places in parts])
        self.missing = tuple(name for examples, _ in parts for name in examples.missing)

    def read(self, index: int) -> tuple[Any, str]:
        """Return the bytes or pixels of the example at `index`, and its name."""
        part = int(np.searchsorted(self._starts, index, "right")) - 1
        examples, places = self._parts[part]
        place = int(places[index - int(self._starts[part])])
        return examples.fetch(place), examples.names[place]


def _chosen(found: Entry, place: Path, subset: str, whole: bool) -> Iterator[tuple[Examples, NDArray[np.int64]]]:
    """Yield the splits that a subset is made of, and which of their examples."""
    if subset not in found.slices:
        examples = _split(found, place, subset, whole)
        yield examples, np.arange(len(examples.labels))
        return
    opened: dict[str, tuple[Examples, NDArray[np.int64]]] = {}
    for piece in pieces(found.slices[subset]):
        if piece.split not in opened:
            examples = _split(found, place, piece.split)
            opened[piece.split] = examples, published_order(examples.names, _SALTS[piece.split])
        examples, order = opened[piece.split]
        yield examples, order[piece.start : piece.stop]


def published_order(names: Sequence[str], salt: str) -> NDArray[np.int64]:
    """Return the places of examples in the order of TensorFlow Datasets: by the MD5 hash of the split's name and their own.

    The names are what the data set's builder there uses as keys. This is the order that VTAB-1k's "train[:800]" cuts.
    """
    start = hashlib.md5(salt.encode())
    digests = bytearray()
    for name in names:
        digest = start.copy()
        digest.update(name.encode("utf-8", "surrogateescape"))
        digests += digest.digest()
    halves = np.frombuffer(digests, ">u8").reshape(-1, 2)
    return np.lexsort((halves[:, 1], halves[:, 0])).astype(np.int64)


def _split(found: Entry, place: Path, split: str, whole: bool = True) -> Examples:
    """Return a split of the files.

    Raises:
        DataError: it has more images or other classes than were published, or, unless it need not be `whole`, fewer images.
    """
    examples = found.layout.open(place, split, found.names)
    count, expected = len(examples.labels), found.examples[split]
    if whole or count > (expected or count):
        _compare(place, f"split '{split}'", count, expected, "images", examples.missing)
    _compare(place, f"split '{split}'", len(examples.classes), found.classes, "classes")
    return examples


def _from_archive(found: Entry, place: Path, subset: str) -> tuple[Examples, NDArray[np.int64]]:
    """Return a subset of a VTAB-1k task from the archive that has a list a subset."""
    lists = ImageLists(lists={subset: f"{subset}.txt"}, images="{}", label="number")
    examples = lists.open(place, subset, numbered_classes(found.names, found.classes))
    _compare(place, f"{subset}.txt", len(examples.labels), found.size(subset), "images")
    return examples, np.arange(len(examples.labels))


def _compare(place: Path, what: str, count: int, expected: int | None, of: str, missing: Sequence[str] = ()) -> None:
    if expected is not None and count != expected:
        told = f"{what} has {count:,} {of}, expected {expected:,}"
        remedy = "some files are missing, or are not those that were published"
        if missing:
            remedy += "; `vitlab evaluate --missing-images skip` does without:"
        items = [*missing[:10], *([f"… and {len(missing) - 10:,} more"] if len(missing) > 10 else [])]
        raise DataError(place, told, remedy, items)
