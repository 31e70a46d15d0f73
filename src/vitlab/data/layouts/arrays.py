"""Layouts of pixels in arrays, not in image files: CIFAR, SVHN, SmallNORB, dSprites, PatchCamelyon, DMLab."""

import math
import mmap
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vitlab.config import Settings
from vitlab.data.layouts.examples import Examples, Numbered, in_short, missing, numbered_classes, read_text
from vitlab.data.layouts.hdf5 import find_array, read_part
from vitlab.data.layouts.matlab import read_mat
from vitlab.data.layouts.records import Span, features, records
from vitlab.data.source import Pixels
from vitlab.errors import DataError

Names = tuple[str, ...]


class Cifar(Settings):
    """CIFAR's binary version: records of `label_bytes` labels, of which the last counts, and 3 × 32 × 32 pixels.

    `files` are those of each split, `words` the file with the class names. The other version is pickled, and never read.
    """

    type: Literal["Cifar"] = "Cifar"
    files: dict[str, tuple[str, ...]]
    words: str
    label_bytes: Literal[1, 2]

    def open(self, root: Path, split: str, names: Names) -> Examples:
        """Return the examples of a split.

        Raises:
            DataError: a file is not there, or holds no whole number of records.
        """
        del names
        size = self.label_bytes + 3072
        parts = [_mapped(root / file) for file in self.files[split]]
        for file, part in zip(self.files[split], parts, strict=True):
            if len(part) % size:
                raise DataError(root / file, f"has {len(part):,} bytes, not a multiple of {size:,}", "fetch it again")
        rows = [part.reshape(-1, size) for part in parts]
        labels = np.concatenate([part[:, self.label_bytes - 1] for part in rows]).astype(np.int64)
        classes = tuple(line.strip() for line in read_text(root / self.words).splitlines() if line.strip())
        _check_labels(labels, len(classes), root / self.files[split][0])
        starts = np.cumsum([0, *map(len, rows)])

        def fetch(index: int) -> Pixels:
            part = int(np.searchsorted(starts, index, "right")) - 1
            record = rows[part][index - int(starts[part])]
            return np.ascontiguousarray(record[self.label_bytes :].reshape(3, 32, 32).transpose(1, 2, 0))

        return Examples(classes, labels, Numbered(len(labels)), fetch)


class Svhn(Settings):
    """SVHN's cropped digits: MATLAB files with X [32, 32, 3, n] and y [n, 1], where 10 is the digit 0."""

    type: Literal["Svhn"] = "Svhn"
    files: dict[str, str]

    def open(self, root: Path, split: str, names: Names) -> Examples:
        """Return the examples of a split.

        Raises:
            DataError: the file is not there, or holds something else.
        """
        where = root / self.files[split]
        arrays = read_mat(where, ("X", "y"))
        images, digits = arrays.get("X"), arrays.get("y")
        if images is None or digits is None or images.dtype != np.uint8 or images.shape[:3] != (32, 32, 3):
            raise DataError(where, "does not hold X [32, 32, 3, n] and y", "fetch it again")
        labels = digits.reshape(-1).astype(np.int64) % 10
        if images.ndim != 4 or images.shape[3] != len(labels):
            raise DataError(where, f"has {len(labels):,} labels for X {list(images.shape)}", "fetch it again")
        pixels = images  # as MATLAB has it: the last axis is the slowest, so an image lies together
        return Examples(
            numbered_classes(names, 10),
            labels,
            Numbered(len(labels)),
            lambda index: np.ascontiguousarray(pixels[..., index]),
        )


