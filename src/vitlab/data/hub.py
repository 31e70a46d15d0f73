"""Hub: a data set of the Hugging Face hub, by `datasets` (the extra `[hub]`); no code of a data set is ever run."""

import importlib
import os
import re
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from vitlab.config import nearest
from vitlab.data.arrow import ArrowRows
from vitlab.data.column import encode, from_arrow
from vitlab.data.labels import Labels, label_at
from vitlab.data.path import Listed, name_splits, printable, read_file
from vitlab.data.source import Example
from vitlab.errors import DataError, ImageError

PREFIX = "hf://datasets/"
"""How the address of a data set begins; hf://owner/name is a model."""
_NAME = r"[\w-][\w.-]*/[\w-][\w.-]*"
_ADDRESS = re.compile(rf"{PREFIX}({_NAME})(?:@([^/\s]+))?(?:/([^/\s]+))?")
_OFFLINE = ("VITLAB_OFFLINE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")


class HubListing(NamedTuple):
    """What is known of a split without decoding an image, and its rows."""

    classes: tuple[str, ...]
    labels: Labels
    rows: ArrowRows


class Hub(Listed):
    """A data set of the Hugging Face hub: `name` is "owner/name", `config` one of its configurations, `subset` its split.

    It is downloaded when it is first used, into the cache of `datasets` ($HF_HOME), and once; then its rows are memory-mapped
    Arrow. `revision` is a branch, tag or commit. Without `image_column` or `label_column` it is the only column of images, or of
    class labels. Images go through this library's decoder. A data set that is a program is refused, and none is run.

    Raises, on first use:
        DataError: `datasets` is not installed; there is no such data set, configuration, split or column; it cannot be reached;
            a label is missing or without a class name.
    """

    type: Literal["Hub"] = "Hub"
    name: Annotated[str, Field(pattern=rf"^{_NAME}$")]
    config: str | None = None
    revision: str | None = None
    image_column: str | None = None
    label_column: str | None = None

    def __init__(self, name: str | None = None, **fields: Any) -> None:
        if name is not None:
            fields["name"] = name
        super().__init__(**fields)

    def __getstate__(self) -> dict[Any, Any]:
        return {**super().__getstate__(), "__dict__": self._settings()}

    @property
    def address(self) -> str:
        """What a person types: hf://datasets/owner/name@revision/config."""
        revision, config = (f"@{self.revision}" if self.revision else ""), (f"/{self.config}" if self.config else "")
        return f"{PREFIX}{self.name}{revision}{config}"

    @property
    def place(self) -> str:
        """The address, with the name of the split."""
        return f"{self.address} {self.subset}" if self.subset else self.address

    @cached_property
    def listing(self) -> HubListing:
        """The labels, the class names, and the rows."""
        splits = _download(self.name, self.config, self.revision)
        known = name_splits(self.address, list(splits))
        if self.subset is None and len(splits) > 1:
            raise DataError(self.address, f"holds ready splits: {', '.join(splits)}", "choose one by subset")
        split = next(iter(splits)) if self.subset is None else known.get(self.subset, self.subset)
        if split not in splits:
            raise DataError(self.address, f"has no split '{split}'", nearest(split, list(splits)))
        found = splits[split]
        image = _column(self.address, found.features, "image", self.image_column)
        label = _column(self.address, found.features, "label", self.label_column)
        table = found.data.table
        rows = ArrowRows([table[image]], lambda _, row: f"{self.name}/{printable(split)}:{row}", _read_cached)
        column = from_arrow(table[label], Path(self.address) / split, label)
        names = getattr(getattr(found.features[label], "feature", found.features[label]), "names", None)
        classes, labels = encode(str(self), column, None if names is None else tuple(names), rows.key)
        return HubListing(classes, labels, rows)

    def read(self, index: int) -> Example:
        """Return the row at `index`; its key is the data set, the split and the row number.

        Raises:
            ImageError: the row holds no image.
        """
        data, key = self.listing.rows.read(self.place_of(index))
        return Example(data, label_at(self.labels, index), key)


def parse_address(address: str) -> Hub:
    """Return the data set at hf://datasets/OWNER/NAME[@REVISION][/CONFIG].

    Raises:
        DataError: it is no such address.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise DataError(
            address, "is no data set on the hub", f"write {PREFIX}OWNER/NAME, then @REVISION and /CONFIG if needed"
        )
    return Hub(found[1], revision=found[2], config=found[3])


def find_splits(data: Hub) -> dict[str, str]:
    """Return the ready splits of `data`: "train", "val", "test" to what it calls them.

    Raises:
        DataError: it cannot be had, or there are two names for one split.
    """
    return name_splits(data.address, list(_download(data.name, data.config, data.revision)))


@cache
def _download(name: str, config: str | None, revision: str | None) -> Mapping[str, Any]:
    """Return the splits of a data set as `datasets` has them, after downloading it if need be."""
    address = Hub(name, config=config, revision=revision).address
    offline = next((each for each in _OFFLINE if os.environ.get(each, "").lower() in ("1", "true", "yes", "on")), None)
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when `datasets` is imported
    try:
        datasets: Any = importlib.import_module("datasets")
    except ImportError:
        what, remedy = "needs the package `datasets`, which is not installed", "pip install 'vitlab[hub]'"
        raise DataError(address, what, remedy) from None
    if Path(name).exists():
        raise DataError(address, f"is a folder here, '{name}', too, which would be read instead", "run this elsewhere")
    try:
        return datasets.load_dataset(name, config, revision=revision, keep_in_memory=False)
    except datasets.exceptions.DatasetNotFoundError:
        what = "is not on the hub, or only for those who accepted its terms"
        raise DataError(address, what, "check the name, or log in by `hf auth login`") from None
    except ConnectionError:
        what = f"is not on this computer, and {offline} is set" if offline else "cannot be reached"
        remedy = f"unset {offline}, or fetch it once with a network" if offline else "try again with a network"
        raise DataError(address, what, remedy) from None
    except Exception as error:  # each of its many formats raises its own
        cause = " ".join(str(error.__cause__ or error).split())
        raise DataError(address, f"cannot be had ({cause[:300]})", "see its page on the hub") from None


def _column(address: str, features: Mapping[str, Any], kind: str, wanted: str | None) -> str:
    """Return the column of the images, or of the labels: `wanted`, the only one of its kind, or the one of that name."""
    feature = {"image": "Image", "label": "ClassLabel"}[kind]
    found = [name for name, each in features.items() if type(getattr(each, "feature", each)).__name__ == feature]
    chosen = wanted or (found[0] if len(found) == 1 else kind)
    if chosen in found or (kind == "label" and chosen in features):  # labels may be plain integers or strings
        return chosen
    what = f"has no column '{wanted}' of type {feature}" if wanted else f"has {len(found)} columns of type {feature}"
    raise DataError(address, what, f"choose {kind}_column from {', '.join(found or features)}")


def _read_cached(name: str, _: int, key: str) -> bytes:
    """Return an image that a row names by its path, where `datasets` unpacked an archive: in its own cache alone."""
    datasets: Any = importlib.import_module("datasets")
    constants: Any = importlib.import_module("huggingface_hub.constants")
    path = Path(name).resolve()
    if not any(
        path.is_relative_to(Path(root).resolve()) for root in (datasets.config.HF_CACHE_HOME, constants.HF_HOME)
    ):
        what = f"names a file outside of the cache of the hub, '{printable(name)}'"
        raise ImageError(key, what, "a data set has no business there: do not use it")
    return read_file(path)
