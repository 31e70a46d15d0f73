"""A model and labelled images in, how good it is out: what `evaluate` does."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vitlab.config import parse, read_json
from vitlab.data.catalog import Catalogued, Remaining
from vitlab.data.check import find_bad_images
from vitlab.data.image import Decoding
from vitlab.data.labels import distinct
from vitlab.data.limits import limits_of
from vitlab.data.open import AnySource
from vitlab.data.preprocess import CentralCrop, ImageSpec
from vitlab.data.source import Source, Subset
from vitlab.errors import DataError, ImageError, SettingsError, one_line
from vitlab.evals.classify import AnyPredictions, classify, labels_for
from vitlab.evals.paired import Paired, compare, refuse_other_classes
from vitlab.models.classifier import Classifier
from vitlab.studies.plan import choose_device, evaluation_source
from vitlab.studies.recipe import RunSettings
from vitlab.weights.load import load


@dataclass(frozen=True)
class Reading:
    """How image files are read; None leaves it to the model, and to the usual limit. With `skip_bad` bad ones are left out.

    With `resize` the shorter side becomes so many pixels and the model sees the middle: 512 and a model of 480 pixels are how BiT
    and the paper evaluate on ObjectNet (Kolesnikov et al. 2020, appendix B). `skip_missing` is for data sets of the catalog of
    which files are missing.
    """

    decoding: Decoding | None = None
    max_pixels: int | None = None
    resize: int | None = None
    skip_bad: bool = False
    skip_missing: bool = False

    def apply(self, spec: ImageSpec) -> ImageSpec:
        """Return `spec` with these choices.

        Raises:
            SettingsError: the images are to be resized to less than the model sees, or it sees no square.
        """
        changes: dict[str, Any] = {"limits": limits_of(self.max_pixels)}
        if self.decoding is not None:
            changes["decoding"] = self.decoding
        if self.resize is not None:
            seen = f"{spec.height}x{spec.width}"
            if spec.height != spec.width or self.resize < spec.height:
                what = f"{self.resize} pixels leave no middle of {seen} for the model"
                raise SettingsError("--resize", what, "give more, with a square --image-size")
            changes["fit"] = CentralCrop(fraction=spec.height / self.resize)
        return spec.model_copy(update=changes)


DEFAULT = Reading()


@dataclass(frozen=True)
class Missing:
    """How many of the published images are not there; `names` are those files (folders end in /) whose names are known."""

    count: int
    expected: int
    names: tuple[str, ...]

    def words(self) -> str:
        """Return it for people, with the first names."""
        shown = ", ".join(self.names[:5]) + (", …" if len(self.names) > 5 else "")
        return f"{self.count:,} of {self.expected:,} missing" + (f" ({shown})" if self.names else "")


@dataclass(frozen=True)
class Data:
    """What is evaluated on: the images that can be used, the errors of the others, and what is missing where that was asked."""

    source: Source
    bad: tuple[ImageError, ...] = ()
    missing: Missing | None = None


@dataclass(frozen=True)
class Evaluated:
    """The predictions on some data, and how its images were prepared; `named` is whether the weights name their classes."""

    data: Data
    predictions: AnyPredictions
    spec: ImageSpec
    named: bool
    against: "Against | None" = None

    def as_json(self) -> dict[str, Any]:
        """Return every number, for programs."""
        source, bad, missing = self.data.source, self.data.bad, self.data.missing
        return {
            "data": str(source),
            **self.predictions.as_json(),
            "decoding": self.spec.decoding,
            "image_size": [self.spec.height, self.spec.width],
            "fit": self.spec.fit.model_dump(),
            "classes_named_by": "model" if self.named else "data",
            "total": len(source) + (len(bad) if isinstance(source, Subset) else 0),
            "bad": [str(error) for error in bad],
            "missing": None if missing is None else asdict(missing),
            **({} if self.against is None else {"against": self.against.as_json()}),
        }

    def lines(self) -> list[str]:
        """Return the numbers for people."""
        source, bad, missing = self.data.source, self.data.bad, self.data.missing
        counted = f"{len(source):,} images" + (f", {len(bad)} bad ones left out" if bad else "")
        counted += "" if missing is None else f", {missing.words()}"
        decoded = "" if self.spec.decoding == "standard" else f", decoded as {self.spec.decoding}"
        lines = [f"{source}: {counted}{decoded}"]
        if not self.named:
            names = [one_line(name) for name in distinct(self.predictions.classes)]
            lines.append(
                f"the weights name no classes: their outputs are taken to be '{names[0]}' to '{names[-1]}', as in the data"
            )
        lines += self.predictions.table()
        lines += [] if self.against is None else self.against.lines()
        shares = [(one_line(name), share) for name, share in self.predictions.per_class().items()]
        width = max(len(name) for name, _ in shares)
        lines += [f"  {name:{width}}  {100 * share:6.2f} %" for name, share in shares]
        return lines + [f"left out {error}" for error in bad]


@dataclass(frozen=True)
class Against:
    """Another model on the same images."""

    model: str
    predictions: AnyPredictions
    paired: Paired

    def as_json(self) -> dict[str, Any]:
        """Return the comparison for programs."""
        return {"model": self.model, **self.paired.as_json()}

    def lines(self) -> list[str]:
        """Return the comparison for people."""
        return [
            f"against {self.model}: top-1 {100 * self.paired.second:.2f} %",
            *(f"  {line}" for line in self.paired.lines()),
        ]


def evaluate_model(
    model: str,
    data: str | None,
    reading: Reading = DEFAULT,
    *,
    against: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    workers: int | None = None,
    device: str = "auto",
) -> Evaluated:
    """Return the predictions of the model at path `model` on `data`, by default on what its run evaluated on.

    The model `against` which it is compared sees the same images; `image_size` is for both, by default that of each.

    Raises:
        RequestError: there is no model or no data, their classes do not fit, or images are bad and not to be skipped.
    """
    classifiers: list[Classifier] = []
    for name in (model,) if against is None else (model, against):
        classifiers.append(load(name, image_size=image_size).to(choose_device(device)))
        classifiers[-1].image_spec = reading.apply(classifiers[-1].image_spec)
    source = _chosen(model, data, reading.skip_missing)
    classes = [labels_for(classifier, source)[0] for classifier in classifiers]  # before what takes long
    refuse_other_classes(classes[0], classes[-1])
    chosen = _usable(source, reading, workers or 0)
    first, *others = (classify(classifier, chosen.source, workers=workers or 0) for classifier in classifiers)
    found = Evaluated(chosen, first, classifiers[0].image_spec, bool(classifiers[0].classes))
    return replace(found, against=Against(against, others[0], compare(first, others[0]))) if against else found


def _usable(source: Source, reading: Reading, workers: int) -> Data:
    """Return what of `source` is evaluated on."""
    missing = None
    if isinstance(source, Remaining):
        missing = Missing((source.expected or 0) - len(source.listing.labels), source.expected or 0, source.missing)
    found = find_bad_images(source, workers, limits_of(reading.max_pixels)) if reading.skip_bad else {}
    good = [index for index in range(len(source)) if index not in found]
    return Data(Subset(source, good) if found else source, tuple(found.values()), missing)


def _chosen(model: str, data: str | None, skip_missing: bool) -> AnySource | Remaining:
    """Return what `data` names, by default what the run `model` evaluated on; where asked, without what is missing of it.

    Raises:
        DataError: there is none.
        SettingsError: nobody says which images belong to it.
    """
    source = default_source(Path(model)) if data is None else evaluation_source(data)
    if not skip_missing:
        len(source)  # lists it: one that is not whole is refused before anything asks for its labels
        return source
    remaining = Remaining(**dict(source)) if isinstance(source, Catalogued) else None
    if remaining is None or remaining.expected is None:
        what = f"nobody says how many images belong to {source}"
        raise SettingsError("--missing-images", what, "leave it out: all that is there is evaluated")
    return remaining


def default_source(model: Path) -> AnySource:
    """Return what the run `model` evaluated on.

    Raises:
        DataError: it is no run, or evaluated on nothing.
    """
    path = model / "config.json"
    if not path.is_file():
        raise DataError("DATA", "is missing", "say which labelled images to evaluate on")
    evals = parse(RunSettings, read_json(path), path).evals
    if not evals:
        raise DataError(
            "DATA", f"is missing, and {model} evaluated on nothing", "say which labelled images to evaluate on"
        )
    return next(iter(evals.values()))  # pyright: ignore