class SmallNorb(Settings):
    """SmallNORB's binary matrices: pairs of grey images of 96 × 96, of which the first is shown, and their properties."""

    type: Literal["SmallNorb"] = "SmallNorb"
    files: dict[str, str]
    label: Literal["category", "elevation", "azimuth", "lighting"] = "category"

    def open(self, root: Path, split: str, names: Names) -> Examples:
        """Return the examples of a split; an azimuth is counted in steps of 20 degrees.

        Raises:
            DataError: a file is not there, or holds something else.
        """
        stem = self.files[split]
        images = _norb_matrix(root / f"{stem}-dat.mat")
        if self.label == "category":
            where = root / f"{stem}-cat.mat"
            labels = _norb_matrix(where).reshape(-1).astype(np.int64)
        else:
            where = root / f"{stem}-info.mat"
            info = _norb_matrix(where)
            column = {"elevation": 1, "azimuth": 2, "lighting": 3}[self.label]
            if info.ndim != 2 or info.shape[1] != 4:
                raise DataError(where, f"holds a matrix {list(info.shape)}, not [n, 4]", "fetch it again")
            labels = info[:, column].astype(np.int64) // (2 if self.label == "azimuth" else 1)
        if images.ndim != 4 or len(images) != len(labels):
            raise DataError(where, f"has {len(labels):,} labels for images {list(images.shape)}", "fetch it again")
        _check_labels(labels, len(names), where)
        return Examples(names, labels, Numbered(len(labels)), lambda index: _grey(images[index, 0]))


class DSprites(Settings):
    """dSprites: imgs [n, 64, 64] of 0 and 1, and the class of each of 6 latent variables, grouped into `bins` of equal size."""

    type: Literal["DSprites"] = "DSprites"
    label: Literal["shape", "scale", "orientation", "x_position", "y_position"] = "shape"
    bins: int | None = None

    def open(self, root: Path, split: str, names: Names) -> Examples:
        """Return all examples; there are no splits. The file's member `metadata` is pickled, and never read.

        Raises:
            DataError: a file is not there, or holds something else.
        """
        del split
        images, latents = _npy(root / "imgs.npy"), _npy(root / "latents_classes.npy")
        if images.shape[1:] != (64, 64) or images.dtype != np.uint8 or latents.shape != (len(images), 6):
            raise DataError(root, f"holds imgs {list(images.shape)}, latents {list(latents.shape)}", "fetch it again")
        if latents.dtype.kind not in "iu":
            raise DataError(root / "latents_classes.npy", f"holds {latents.dtype}, not integers", "fetch it again")
        column = ("color", "shape", "scale", "orientation", "x_position", "y_position").index(self.label)
        values = latents[:, column].astype(np.int64)
        count = {"shape": 3, "scale": 6, "orientation": 40}.get(self.label, 32)
        bins = self.bins or count
        labels = values * bins // count
        _check_labels(labels, bins, root / "latents_classes.npy")
        classes = numbered_classes(names, bins)
        return Examples(classes, labels, Numbered(len(labels)), lambda index: _grey(images[index] * np.uint8(255)))


class Camelyon(Settings):
    """PatchCamelyon: HDF5 files with x [n, 96, 96, 3] and y [n, 1, 1, 1]; h5py reads them."""

    type: Literal["Camelyon"] = "Camelyon"
    files: dict[str, str]

    def open(self, root: Path, split: str, names: Names) -> Examples:
        """Return the examples of a split.

        Raises:
            DataError: a file is not there or holds something else, or h5py is not installed.
        """
        stem = self.files[split]
        images, digits = find_array(root / f"{stem}_x.h5", "x"), find_array(root / f"{stem}_y.h5", "y")
        if images.shape[1:] != (96, 96, 3) or images.dtype != np.uint8:
            raise DataError(root / f"{stem}_x.h5", f"holds x {list(images.shape)}", "fetch it again")
        if digits.size != len(images) or digits.dtype.kind not in "iu":
            what = f"holds y {list(digits.shape)} of {digits.dtype} for {len(images):,} images"
            raise DataError(root / f"{stem}_y.h5", what, "fetch it again")
        labels = read_part(root / f"{stem}_y.h5", digits, slice(None)).reshape(-1).astype(np.int64)
        _check_labels(labels, len(names), root / f"{stem}_y.h5")
        prefix = stem.rpartition("_")[2] + "_"

        def fetch(index: int) -> Pixels:
            where = root / f"{stem}_x.h5"
            return read_part(where, find_array(where, "x"), index)

        return Examples(names, labels, Numbered(len(labels), prefix), fetch)


