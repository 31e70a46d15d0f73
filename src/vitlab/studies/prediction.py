"""A model and any number of images in, what it says of each out: what `predict` does, on the screen or into a file."""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitlab import files
from vitlab.config import to_json
from vitlab.data.gallery import STDIN, Gallery, open_gallery
from vitlab.data.prefetch import prefetch
from vitlab.data.preprocess import ImageSpec
from vitlab.data.scan import scan
from vitlab.data.source import Example, Pixels, Subset
from vitlab.errors import BadImagesError, ImageError, RankError
from vitlab.ranks import ALONE, Ranks
from vitlab.serve.engine import Choice
from vitlab.serve.predict import Prediction, Predictor
from vitlab.studies.evaluation import DEFAULT, Reading
from vitlab.studies.parts import Parts, stored, sweep_finished
from vitlab.studies.plan import choose_device
from vitlab.studies.predicted import Answer, Columns, Write, writer_for
from vitlab.studies.scoresheet import check_free
from vitlab.weights.load import find

Seen = Callable[[int, int], None]
"""What is told how many images of how many are done."""

_PART_ROWS = 1024  # of a part at most: what an interruption may lose on each rank
_CHUNK = 32  # images that a process reads ahead of its turn, which wait in memory
_FEW = 64  # images for which no process is started unasked
_POLL_SECONDS = 0.1
_THREADS = "the number of threads"
_Looked = tuple[str, "Pixels | ImageError"]


def predict_files(
    model: str,
    places: Sequence[str | Path],
    reading: Reading = DEFAULT,
    *,
    workers: int | None = None,
    device: str = "auto",
    engine: Choice = "auto",
) -> Iterator[tuple[str, Prediction | str]]:
    """Yield a prediction for every image at `places`, see `open_gallery`; its error for a bad one, if that is skipped.

    Raises:
        RequestError: there is no model, or nothing at a place.
        BadImagesError: some images cannot be decoded; each is named.
    """
    gallery = open_gallery(list(map(str, places)), _stdin(places))
    predictor = _predictor(model, reading, device, engine, len(gallery))
    bad: list[ImageError] = []
    with _looked(predictor, gallery, range(len(gallery)), _workers(workers, len(gallery))) as looked:
        for answer in _answers(predictor, looked):
            if isinstance(answer.prediction, Prediction):
                yield answer.key, answer.prediction
                continue
            bad.append(answer.prediction)
            if reading.skip_bad:
                yield answer.key, str(answer.prediction)
    if bad and not reading.skip_bad:
        raise BadImagesError(str(gallery), bad, len(gallery))


@dataclass(frozen=True)
class Wanted:
    """What is predicted: the images at `places`, see `open_gallery`, by the model at the path `model`, into the file `out`.

    A row names the `top` most probable classes; with `features` it has what the head read.
    """

    model: str
    places: tuple[str, ...]
    out: Path
    top: int = 5
    features: bool = False
    reading: Reading = DEFAULT
    workers: int | None = None
    device: str = "auto"
    engine: Choice = "auto"


@dataclass(frozen=True)
class Written:
    """What was written: how many images, how many of them bad, by what; `computed` of them in `seconds` by this command."""

    out: Path
    images: int
    bad: int
    computed: int
    seconds: float
    engine: str

    def line(self) -> str:
        """Return it for people."""
        done = "all there already" if not self.computed else f"{self.computed / self.seconds:,.1f} images/s"
        bad = f", {self.bad:,} bad (column 'error' says why)" if self.bad else ""
        return f"{self.images:,} images{bad}: {self.out} ({done}, {self.engine})"

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {**asdict(self), "out": str(self.out)}


