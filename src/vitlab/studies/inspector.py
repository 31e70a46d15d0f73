"""What `inspect` finds: where a model looks in some images, which layer knows the answer, what it learned, and which training
images are like these."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitlab.config import parse, read_json
from vitlab.data.check import find_bad_images
from vitlab.data.folder import find_images
from vitlab.data.labels import label_at
from vitlab.data.loader import pixels_of
from vitlab.data.open import open_data
from vitlab.data.source import Pixels, Source, Subset
from vitlab.errors import BadImagesError, DataError, ImageError, VitlabError, WeightsError
from vitlab.evals.features import map_source
from vitlab.evals.kept import kept_features
from vitlab.evals.neighbours import nearest
from vitlab.inspection.attention import attends_globally, attention_by_layer, readout, rollout
from vitlab.inspection.compact import Cells, Packed, cells_within, pack
from vitlab.inspection.distance import attention_distance
from vitlab.inspection.figures import as_input
from vitlab.inspection.lens import logit_lens, settled_at
from vitlab.inspection.relevance import relevance
from vitlab.models.classifier import Classifier, probabilities_of
from vitlab.models.resnet import ResNet
from vitlab.models.vit import ViT
from vitlab.serve.predict import Prediction, Predictor
from vitlab.studies.evaluation import DEFAULT, Reading
from vitlab.studies.plan import choose_device, choose_workers
from vitlab.studies.recipe import InProgram, RunSettings
from vitlab.studies.run import training_data

MOST_IMAGES = 16
"""So many images fit one page that opens quickly."""
DISTANCE_IMAGES = 128
"""The paper's attention distance is a mean over so many images (figure 7)."""
COMPARED_IMAGES = 10_000
"""Among so many training images the nearest are looked for; of a larger data set every n-th is taken."""
NEIGHBOURS, RELEVANT_CLASSES = 6, 3
PAGE_WEIGHTS = 3_000_000
"""Bytes of attention in the page, a third of them for the means over heads: with the rest it stays below 5 MB."""

Seen = Callable[[int, int], None]


class Neighbour(NamedTuple):
    """A training image as the model sees it, its classes, and the cosine of its features with those of the image asked about."""

    key: str
    label: str
    cosine: float
    pixels: Pixels


@dataclass(frozen=True)
class Look:
    """What a model makes of one image.

    `shares` are the probabilities after each layer [l + 1, k], from which on the answer leads in layer `settled`. `output` is what
    the output attends to [l, m, rows, columns], `means` and `heads` what every patch does, packed by layer. `relevance` is
    [classes, rows, columns].
    """

    path: Path
    prepared: Pixels
    prediction: Prediction
    shares: NDArray[np.float32]
    settled: int
    rollout: NDArray[np.float32]
    classes: tuple[int, ...]
    relevance: NDArray[np.float32]
    output: NDArray[np.float32]
    means: tuple[Packed, ...]
    heads: tuple[Packed, ...]
    neighbours: tuple[Neighbour, ...] = ()


@dataclass(frozen=True)
class Compared:
    """Training images to compare with: `source` is those of `whole` that are used, `bad` what cannot be decoded among them."""

    source: Source
    whole: str
    total: int
    bad: tuple[ImageError, ...] = ()


@dataclass(frozen=True)
class Inspected:
    """Everything that was found; `compared` is what to compare with, or why there is nothing."""

    name: str
    model: ViT
    looks: tuple[Look, ...]
    mean_cells: Cells
    head_cells: Cells
    distance: NDArray[np.float32] | None
    distance_images: int
    compared: Compared | str
    bad: tuple[ImageError, ...]


