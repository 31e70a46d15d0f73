"""Layouts whose labels are worked out from annotations: CLEVR, KITTI, and Flowers' MATLAB lists."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from vitlab.config import Settings
from vitlab.data.layouts.examples import Examples, inside, missing, numbered_classes, read_text, whole_number
from vitlab.data.layouts.matlab import read_mat
from vitlab.data.path import read_file
from vitlab.errors import DataError

Names = tuple[str, ...]
CLEVR_FEWEST = 3
"""Objects in a scene; class 0 of the count has so many."""
CLEVR_EDGES = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
KITTI_EDGES = (-100.0, 8.0, 20.0, 999.0)
KITTI_VEHICLES = frozenset({"Car", "Van", "Truck"})
NO_VEHICLE = 1000.0
_VIDEOS_HELD_BACK = 10  # percent for validation, and as many for testing
_SEED = 123


def interval(value: float, edges: Sequence[float]) -> int:
    """Return the last of the intervals that begin at `edges` and end before `value`: it holds its upper edge, not its lower.

    The comparison is in single precision, as in the Visual Task Adaptation Benchmark.
    """
    return int(np.searchsorted(np.asarray(edges, np.float32), np.float32(value), "left")) - 1


class Clevr(Settings):
    """CLEVR: a JSON file of scenes a split; the label is how many objects there are, or how near the nearest is, in 6 intervals."""

    type: Literal["Clevr"] = "Clevr"
    label: Literal["count", "distance"] = "count"

    def open(self, root: Path, split: str, names: Names) -> Examples:
        """Return the examples of a split.

        Raises:
            DataError: the scenes are not there or make no sense.
        """
        where = root / f"CLEVR_v1.0/scenes/CLEVR_{split}_scenes.json"
        files: list[str] = []
        labels: list[int] = []
        try:
            for scene in _scenes(read_text(where)):
                objects = scene["objects"]
                files.append(inside(scene["image_filename"], where))
                if self.label == "count":
                    labels.append(len(objects) - CLEVR_FEWEST)
                else:
                    labels.append(interval(min(thing["pixel_coords"][2] for thing in objects), CLEVR_EDGES))
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            raise DataError(where, f"is no list of scenes ({error})", "fetch it again") from None
        if labels and not 0 <= min(labels) <= max(labels) < len(names):
            raise DataError(where, f"has a scene of a class outside the {len(names)}", "fetch it again")
        folder = root / f"CLEVR_v1.0/images/{split}"
        return Examples(names, np.array(labels, np.int64), files, lambda index: read_file(folder / files[index]))


def _scenes(text: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of the list "scenes" one by one: all of them together would take gigabytes."""
    decoder, position = json.JSONDecoder(), text.index("[", text.index('"scenes"')) + 1
    while (start := _skip(text, position)) < len(text) and text[start] != "]":
        scene, position = decoder.raw_decode(text, start)
        yield cast(dict[str, Any], scene)
    if start >= len(text):
        raise ValueError("it ends inside the list")


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n,":
        position += 1
    return position


class Kitti(Settings):
    """KITTI's objects: a text file an image with an object a line; the label is how near the nearest vehicle is, in 4 classes.

    The splits are those of TensorFlow Datasets: whole videos, a tenth each for validation and testing, drawn with seed 123.
    """

    type: Literal["Kitti"] = "Kitti"

    def open(self, root: Path, split: str, names: Names) -> Examples:
        """Return the examples of a split.

        Raises:
            DataError: a file is not there or makes no sense.
        """
        numbers = kitti_splits(root)[split]
        labels = [_nearest_vehicle(root / f"training/label_2/{number:06d}.txt") for number in numbers]
        if labels and min(labels) < 0:
            where = root / f"training/label_2/{numbers[labels.index(min(labels))]:06d}.txt"
            raise DataError(where, f"has a vehicle before {KITTI_EDGES[0]:g} m", "fetch it again")
        files = [f"{number:06d}.png" for number in numbers]
        folder = root / "training/image_2"
        return Examples(names, np.array(labels, np.int64), files, lambda index: read_file(folder / files[index]))


def _nearest_vehicle(path: Path) -> int:
    distance = NO_VEHICLE
    for line in read_text(path).splitlines():
        words = line.split()
        if words and words[0] in KITTI_VEHICLES:
            try:
                distance = min(distance, float(words[13]))
            except (IndexError, ValueError):
                raise DataError(path, "is no list of KITTI objects", "fetch it again") from None
    return interval(distance, KITTI_EDGES)


def kitti_splits(root: Path) -> dict[str, list[int]]:
    """Return the images of every split of KITTI by the files of its development kit, in folder `mapping`.

    Raises:
        DataError: a file is not there or makes no sense.
    """
    order, lines = root / "mapping/train_rand.txt", root / "mapping/train_mapping.txt"
    rows = [line.split() for line in read_text(lines).splitlines()]
    videos: dict[str, list[int]] = {}
    for image, word in enumerate(read_text(order).replace(",", " ").split()):
        row = whole_number(word, order) - 1
        if not 0 <= row < len(rows) or len(rows[row]) < 2 or not rows[row][1].isprintable():
            raise DataError(order, f"names line {row + 1} of {lines.name}, which is none", "fetch it again")
        videos.setdefault(rows[row][1], []).append(image)
    if len(videos) < 3:
        raise DataError(lines, f"names {len(videos)} videos, too few to divide", "fetch it again")
    count = max(1, _VIDEOS_HELD_BACK * len(videos) // 100)
    random = np.random.RandomState(_SEED)
    test = set(random.choice(sorted(videos), count, replace=False).tolist())
    val = set(random.choice(sorted(set(videos) - test), count, replace=False).tolist())
    held_back = {"test": test, "val": val, "train": set(videos) - test - val}
    return {split: sorted(image for video in chosen for image in videos[video]) for split, chosen in held_back.items()}


class Flowers(Settings):
    """Oxford Flowers-102: images by number, a MATLAB file with the label of each, and one with the numbers of every split."""

    type: Literal["Flowers"] = "Flowers"
    splits: dict[str, str]

    def open(self, root: Path, split: str, names: Names) -> Examples:
        """Return the examples of a split.

        Raises:
            DataError: a file is not there or makes no sense.
        """
        all_labels = _numbers(root / "imagelabels.mat", "labels")
        chosen = _numbers(root / "setid.mat", self.splits[split])
        if len(chosen) and not 1 <= chosen.min() <= chosen.max() <= len(all_labels):
            raise DataError(root / "setid.mat", f"names images beyond the {len(all_labels):,}", "fetch it again")
        labels = all_labels[chosen - 1] - 1
        classes = numbered_classes(names, int(all_labels.max(initial=0)))
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
            raise DataError(root / "imagelabels.mat", f"holds a class outside the {len(classes)}", "fetch it again")
        files = [f"image_{number:05d}.jpg" for number in chosen]
        return Examples(classes, labels, files, lambda index: read_file(root / "jpg" / files[index]))


def _numbers(path: Path, name: str) -> NDArray[np.int64]:
    array = read_mat(path, (name,)).get(name)
    if array is None:
        raise (
            missing(path, FileNotFoundError())
            if not path.exists()
            else DataError(path, f"holds no array '{name}'", "fetch it again")
        )
    return array.reshape(-1).astype(np.int64)