def predict_to_file(
    wanted: Wanted,
    ranks: Ranks = ALONE,
    seen: Seen = lambda _, __: None,
    say: Callable[[str], None] = lambda _: None,
) -> Written | None:
    """Write what the model says of every image, a row each in their order, and return what was written, on the first of `ranks`.

    The bytes do not depend on `workers` and `ranks`, which share the parts, nor on interruptions: the same command goes on with the
    parts that are there, and with the number of threads that they were begun with, for sums in another order round differently. A
    bad image has a row with its error. Memory is bounded by a part, and some sixty bytes an image.

    Raises:
        RequestError: there is no model or nothing at a place, `out` is there already, or parts of something else are beside it.
        PredictionError: the disk is full or failing; what is done is kept.
    """
    write = writer_for(wanted.out)
    if ranks.first:
        sweep_finished(wanted.out)
        check_free(wanted.out)
    with _threads(ranks.tell(stored(wanted.out).get(_THREADS, torch.get_num_threads()) if ranks.first else None)):
        return _write(wanted, write, ranks, seen, say)


def _write(wanted: Wanted, write: Write, ranks: Ranks, seen: Seen, say: Callable[[str], None]) -> Written | None:
    """Do it on as many threads as there are."""
    gallery = open_gallery(wanted.places, ranks.tell(_stdin(wanted.places) if ranks.first else ""), labelled=True)
    predictor = _predictor(wanted.model, wanted.reading, wanted.device, wanted.engine, len(gallery))
    columns = Columns(wanted.top, gallery.labelled(frozenset(predictor.classes)), wanted.features)
    job = _job(wanted, predictor, gallery, columns)
    parts = Parts(wanted.out, len(gallery), predictor.batch_size * max(1, _PART_ROWS // predictor.batch_size))
    with ExitStack() as held:
        missing: list[int] = []
        if ranks.first:
            held.enter_context(parts.claimed(job))
            missing = parts.missing()
        missing, agreed = ranks.tell([missing, job])
        ranks.report("heard", True)  # where nothing is left to do, the first would be gone before the others had asked
        if agreed != job:
            raise RankError(f"rank {ranks.rank}", "sees other images or another model than rank 0", "give all the same")
        left = sum(len(parts.range(part)) for part in missing)
        if ranks.first and left < len(gallery):
            say(f"{len(gallery) - left:,} of {len(gallery):,} images are done already; going on with the others")
        begun = time.monotonic()
        _make(predictor, gallery, columns, (parts, missing[ranks.rank :: ranks.world]), wanted, seen)
        if not ranks.first:
            return None
        while not all(map(parts.has, missing)):  # of ranks that are slower; who launched them sees one that dies
            time.sleep(_POLL_SECONDS)
        seconds = time.monotonic() - begun
        bad = parts.join(columns.schema, _made_by(predictor, job), write)
    return Written(wanted.out, len(gallery), bad, left, seconds, _engine(predictor))


@contextmanager
def _threads(count: int) -> Generator[None]:
    """Compute on so many threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _make(
    predictor: Predictor,
    gallery: Gallery,
    columns: Columns,
    share: tuple[Parts, Sequence[int]],
    wanted: Wanted,
    seen: Seen,
) -> None:
    """Make this rank's share of the parts, one after another."""
    parts, numbers = share
    known = frozenset(predictor.classes)
    rows = np.concatenate([np.empty(0, np.int64), *(np.array(parts.range(part)) for part in numbers)])
    done = 0

    def told(answers: Iterator[Answer]) -> Iterator[Answer]:
        nonlocal done
        for answer in answers:
            done += 1
            seen(done, len(rows))
            yield answer

    if not len(rows):
        return
    with _looked(predictor, gallery, rows, _workers(wanted.workers, len(rows))) as looked:
        for part in numbers:
            places = parts.range(part)
            answers = list(told(_answers(predictor, islice(looked, len(places)))))
            parts.write(part, columns.table(answers, [gallery.shown(place, known) for place in places]))


@contextmanager
def _looked(
    predictor: Predictor, gallery: Gallery, rows: Sequence[int] | Any, workers: int
) -> Generator[Iterator[_Looked]]:
    """Give the prepared images of `rows` in order, read ahead by `workers` processes, or why there is none."""
    chosen = Subset(gallery, rows)
    found = _named(chosen, scan(chosen, partial(_prepare, predictor.spec), workers, chunk=_CHUNK))
    if not workers:
        yield found
        return
    with prefetch(found, 2 * predictor.batch_size) as ready:
        yield ready


def _named(chosen: Subset, looked: "Iterator[_Looked | ImageError]") -> Generator[_Looked]:
    """Yield what was looked at; what could not even be read has its name from the gallery."""
    for place, found in enumerate(looked):
        yield (chosen.key(place), found) if isinstance(found, ImageError) else found


def _prepare(spec: ImageSpec, example: Example) -> _Looked:
    try:
        picture = spec.open(example.data, example.key) if isinstance(example.data, bytes) else example.data
        return example.key, spec.prepare(picture)
    except ImageError as error:
        return example.key, error


def _answers(predictor: Predictor, looked: Iterator[_Looked]) -> Iterator[Answer]:
    """Yield the answer to each image in order; as many good ones as the model takes go through it at once."""
    waiting: list[_Looked] = []
    good = 0
    for item in looked:
        waiting.append(item)
        good += not isinstance(item[1], ImageError)
        if good == predictor.batch_size or len(waiting) == _PART_ROWS:
            yield from _answer(predictor, waiting)
            waiting, good = [], 0
    yield from _answer(predictor, waiting)


def _answer(predictor: Predictor, waiting: Sequence[_Looked]) -> Iterator[Answer]:
    predictions = iter(predictor.answer([image for _, image in waiting if not isinstance(image, ImageError)]))
    for key, image in waiting:
        found = image if isinstance(image, ImageError) else next(predictions)
        if isinstance(found, Prediction) and not np.isfinite(found.probabilities).all():
            found = ImageError(key, "leads to numbers that are not finite in this model", "check the weights")
        yield Answer(key, found)


def _predictor(model: str, reading: Reading, device: str, engine: Choice, images: int) -> Predictor:
    predictor = Predictor.load(model, choose_device(device), engine, images)
    predictor.spec = reading.apply(predictor.spec)
    return predictor


def _stdin(places: Sequence[str | Path]) -> str:
    """Return what is on standard input, if that is one of the places."""
    return os.fsdecode(sys.stdin.buffer.read()) if STDIN in map(str, places) else ""


def _workers(asked: int | None, images: int) -> int:
    """Return how many processes read: by default none for a few images, else half of the cores."""
    if asked is not None:
        return asked
    return 0 if images < _FEW else min(8, max(1, (os.cpu_count() or 1) // 2))


def _engine(predictor: Predictor) -> str:
    return f"{predictor.engine.name} on {predictor.device.type}"


def _job(wanted: Wanted, predictor: Predictor, gallery: Gallery, columns: Columns) -> dict[str, Any]:
    """Return all that the bytes of the table follow from, by names that a person knows."""
    classes = json.dumps([predictor.classes, predictor.probabilities]).encode()
    return {
        "the model": files.sha256(find(wanted.model)),
        "its classes": hashlib.sha256(classes).hexdigest(),
        "the number of images": len(gallery),
        "the list of images": gallery.digest(),
        "the labels": columns.labels,
        "--top": columns.top,
        "--features": columns.features,
        "the preparation of images (--decoding, --max-pixels)": json.dumps(to_json(predictor.spec), sort_keys=True),
        "the engine": _engine(predictor),
        "the batch": predictor.batch_size,
        _THREADS: torch.get_num_threads(),
        "the version of vitlab": version("vitlab"),
        "the version of torch": torch.__version__,
    }


def _made_by(predictor: Predictor, job: dict[str, Any]) -> dict[str, Any]:
    """Return what the table says of itself."""
    return {
        "vitlab": job["the version of vitlab"],
        "torch": job["the version of torch"],
        "model_sha256": job["the model"],
        "engine": job["the engine"],
        "batch_size": predictor.batch_size,
        "image_spec": to_json(predictor.spec),
        "classes": list(predictor.classes),
        "probabilities": predictor.probabilities,
        "images_sha256": job["the list of images"],
    }
