"""WebDataset: tar files that other programs wrote, an image and its label by the same name in each; nothing is unpacked.

The layout is that of webdataset, img2dataset and CLIP benchmark: `000012.jpg` beside `000012.cls`, perhaps a classnames.txt.
"""

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitlab.config import nearest
from vitlab.data.labels import NONE, label_at
from vitlab.data.path import ALIASES, DataPath, name_splits, printable
from vitlab.data.source import Example
from vitlab.data.store import Local
from vitlab.data.tar import MAX_IMAGE, Member, TarError, members
from vitlab.errors import DataError, ImageError

NAMES = "classnames.txt"
SUFFIXES = (".tar", ".tar.gz", ".tgz")
"""How the names of tar files end; the compressed ones are refused."""
_SUFFIXES = "jpg jpeg jpe jfif png webp gif bmp tif tiff avif jp2 ppm pgm ico img image"
_GZIP = b"\x1f\x8b"
_IMAGES = frozenset(_SUFFIXES.split())


class WebDatasetListing(NamedTuple):
    """Where the images are: the number of the tar file, and the bytes of headers and image in it, [n] each."""

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    files: tuple[str, ...]
    numbers: NDArray[np.int64]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]


class WebDataset(DataPath):
    """A tar file or a folder of them in webdataset's layout; `subset` names a sub-folder, or the first word of the file names.

    The headers are read when it is opened, which takes about a minute for a million images: `vitlab data pack` saves that. Labels
    are numbers in `.cls`; the lines of a classnames.txt, there or one folder up, name them, else the numbers that occur are the
    classes. With `label_suffix` None the labels are left alone: an image has none, and there are no classes.

    Raises, on first use:
        DataError: there is no such file or subset; a file is cut short or damaged, or holds a link, a device, or a name that leads
            out of the folder; an image has no label, or a label no image; there is only one class.
    """

    type: Literal["WebDataset"] = "WebDataset"
    label_suffix: Literal["cls"] | None = "cls"

    def __init__(self, path: Path | str | None = None, **fields: Any) -> None:
        super().__init__(path, **fields)

    def __getstate__(self) -> dict[Any, Any]:
        return {**super().__getstate__(), "__dict__": {**self._settings(), "listing": self.listing}}

    @cached_property
    def listing(self) -> WebDatasetListing:
        """The labels, the class names, and where every image is."""
        root = self.path if self.path.is_dir() else self.path.parent
        files = _chosen(self.path, self.subset)
        rows: list[tuple[int, int, int, int]] = []
        for number, file in enumerate(files):
            rows += [(number, *row) for row in _samples(file, self.label_suffix)]
        if not rows:
            raise DataError(str(self), "holds no images", "put an image and a .cls of the same name into each sample")
        table = np.array(rows, np.int64)
        unlabelled = (), np.full((len(rows), 1), NONE)
        classes, labels = _name(files[0], table[:, 3], str(self)) if self.label_suffix else unlabelled
        names = tuple(file.relative_to(root).as_posix() for file in files)
        return WebDatasetListing(classes, labels, names, table[:, 0], table[:, 1], table[:, 2])

    @cached_property
    def _store(self) -> Local:
        return Local(self.path if self.path.is_dir() else self.path.parent)

    def read(self, index: int) -> Example:
        """Return the image at `index`; its key is its tar file and its name in there.

        Raises:
            ImageError: the tar file has gone or changed.
        """
        found, place = self.listing, self.place_of(index)
        name, start, size = found.files[found.numbers[place]], int(found.starts[place]), int(found.sizes[place])
        where = self._store.path(name)
        try:
            run = self._store.read(name, start, size)
            member = next(members(lambda offset, count: run[offset : offset + count], len(run)))
        except FileNotFoundError:
            raise ImageError(where, "is missing", "restore it") from None
        except (TarError, StopIteration) as error:
            raise ImageError(where, f"has changed since it was opened ({error})", "start again") from None
        data = run[member.offset : member.offset + member.size]
        return Example(data, label_at(self.labels, index), f"{name}:{printable(member.name)}")


def find_splits(path: Path) -> dict[str, str]:
    """Return the ready splits of the tar files at `path`: "train", "val", "test" to what they are called there.

    Raises:
        DataError: there are two names for one split.
    """
    names = dict.fromkeys(word for file in tar_files(path) if (word := _split_name(file, path)) is not None)
    return name_splits(path, list(names))