class Records(Settings):
    """TensorFlow record files with image, filename and label; `files` is a pattern for each split (DMLab)."""

    type: Literal["Records"] = "Records"
    files: dict[str, str]

    def open(self, root: Path, split: str, names: Names) -> Examples:
        """Return the examples of a split.

        Raises:
            DataError: there is no such file, or it holds something else.
        """
        found = sorted(root.glob(self.files[split]))
        if not found:
            raise missing(root / self.files[split], FileNotFoundError())
        contents: list[memoryview] = []
        places: list[tuple[int, Span]] = []
        keys: list[str] = []
        labels: list[int] = []
        for number, path in enumerate(found):
            data = _mapped(path).data
            contents.append(data)
            try:
                for record in records(data):
                    parts = features(data, record)
                    image, name, label = parts.get("image"), parts.get("filename"), parts.get("label")
                    if not isinstance(image, Span) or not isinstance(name, Span) or not isinstance(label, int):
                        raise ValueError("a record lacks image, filename or label")
                    places.append((number, image))
                    keys.append(bytes(data[name.start : name.end]).decode("utf-8", "replace"))
                    labels.append(label)
            except ValueError as error:
                raise DataError(path, f"is damaged ({error})", "fetch it again") from None
        _check_labels(np.array(labels, np.int64), len(names), found[0])

        def fetch(index: int) -> bytes:
            number, span = places[index]
            return bytes(contents[number][span.start : span.end])

        return Examples(names, np.array(labels, np.int64), keys, fetch)


def _grey(image: NDArray[np.uint8]) -> Pixels:
    return np.repeat(image[..., None], 3, axis=2)


def _check_labels(labels: NDArray[np.int64], count: int, where: Path) -> None:
    if len(labels) and not 0 <= labels.min() <= labels.max() < count:
        outside = int(labels.min() if labels.min() < 0 else labels.max())
        raise DataError(where, f"holds the class {outside}, of {count}", "fetch it again")


def _mapped(path: Path) -> NDArray[np.uint8]:
    """Return the bytes of a file without reading them."""
    try:
        with path.open("rb") as file:
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except OSError as error:
        raise missing(path, error) from None
    except ValueError:
        raise DataError(path, "is empty", "fetch it again") from None


def _norb_matrix(path: Path) -> NDArray[Any]:
    """Return a matrix of SmallNORB: magic number, dimensions (at least three are written), values; all little-endian."""
    data = _mapped(path)
    kinds: dict[int, str] = {0x1E3D4C55: "u1", 0x1E3D4C54: "<i4"}
    head = data[:8].view("<i4") if len(data) >= 24 else [0, 0]
    magic, ndim = int(head[0]), int(head[1])
    if magic in kinds and 1 <= ndim <= 4:
        shape = data[8 : 8 + 4 * ndim].view("<i4").tolist()
        start, kind = 8 + 4 * max(3, ndim), np.dtype(kinds[magic])
        if min(shape) > 0 and math.prod(shape) * kind.itemsize == len(data) - start:
            return data[start:].view(kind).reshape(shape)
    raise DataError(path, "is no SmallNORB matrix, or not a whole one", "fetch it again")


def _npy(path: Path) -> NDArray[Any]:
    try:
        with path.open("rb") as file:
            if file.read(6) != b"\x93NUMPY":
                raise ValueError("it is no array of NumPy")
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise missing(path, error) from None
    except Exception as error:  # NumPy parses the header as Python's literals, which raises half a dozen classes
        raise DataError(path, f"cannot be read ({in_short(error)})", "fetch it again") from None