def inspect_model(
    model: str,
    images: Sequence[Path],
    data: str | None = None,
    reading: Reading = DEFAULT,
    *,
    workers: int | None = None,
    device: str = "auto",
    seen: Seen = lambda _, __: None,
) -> Inspected:
    """Return what the model at path `model` does with `images` (files, or folders of them), compared with training images.

    Those are of the data set `data`, by default what the run `model` was trained on, if it is here.

    Raises:
        RequestError: there is no model, or one without attention between all patches; there is no image, or too many; or images
            are bad and not to be skipped.
    """
    predictor = Predictor.load(model, choose_device(device))
    vit = _attending(predictor.model, model)
    predictor.spec = vit.image_spec = reading.apply(vit.image_spec)
    prepared, bad = _read(predictor, _files(images), reading)
    compared = _compared(model, data, vit, reading, workers)
    total = len(prepared) + (0 if isinstance(compared, str) else len(compared.source) + _few(compared.source))
    grid, budget = vit.settings.grid, PAGE_WEIGHTS // (len(prepared) * vit.settings.depth)
    cells = cells_within(grid, budget // 3), cells_within(grid, budget * 2 // 3 // vit.settings.num_heads)
    answers = predictor.answer([image for _, image in prepared])
    looks = list[Look]()
    for (path, image), answer in zip(prepared, answers, strict=True):
        looks.append(_look(vit, path, image, answer, cells))
        seen(len(looks), total)
    distance, done = None, len(looks)
    if not isinstance(compared, str):
        distance = _distance(vit, compared.source, lambda count: seen(done + count, total))
        done += _few(compared.source)
        looks = _with_neighbours(vit, looks, compared.source, workers, lambda count: seen(done + count, total))
    few = 0 if isinstance(compared, str) else _few(compared.source)
    return Inspected(model, vit, tuple(looks), *cells, distance, few, compared, tuple(bad))


def _attending(model: Classifier, name: str) -> ViT:
    if isinstance(model, ResNet):
        what = "is a ResNet: it has no attention, no positions and no filters of patches to show"
        raise WeightsError(name, what, "inspect a ViT or a hybrid; `vitlab evaluate` and `predict` take this one")
    if not attends_globally(model):
        what = "has axial attention: weights, rollout and relevance need attention between all patches"
        raise WeightsError(name, what, "inspect a ViT or a hybrid with that")
    return model


def _files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        found = find_images(path) if path.is_dir() else [path]
        if not found:
            raise DataError(path, "holds no images", "give image files, or a folder of them")
        files += found
    if len(files) > MOST_IMAGES:
        what = f"are {len(files):,}, more than the {MOST_IMAGES} that one page shows"
        raise DataError("IMAGES", what, f"give {MOST_IMAGES} or fewer; --data takes whole data sets")
    return files


def _read(
    predictor: Predictor, files: Sequence[Path], reading: Reading
) -> tuple[list[tuple[Path, Pixels]], list[ImageError]]:
    """Return the images as the model sees them, and the errors of those that cannot be decoded.

    Raises:
        BadImagesError: there are such, and they are not to be skipped, or there are no others.
    """
    prepared: list[tuple[Path, Pixels]] = []
    bad: list[ImageError] = []
    for file in files:
        try:
            prepared.append((file, predictor.prepare(file)))
        except ImageError as error:
            bad.append(error)
    if bad and not (reading.skip_bad and prepared):
        raise BadImagesError("IMAGES", bad, len(files))
    return prepared, bad


def _compared(model: str, data: str | None, vit: ViT, reading: Reading, workers: int | None) -> Compared | str:
    """Return the images to compare with: of `data`, or of what the run `model` was trained on; why not, if that is not here."""
    if data is None:
        config = Path(model) / "config.json"
        if not config.is_file():
            return "Which images the model learned from is not known: --data names them."
        try:
            settings = parse(RunSettings, read_json(config), config)
            if not isinstance(settings.train_data, InProgram):
                len(settings.train_data)  # lists it: is it there?
            whole = training_data(settings, lambda _: None)
        except VitlabError as error:
            return f"What the run was trained on cannot be opened ({error.where}: {error.what}): --data names images."
    else:
        opened = open_data(data)
        whole = opened.whole or opened.train or next(iter(opened.evals.values()))
    if not len(whole):
        return f"{whole} holds no images."
    source = _evenly(whole, COMPARED_IMAGES)
    bad = find_bad_images(source, choose_workers(workers, whole), vit.image_spec.limits) if reading.skip_bad else {}
    good = [index for index in range(len(source)) if index not in bad]
    if not good:
        return f"No image of {whole} can be decoded."
    return Compared(Subset(source, good) if bad else source, str(whole), len(whole), tuple(bad.values()))


def _evenly(source: Source, count: int) -> Source:
    """Return at most `count` examples of `source`, evenly spaced."""
    if len(source) <= count:
        return source
    return Subset(source, np.linspace(0, len(source) - 1, count).round().astype(np.int64))


def _few(source: Source) -> int:
    return min(len(source), DISTANCE_IMAGES)


def _look(vit: ViT, path: Path, image: Pixels, answer: Prediction, cells: tuple[Cells, Cells]) -> Look:
    """Return what is known of one image but its neighbours."""
    batch = as_input(vit, image)
    logits = logit_lens(vit, batch)[:, 0]
    classes = tuple(np.argsort(-answer.probabilities, kind="stable")[:RELEVANT_CLASSES].tolist())
    query, prefix = readout(vit), vit.settings.num_prefix
    output, means, heads = list[Tensor](), list[Packed](), list[Packed]()
    for weights in attention_by_layer(vit, batch):
        output.append((query @ weights[0])[:, prefix:].cpu())
        between = weights[0, :, prefix:, prefix:]
        means.append(pack(between.mean(dim=0, keepdim=True), cells[0]))
        heads.append(pack(between, cells[1]))
        del weights, between
    return Look(
        path=path,
        prepared=image,
        prediction=answer,
        shares=probabilities_of(vit, logits).cpu().numpy(),
        settled=settled_at(logits),
        rollout=rollout(vit, batch)[0].cpu().numpy(),
        classes=classes,
        relevance=relevance(vit, batch, classes).cpu().numpy(),
        output=torch.stack(output).unflatten(2, tuple(vit.settings.grid)).numpy(),
        means=tuple(means),
        heads=tuple(heads),
    )


def _distance(vit: ViT, source: Source, seen: Callable[[int], None]) -> NDArray[np.float32]:
    """Return the mean attention distance [l, m] over at most `DISTANCE_IMAGES` of `source`, one image in memory at a time."""
    done = 0

    def measure(images: Tensor) -> Tensor:
        nonlocal done
        done += 1
        seen(done)
        return attention_distance(vit, images)

    return map_source(vit, _evenly(source, DISTANCE_IMAGES), measure, batch_size=1)[0].mean(dim=0).numpy()


def _with_neighbours(
    vit: ViT, looks: Sequence[Look], source: Source, workers: int | None, seen: Callable[[int], None]
) -> list[Look]:
    """Return `looks` with the images of `source` that are nearest to each by the cosine of features."""
    bank = kept_features(vit, source, workers=choose_workers(workers, source), seen=lambda done, _: seen(done))
    asked = np.stack([look.prediction.features for look in looks])
    cosines, places = nearest(bank, asked, NEIGHBOURS)
    rows = zip(looks, cosines.tolist(), places.tolist(), strict=True)
    return [
        replace(look, neighbours=tuple(_neighbour(vit, source, *pair) for pair in zip(near, where, strict=True)))
        for look, near, where in rows
    ]


def _neighbour(vit: ViT, source: Source, cosine: float, place: int) -> Neighbour:
    label = label_at(source.labels, place)
    names = [source.classes[number] for number in (label if isinstance(label, tuple) else (label,))]
    example, spec = source.read(place), vit.image_spec
    shown = spec.prepare(pixels_of(example, spec.limits))
    return Neighbour(example.key, ", ".join(names) or "no class", cosine, shown)
