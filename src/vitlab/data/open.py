"""Open: a data set by the one name a person types, told by what is there."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vitlab.config import nearest
from vitlab.data import folder, hub, shards, table, webdataset
from vitlab.data.catalog import Catalogued, data_folder, entries, require
from vitlab.data.digits import Digits
from vitlab.data.folder import Folder
from vitlab.data.fractals import Fractals
from vitlab.data.hub import Hub
from vitlab.data.shards import Shards
from vitlab.data.store import is_address
from vitlab.data.table import Table
from vitlab.data.webdataset import WebDataset
from vitlab.errors import DataError

AnySource = Folder | Table | Shards | WebDataset | Hub | Catalogued | Digits | Fractals
"""The sources that settings can name: this union is their registry."""


@dataclass(frozen=True)
class Opened:
    """What a name stands for: what to train on, what to evaluate on by split ("val", "test"), and all of it undivided.

    `train` is None where there are ready splits but none to train on. `whole` is None where there are ready splits;
    otherwise `train` and `evals["test"]` are two sides of it.
    """

    train: AnySource | None
    evals: dict[str, AnySource]
    whole: AnySource | None = None


EMBEDDED: dict[str, Callable[[], Digits | Fractals]] = {"digits": Digits, "fractals": Fractals}
"""The data sets that need no files, by the name a person types."""


def open_data(name: str, test_fraction: float = 0.1, seed: int = 0) -> Opened:
    """Return the data set `name`: an embedded one, a path, an address, or one of the catalog where there is no such path.

    A path is a folder of class folders, a folder of ready splits that each hold class folders, a parquet, CSV or JSONL
    file, or a folder of those (see `Table`), a pack, or a folder of packs as ready splits (see `Shards`), or tar files that
    others wrote (see `WebDataset`). An address is hf://datasets/owner/name of the Hugging Face hub, or where a pack is
    ("s3://bucket/photos"). Where there is a split to train on but none to evaluate on, a stratified `test_fraction` of it,
    chosen by `seed`, becomes "test". A data set of the catalog has to be here already: nothing of it is downloaded.

    Raises:
        DataError: there is nothing of that name, it is no data set, or it is not here.
    """
    if name in EMBEDDED:
        return _divided(EMBEDDED[name](), test_fraction, seed)
    if name.startswith("hf://"):
        data = hub.parse_address(name)
        return _opened(data, hub.find_splits(data), test_fraction, seed)
    if is_address(name):
        return _opened(Shards(name), shards.find_splits(name), test_fraction, seed)
    path = Path(name)
    if not path.exists():
        if name in entries():
            return _catalogued(name, test_fraction, seed)
        known = "".join(f", {word}" for word in EMBEDDED)
        remedy = f"give a folder of class folders, a {', '.join(table.SUFFIXES)} file{known}, or a name of `vitlab data list`"
        what = "is no data set: there is no such file or folder"
        raise DataError(name, what, nearest(name, [*EMBEDDED, *entries()], remedy))
    if shards.is_pack(path):
        shards.refuse_unfinished(path)
        return _opened(Shards(name), shards.find_splits(name), test_fraction, seed)
    if webdataset.tar_files(path):
        return _opened(WebDataset(path), webdataset.find_splits(path), test_fraction, seed)
    if path.is_file() or table.table_files(path):
        return _opened(Table(path), table.find_splits(path), test_fraction, seed)
    return _opened(Folder(path), folder.find_splits(path), test_fraction, seed)


def refuse_shadowed(name: str) -> None:
    """Refuse the name of a data set of the catalog where there is a path of that name, which `open_data` would open instead.

    Raises:
        DataError: there is.
    """
    if Path(name).exists():
        what = f"would be taken for '{name}' of the catalog"
        raise DataError(
            Path(name).absolute(), what, "start it in another folder, with --out and VITLAB_DATA as full paths"
        )


def open_splits(name: str) -> dict[str, AnySource]:
    """Return the ready splits of the data set `name`, the one to train on first, or all of it as "all".

    Raises:
        DataError: there is nothing of that name, or it is no data set.
    """
    opened = open_data(name)
    if opened.whole is not None:
        return {getattr(opened.whole, "subset", None) or "all": opened.whole}
    return ({} if opened.train is None else {"train": opened.train}) | opened.evals


def _opened(
    data: Folder | Table | Shards | WebDataset | Hub, splits: dict[str, str], test_fraction: float, seed: int
) -> Opened:
    subsets = {split: data.model_copy(update={"subset": name}) for split, name in splits.items()}
    train = subsets.pop("train", None)
    if subsets:
        return Opened(train, {**subsets})
    return _divided(data if train is None else train, test_fraction, seed)


def _catalogued(name: str, test_fraction: float, seed: int) -> Opened:
    """Return a data set of the catalog, divided as its authors or VTAB-1k do."""
    found = entries()[name]
    require(name, data_folder())
    train = Catalogued(name, subset=found.train) if found.train else None
    evals: dict[str, AnySource] = {subset: Catalogued(name, subset=subset) for subset in found.evals}
    if train is not None and not evals:
        return _divided(train, test_fraction, seed)
    return Opened(train, evals)


def _divided(whole: AnySource, test_fraction: float, seed: int) -> Opened:
    train, test = whole.split(test_fraction, seed)
    return Opened(train, {"test": test} if len(test) else {}, whole)  # no class may have two images to divide