def tar_files(path: Path) -> list[Path]:
    """Return the tar file `path`, or those in that folder, or in its sub-folders if these are ready splits; sorted.

    Where there are other folders there is none: tar files beside class folders are what these were unpacked from.
    """
    if path.is_file():
        return [path] if path.name.lower().endswith(SUFFIXES) else []
    try:
        folders = [each for each in path.iterdir() if each.is_dir() and not each.name.startswith(".")]
        if any(each.name.lower() not in ALIASES or any(inner.is_dir() for inner in each.iterdir()) for each in folders):
            return []
        found = [file for place in folders or [path] for file in place.iterdir() if file.suffix.lower() == ".tar"]
    except OSError:  # said by whoever looks for images there
        return []
    return sorted(file for file in found if not file.name.startswith(".") and file.is_file())


def _samples(file: Path, label_suffix: str | None) -> Iterator[tuple[int, int, int]]:
    """Yield for every sample of a tar file where its image begins with its headers, the bytes of both, and its label.

    Without a `label_suffix` the label is -1, and a sample without an image is none.
    """
    store = Local(file.parent)
    key: str | None = None
    image: Member | None = None
    unlabelled = None if label_suffix else NONE
    label = unlabelled
    try:
        if store.read(file.name, 0, 2) == _GZIP:
            raise DataError(
                printable(str(file)), "is compressed, so that no image in it can be found", "gunzip it first"
            )
        for member in members(lambda start, size: store.read(file.name, start, size), file.stat().st_size):
            named, suffix = _key_and_suffix(member.name)
            is_image = suffix in _IMAGES
            if not is_image and suffix != label_suffix:
                continue
            if named != key:
                if key is not None:
                    yield _sample(key, image, label)
                key, image, label = named, None, unlabelled
            if (image if is_image else label) is not None:
                raise TarError(f"sample {key!r} has two {'images' if is_image else 'labels'}")
            if is_image:
                image = member
            else:
                label = _label(store.read(file.name, member.offset, min(member.size, 32)), member.name)
        if key is not None:
            yield _sample(key, image, label)
    except TarError as error:
        raise DataError(printable(str(file)), str(error), "fetch it again, or leave it out") from None


def _key_and_suffix(name: str) -> tuple[str, str]:
    """Return what groups members, and the suffix in lower case; webdataset divides a name at its first dot."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return folder + slash + stem, suffix.lower().rpartition(".")[2]


def _sample(key: str, image: Member | None, label: int | None) -> tuple[int, int, int]:
    if image is None or label is None:
        raise TarError(f"sample {key!r} has no {'image' if image is None else 'label (.cls)'}")
    if image.size > MAX_IMAGE:
        raise TarError(f"member {image.name!r} has {image.size:,} bytes")
    return image.start, image.offset + image.size - image.start, label


def _label(content: bytes, name: str) -> int:
    if re.fullmatch(rb"\d{1,9}", content.strip()) is None:
        raise TarError(f"member {name!r} holds {content!r}, not the number of a class")
    return int(content)


def _name(file: Path, found: NDArray[np.int64], where: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return class names and labels: the names are in a file beside the tar files or one folder up, or the numbers are names."""
    occurring, labels = np.unique(found, return_inverse=True)
    names = next((path for path in (file.with_name(NAMES), file.parent.with_name(NAMES)) if path.is_file()), None)
    if names is None:
        classes, labels = tuple(map(str, occurring)), labels.astype(np.int64)
    else:
        lines = names.read_text(encoding="utf-8").splitlines()
        classes, labels = tuple(line.strip() for line in lines), found
        if occurring[-1] >= len(classes):
            raise DataError(names, f"has {len(classes)} names, and label {occurring[-1]} occurs", "complete it")
    if len(classes) < 2:
        raise DataError(where, "has only one class: there is nothing to learn", "give two or more")
    return classes, labels


def _chosen(path: Path, subset: str | None) -> list[Path]:
    """Return the tar files of a subset."""
    found = tar_files(path)
    if not found:
        what = "holds no tar files" if path.exists() else "does not exist"
        raise DataError(path, what, "give a .tar file, or a folder of them")
    splits = find_splits(path)
    if subset is None and len(splits) > 1:
        raise DataError(path, f"holds ready splits: {', '.join(splits)}", "choose one by subset")
    if subset is None:
        return found
    chosen = [file for file in found if _split_name(file, path) == splits.get(subset, subset)]
    if not chosen:
        raise DataError(path, f"has no subset '{subset}'", nearest(subset, list(splits)) or "leave subset out")
    return chosen


def _split_name(file: Path, root: Path) -> str | None:
    """Return what `file` of the folder `root` calls its split, if it is one: by its first word, or its folder."""
    if file == root:
        return None
    words = [re.split(r"[-_.]", file.name)[0], *([file.parent.name] if file.parent != root else [])]
    return next((word for word in words if word.lower() in ALIASES), None)
