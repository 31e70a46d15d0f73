"""How good frozen features are: linear heads in closed form on a few images a class, a linear probe, nearest neighbours."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitlab.data.check import find_bad_images
from vitlab.data.folder import Folder
from vitlab.data.open import AnySource, open_data
from vitlab.data.shards import Shards
from vitlab.data.source import Source, Subset
from vitlab.data.table import Table
from vitlab.data.webdataset import WebDataset
from vitlab.errors import DataError, ImageError, SettingsError
from vitlab.evals.features import Labelled
from vitlab.evals.fewshot import L2, SWEEP, best_by_rank, check_l2s, check_shots, choose, matched_labels, solve, sweep
from vitlab.evals.interval import over_runs, wilson_interval
from vitlab.evals.kept import kept_features
from vitlab.evals.neighbours import check_counts, neighbours
from vitlab.evals.probe import Probed, probe
from vitlab.models.classifier import Classifier
from vitlab.studies.evaluation import DEFAULT, Reading
from vitlab.studies.plan import choose_device, choose_workers, evaluation_source
from vitlab.weights.load import load

Seen = Callable[[int, int], None]


def parse_l2s(text: str) -> tuple[float, ...]:
    """Return "1024" as (1024.0,), "0.5,2" as both, and "sweep" as what the authors' earlier code tried.

    Raises:
        SettingsError: it is none of them.
    """
    if text == "sweep":
        return SWEEP
    try:
        values = tuple(float(word) for word in text.split(","))
        check_l2s(values)
    except (ValueError, SettingsError):
        raise SettingsError("--l2", f"'{text}' is no number above zero", "write 1024, or sweep") from None
    return values


@dataclass(frozen=True)
class Protocol:
    """What is measured: for each of `shots` and `seeds` (0, 1, …) a head for each of `l2s`; `knn` counts neighbours.

    The probe and the neighbours use all training images, the heads only those that are drawn.
    """

    shots: tuple[int, ...] = (1, 5, 10)
    seeds: int = 3
    l2s: tuple[float, ...] = (L2,)
    probe: bool = False
    knn: tuple[int, ...] = ()


@dataclass(frozen=True)
class Measured:
    """What came out on one data set: `accuracies` [seeds, l2s] for every number of shots; `bad` images were left out."""

    train: str
    test: str
    images: int
    classes: int
    width: int
    protocol: Protocol
    accuracies: Mapping[int, NDArray[np.float64]]
    probed: Probed | None
    knn: Mapping[int, float]
    bad: tuple[ImageError, ...] = ()

    def best(self, shots: int) -> int:
        """Return which l2 has the best mean accuracy on the test images, for so many shots."""
        return best_l2([self], shots)

    def as_json(self) -> dict[str, Any]:
        """Return every number, for programs."""
        return {
            "train": self.train,
            "test": self.test,
            "count": self.images,
            "classes": self.classes,
            "features": self.width,
            "l2": list(self.protocol.l2s),
            "shots": {str(shots): self._shots_json(shots) for shots in self.accuracies},
            "probe": None if self.probed is None else self._share_json(self.probed.accuracy) | self._chosen(),
            "knn": {str(count): self._share_json(share) for count, share in self.knn.items()},
            "bad": [str(error) for error in self.bad],
        }

    def lines(self) -> list[str]:
        """Return the numbers for people."""
        seeds, several = self.protocol.seeds, len(self.protocol.l2s) > 1
        spread = f"accuracy, mean ± deviation of {seeds} seeds" if seeds > 1 else "accuracy"
        lines = [f"{self.test}: {self.images:,} images, {self.classes:,} classes; features of {self.width:,} numbers"]
        lines.append(f"{'shots':>8}  {spread}{'; the best l2 on these images' * several}")
        for shots, table in self.accuracies.items():
            of_seeds = table[:, self.best(shots)]
            found = over_runs(of_seeds)
            deviation = "" if found.std is None else f" ± {100 * found.std:4.1f}"
            lines.append(f"{shots:8}  {100 * found.mean:5.1f}{deviation} %   l2 {self._l2(shots):g}")
        if self.probed is not None:
            chosen = f"logistic regression on all of {self.train}, l2 {self.probed.l2:g}"
            lines.append(f"{'probe':>8}  {self._share(self.probed.accuracy)}, {chosen}")
        lines += [f"{f'knn {count}':>8}  {self._share(share)}" for count, share in self.knn.items()]
        return lines + [f"left out {error}" for error in self.bad]

    def _l2(self, shots: int) -> float:
        return self.protocol.l2s[self.best(shots)]

    def _shots_json(self, shots: int) -> dict[str, Any]:
        table = self.accuracies[shots]
        of_seeds = table[:, self.best(shots)]
        found = over_runs(of_seeds)
        summary = {"accuracy": found.mean, "deviation": found.std, "l2": self._l2(shots)}
        return {**summary, "seeds": of_seeds.tolist(), "by_l2": table.mean(axis=0).tolist()}

    def _chosen(self) -> dict[str, Any]:
        assert self.probed is not None
        return {"l2": self.probed.l2, "held_out": {f"{l2:g}": share for l2, share in self.probed.held_out.items()}}

    def _share_json(self, share: float) -> dict[str, Any]:
        return {"accuracy": share, "interval": list(wilson_interval(share, self.images))}

    def _share(self, share: float) -> str:
        low, high = wilson_interval(share, self.images)
        return f"{100 * share:5.1f} %   (95 % interval {100 * low:.1f}–{100 * high:.1f})"


def best_l2(found: Sequence[Measured], shots: int) -> int:
    """Return which of the l2 values is best for so many shots over several data sets, by its mean rank."""
    return best_by_rank([each.accuracies[shots].mean(axis=0).tolist() for each in found])


def measure(
    model: Classifier,
    train: Source,
    test: Source,
    protocol: Protocol = Protocol(),
    workers: int = 0,
    seen: Seen = lambda _, __: None,
) -> Measured:
    """Return how well the features of `model` tell the classes of `train` apart in `test`; features are kept, see `kept_features`.

    Raises:
        DataError: the classes do not match, images have several labels, a class has fewer images than shots, or features are not
            finite.
        SettingsError: an l2 is not above zero, or there are fewer training images than neighbours.
    """
    labels = matched_labels(train, test)
    check_shots(train, max(protocol.shots))
    check_l2s(protocol.l2s)
    check_counts(protocol.knn, len(train))
    draws = {
        (shots, seed): choose(train.labels, shots, seed) for shots in protocol.shots for seed in range(protocol.seeds)
    }
    everything = protocol.probe or protocol.knn
    used = np.arange(len(train)) if everything else np.unique(np.concatenate(list(draws.values())))
    total, classes = len(used) + len(test), len(train.classes)
    support = Subset(train, used)
    values = kept_features(model, support, workers=workers, seen=lambda done, _: seen(done, total))
    known = Labelled(values, support.labels)
    values = kept_features(model, test, workers=workers, seen=lambda done, _: seen(len(used) + done, total))
    asked = Labelled(values, labels)
    accuracies: dict[int, NDArray[np.float64]] = {}
    for shots in protocol.shots:
        drawn = [known.take(np.searchsorted(used, draws[shots, seed])) for seed in range(protocol.seeds)]
        accuracies[shots] = np.array([_accuracies(few, asked, classes, protocol.l2s) for few in drawn])
    return Measured(
        train=str(train),
        test=str(test),
        images=len(test),
        classes=classes,
        width=known.values.shape[1],
        protocol=protocol,
        accuracies=accuracies,
        probed=probe(known, asked, classes) if protocol.probe else None,
        knn=neighbours(known, asked, classes, protocol.knn) if protocol.knn else {},
    )


def _accuracies(few: Labelled, asked: Labelled, num_classes: int, l2s: Sequence[float]) -> list[float]:
    """Return the accuracy of the head of each l2."""
    if len(l2s) == 1:
        return [solve(few.values, few.labels, num_classes, l2s[0]).accuracy(asked.values, asked.labels)]
    return [head.accuracy(asked.values, asked.labels) for head in sweep(few.values, few.labels, num_classes, l2s)]


def measure_data(
    model: str,
    sides: tuple[AnySource, AnySource],
    protocol: Protocol = Protocol(),
    reading: Reading = DEFAULT,
    *,
    workers: int | None = None,
    device: str = "auto",
    seen: Seen = lambda _, __: None,
) -> Measured:
    """Return how good the features of the model at path `model` are on the images to draw from and to test on, see `open_sides`.

    Raises:
        RequestError: there is no model, images are bad and not to be skipped, or what `measure` refuses.
    """
    classifier = load(model).to(choose_device(device))
    spec = classifier.image_spec = reading.apply(classifier.image_spec)
    processes = choose_workers(workers, sides[0])
    bad = [find_bad_images(side, processes, spec.limits) if reading.skip_bad else {} for side in sides]
    chosen = [_without(side, found) for side, found in zip(sides, bad, strict=True)]
    measured = measure(classifier, chosen[0], chosen[1], protocol, processes, seen)
    return replace(measured, bad=(*bad[0].values(), *bad[1].values()))


def open_sides(train: str, test: str | None = None) -> tuple[AnySource, AnySource]:
    """Return what to draw from and what to test on: the data set `train`, and its own test split where no `test` is named.

    Raises:
        DataError: there is no such data set, nothing to draw from or to test on, or both are the same.
    """
    opened = open_data(train)
    if test is None:
        if opened.train is None:
            raise DataError(train, "has nothing to draw images from", "add a train folder beside the others")
        if not opened.evals:
            raise DataError(train, "has no image to test on", "name a data set to test on after it")
        return opened.train, opened.evals.get("test") or next(iter(opened.evals.values()))
    sides = opened.whole or opened.train, evaluation_source(test)
    if sides[0] is None:
        raise DataError(train, "has nothing to draw images from", "add a train folder beside the others")
    if _same(sides[0], sides[1]):
        raise DataError(test, "is what the images are drawn from, too", "leave it out: a tenth of it is held back")
    return sides[0], sides[1]


def _same(one: AnySource, other: AnySource) -> bool:
    """Return whether two sources are the same, however their paths are written."""
    places = [_real_place(one), _real_place(other)]
    if type(one) is not type(other) or None in places:
        return one == other
    return one.part == other.part and places[0] == places[1]


def _real_place(source: AnySource) -> str | None:
    """Return where the files of a source are, links followed; None where it is known by more than a path."""
    return os.path.realpath(source.place) if isinstance(source, Folder | Table | Shards | WebDataset) else None


def _without(source: AnySource, bad: Mapping[int, ImageError]) -> Source:
    return Subset(source, [index for index in range(len(source)) if index not in bad]) if bad else source
