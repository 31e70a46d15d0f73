"""Layouts on ImageNet's 1,000 classes: ImageNet itself, its reassessed labels, and ObjectNet."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from vitlab.config import Settings
from vitlab.data.folder import Folder, find_images
from vitlab.data.image import decode
from vitlab.data.layouts.examples import Examples, imagenet_synsets, inside, packaged_lines, read_text, whole_number
from vitlab.data.path import read_file
from vitlab.data.source import Pixels
from vitlab.errors import DataError

Names = tuple[str, ...]
_VALIDATION = re.compile(r"ILSVRC2012_val_(\d{8})\.(JPEG|jpeg|jpg|png)")


class ImageNet(Settings):
    """ImageNet-1k: train/<synset>/ and val/, where the images may lie in folders by synset or all together.

    With `labels` "real" the validation images have the labels of "Are we done with ImageNet?" (Beyer et al. 2020): any number
    of classes an image, and images with none are left out.
    """

    type: Literal["ImageNet"] = "ImageNet"
    labels: Literal["original", "real"] = "original"

    def open(self, root: Path, split: str, names: Names) -> Examples:
        """Return the examples of a split.

        Raises:
            DataError: a folder is not there, or holds images that are not ImageNet's.
        """
        del names
        synsets, missing = imagenet_synsets(), list[str]()
        if split == "train":
            listing = Folder(root / "train").listing
            index = {synset: number for number, synset in enumerate(synsets)}
            unknown = [name for name in listing.classes if name not in index]
            if unknown:
                raise DataError(root / "train", f"'{unknown[0]}' is none of ImageNet's synsets", "remove that folder")
            labels = np.array([index[name] for name in listing.classes], np.int64)[listing.labels]
            paths = [root / "train" / name for name in listing.names]
        else:
            paths = sorted(find_images(root / "val"), key=lambda path: path.name)
            numbers = np.array([_number(path) for path in paths], np.int64)
            twice = np.flatnonzero(np.diff(numbers) == 0)
            if len(twice):
                raise DataError(paths[twice[0]], f"is there again as {paths[twice[0] + 1]}", "remove one of the two")
            every = _real_labels() if self.labels == "real" else _validation_labels()
            labelled = np.flatnonzero(every.reshape(len(every), -1)[:, 0] >= 0)
            kept = np.flatnonzero(np.isin(numbers, labelled))
            paths, labels = [paths[place] for place in kept], every[numbers[kept]]
            missing = [f"ILSVRC2012_val_{number + 1:08d}.JPEG" for number in np.setdiff1d(labelled, numbers)]
        files = [path.name for path in paths]
        return Examples(tuple(synsets.values()), labels, files, lambda place: read_file(paths[place]), missing)


def _number(path: Path) -> int:
    """Return the number of a validation image, from 0."""
    found = _VALIDATION.fullmatch(path.name)
    if found is None or not 1 <= int(found[1]) <= len(_validation_labels()):
        raise DataError(path, "is no ImageNet validation image by its name", "remove it, or restore its name")
    return int(found[1]) - 1


@cache
def _validation_labels() -> NDArray[np.int64]:
    return np.array(packaged_lines("imagenet_val.txt.gz"), np.int64)


@cache
def _real_labels() -> NDArray[np.int64]:
    rows: list[list[int]] = json.loads("".join(packaged_lines("imagenet_real.json.gz")))
    return pad(rows)


def pad(rows: list[list[int]]) -> NDArray[np.int64]:
    """Return rows of class numbers as one array, padded with -1: int64 [n, most of any row]."""
    padded = np.full((len(rows), max(map(len, rows), default=1)), -1, np.int64)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return padded


class ObjectNet(Settings):
    """ObjectNet's images of classes that ImageNet has too, labelled with every ImageNet class that stands for theirs.

    So a prediction of one of ImageNet's 1,000 classes is right as by the authors' rule. The red border of one pixel that every
    image has is cut off.
    """

    type: Literal["ObjectNet"] = "ObjectNet"
    groups: int
    classes_matched: int

    def open(self, root: Path, split: str, names: Names) -> Examples:
        """Return the examples; there is one split.

        Raises:
            DataError: a folder or a mapping is not there, or the mappings are not those that were published.
        """
        del split, names
        home = root / "objectnet-1.0" if (root / "objectnet-1.0").is_dir() else root
        classes = objectnet_classes(home / "mappings")
        matched = [index for indices in classes.values() for index in indices]
        if (len(classes), len(matched)) != (self.groups, self.classes_matched) or len(set(matched)) != len(matched):
            what = f"match {len(classes)} folders with {len(matched)} ImageNet classes"
            raise DataError(
                home / "mappings", what, f"expected {self.groups} and {self.classes_matched}: fetch it again"
            )
        paths: list[Path] = []
        rows: list[list[int]] = []
        missing: list[str] = []
        for folder in sorted(classes):
            if not (home / "images" / folder).is_dir():
                missing.append(f"{folder}/")  # what the files in it are called is not published
                continue
            found = find_images(home / "images" / folder)
            paths += found
            rows += [classes[folder]] * len(found)
        names_of = [f"{path.parent.name}/{path.name}" for path in paths]
        return Examples(
            tuple(imagenet_synsets().values()),
            pad(rows),
            names_of,
            lambda index: _without_border(paths[index]),
            missing,
        )


def objectnet_classes(mappings: Path) -> dict[str, list[int]]:
    """Return for each folder of ObjectNet that ImageNet has classes for, their numbers.

    Raises:
        DataError: a mapping is not there, or does not fit the others.
    """
    folders = {label: folder for folder, label in _mapping(mappings / "folder_to_objectnet_label.json").items()}
    ours = _mapping(mappings / "pytorch_to_imagenet_2012_id.json")
    by_line = {line: whole_number(number, mappings) for number, line in ours.items()}
    text = read_text(mappings / "imagenet_to_label_2012_v2")
    words = {line.strip(): by_line.get(place, -1) for place, line in enumerate(text.splitlines())}
    classes: dict[str, list[int]] = {}
    for label, matching in _mapping(mappings / "objectnet_to_imagenet_1k.json").items():
        indices = [words.get(name, -1) for name in str(matching).split("; ")]
        if label not in folders or min(indices) < 0:
            raise DataError(mappings, f"does not say what '{label}' is", "fetch it again")
        classes[inside(str(folders[label]), mappings)] = sorted(indices)
    return classes


def _mapping(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError):
        content = None
    mapping = cast(dict[str, Any], content if isinstance(content, dict) else {"": None})
    if not all(isinstance(value, str | int) for value in mapping.values()):
        raise DataError(path, "is no mapping in JSON", "fetch it again")
    return mapping


def _without_border(path: Path) -> Pixels:
    return np.ascontiguousarray(decode(read_file(path), path.name)[1:-1, 1:-1])
