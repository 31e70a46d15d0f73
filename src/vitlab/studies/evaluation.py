"""A model and images in, answers out: what `evaluate` and `predict` do."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitlab.config import parse, read_json
from vitlab.data.check import find_bad_images
from vitlab.data.folder import find_images
from vitlab.data.image import Decoding
from vitlab.data.limits import limits_of
from vitlab.data.preprocess import ImageSpec
from vitlab.data.source import Pixels, Source, Subset
from vitlab.errors import BadImagesError, DataError, ImageError, one_line
from vitlab.evals.classify import AnyPredictions, classify
from vitlab.serve.predict import BATCH_SIZE, Prediction, Predictor
from vitlab.studies.plan import choose_device, evaluation_source
from vitlab.studies.recipe import RunSettings
from vitlab.weights.load import load


@dataclass(frozen=True)
class Reading:
    """How image files are read; None leaves it to the model, and to the usual limit. With `skip_bad` bad ones are left out."""

    decoding: Decoding | None = None
    max_pixels: int | None = None
    skip_bad: bool = False

    def apply(self, spec: ImageSpec) -> ImageSpec:
        """Return `spec` with these choices."""
        changes = {} if self.decoding is None else {"decoding": self.decoding}
        return spec.model_copy(update={**changes, "limits": limits_of(self.max_pixels)})


DEFAULT = Reading()


@dataclass(frozen=True)
class Evaluated:
    """The predictions on one source, how its files were decoded, and which of its images could not be used."""

    source: Source
    predictions: AnyPredictions
    decoding: Decoding
    bad: tuple[ImageError, ...]

    def as_json(self) -> dict[str, Any]:
        """Return every number, for programs."""
        return {
            "data": str(self.source),
            **self.predictions.as_json(),
            "decoding": self.decoding,
            "total": len(self.source) + (len(self.bad) if isinstance(self.source, Subset) else 0),
            "bad": [str(error) for error in self.bad],
        }

    def lines(self) -> list[str]:
        """Return the numbers for people."""
        counted = f"{len(self.source):,} images" + (f", {len(self.bad)} bad ones left out" if self.bad else "")
        decoded = "" if self.decoding == "standard" else f", decoded as {self.decoding}"
        lines = [f"{self.source}: {counted}{decoded}", *self.predictions.table()]
        shares = [(one_line(name), share) for name, share in self.predictions.per_class().items()]
        width = max(len(name) for name, _ in shares)
        lines += [f"  {name:{width}}  {100 * share:6.2f} %" for name, share in shares]
        return lines + [f"left out {error}" for error in self.bad]


def evaluate_model(
    model: str, data: str | None, reading: Reading = DEFAULT, *, workers: int | None = None, device: str = "auto"
) -> Evaluated:
    """Return the predictions of the model at path `model` on `data`, by default on what its run evaluated on.

    Raises:
        RequestError: there is no model or no data, their classes do not fit, or images are bad and not to be skipped.
    """
    classifier = load(model).to(choose_device(device))
    spec = classifier.image_spec = reading.apply(classifier.image_spec)
    source = _default_source(Path(model)) if data is None else evaluation_source(data)
    found = find_bad_images(source, workers or 0, spec.limits) if reading.skip_bad else {}
    if found:
        source = Subset(source, [index for index in range(len(source)) if index not in found])
    predictions = classify(classifier, source, workers=workers or 0)
    return Evaluated(source, predictions, spec.decoding, tuple(found.values()))


def predict_files(
    model: str, paths: Sequence[Path], reading: Reading = DEFAULT, *, device: str = "auto"
) -> Iterator[tuple[Path, Prediction | str]]:
    """Yield a prediction for every image in `paths` and in the folders among them; its error for a bad one, if that is skipped.

    Raises:
        RequestError: there is no model, or nothing at a path.
        BadImagesError: some images cannot be decoded; each is named.
    """
    predictor = Predictor.load(model, choose_device(device))
    predictor.model.image_spec = reading.apply(predictor.model.image_spec)
    files = [file for path in paths for file in _images_at(path)]
    bad: list[ImageError] = []
    for start in range(0, len(files), BATCH_SIZE):
        prepared: list[tuple[Path, Pixels]] = []
        for file in files[start : start + BATCH_SIZE]:
            try:
                prepared.append((file, predictor.prepare(file)))
            except ImageError as error:
                bad.append(error)
                if reading.skip_bad:
                    yield file, str(error)
        answers = predictor.answer([image for _, image in prepared])
        yield from zip((file for file, _ in prepared), answers, strict=True)
    if bad and not reading.skip_bad:
        raise BadImagesError(", ".join(map(str, paths)), bad, len(files))


def _images_at(path: Path) -> list[Path]:
    if not path.exists():
        raise DataError(path, "does not exist", "check the path")
    if not path.is_dir():
        return [path]
    files = find_images(path)
    if not files:
        raise DataError(path, "holds no images", "give image files, or a folder of them")
    return files


def _default_source(model: Path) -> Source:
    path = model / "config.json"
    if not path.is_file():
        raise DataError("DATA", "is missing", "say which labelled images to evaluate on")
    evals = parse(RunSettings, read_json(path), path).evals
    if not evals:
        raise DataError(
            "DATA", f"is missing, and {model} evaluated on nothing", "say which labelled images to evaluate on"
        )
    return next(iter(evals.values()))  # pyright: ignore
