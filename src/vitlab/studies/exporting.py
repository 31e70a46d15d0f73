"""What `export` does: a model and its images found by name, and what its run says of how good it is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vitlab.config import parse, read_json
from vitlab.data.gallery import open_gallery
from vitlab.data.open import AnySource, open_data
from vitlab.data.source import Source
from vitlab.errors import DataError, SettingsError, VitlabError, WeightsError
from vitlab.serve.export import Exported, export
from vitlab.studies.evaluation import default_source
from vitlab.studies.plan import evaluation_source
from vitlab.studies.recipe import InProgram, RunSettings
from vitlab.studies.record import read_record
from vitlab.train.run import CONFIG
from vitlab.weights.convert import check_free
from vitlab.weights.load import load


@dataclass(frozen=True)
class Asked:
    """How a model is exported: for which size of images, or any; in 8 bits, with ranges from the images `calibrate`; and compared
    on `images`."""

    image_size: int | tuple[int, int] | None = None
    dynamic_size: bool = False
    int8: bool = False
    calibrate: str | None = None
    images: str | None = None


def export_model(model: str, out: Path, asked: Asked) -> Exported:
    """Write the model at path `model` to `out`; see `vitlab.export`.

    It is compared on `asked.images`, else on what its run evaluated on if that is still there, else on fractals; in 8 bits it is
    calibrated on `asked.calibrate`, else on what its run trained on.

    Raises:
        RequestError: there is no model or no data, or the options contradict each other.
        ExportError: what was written does not answer as the model does.
    """
    if asked.calibrate is not None and not asked.int8:
        raise SettingsError("--calibrate", "is for 8 bits", "add --int8, or leave it out")
    check_free(out)
    settings = _run_of(Path(model))
    loaded = load(model, image_size=asked.image_size)
    images = _shown(asked.images, evaluation_source) if asked.images is not None else _evaluated_on(Path(model))
    calibrate = _calibration(asked, settings) if asked.int8 else None
    facts = [] if settings is None else facts_of(Path(model), settings)
    if facts and settings is not None and loaded.settings.image_size != settings.model.image_size:
        trained = "×".join(map(str, settings.model.image_size))
        facts.append(
            f"These figures are of {trained} pixels, for which it was trained; they do not hold for this file."
        )
    return export(loaded, out, dynamic_size=asked.dynamic_size, images=images, calibrate=calibrate, facts=facts)


def _run_of(model: Path) -> RunSettings | None:
    path = model / CONFIG
    return parse(RunSettings, read_json(path), path) if path.is_file() else None


def _evaluated_on(model: Path) -> AnySource | None:
    """Return what a run evaluated on, None where it is not there any more."""
    try:
        source = default_source(model)
        if isinstance(source, InProgram):  # pyright: ignore[reportUnnecessaryIsInstance]
            return None
        len(source)
    except (DataError, WeightsError):
        return None
    return source


def _shown(name: str, opened: Callable[[str], Source]) -> Source:
    """Return the images `name` as they are `opened`, or all of them where they have no labels: none are needed."""
    try:
        return opened(name)
    except DataError:
        if not Path(name).exists():
            raise
        return open_gallery([name])


def _to_train_on(name: str) -> Source:
    data = open_data(name)
    found = data.train if data.train is not None else data.whole
    return found if found is not None else evaluation_source(name)


def _calibration(asked: Asked, settings: RunSettings | None) -> Source:
    """Return the images that show the ranges of activations.

    Raises:
        DataError: nobody says which.
    """
    if asked.calibrate is not None:
        return _shown(asked.calibrate, _to_train_on)
    if settings is None or isinstance(settings.train_data, InProgram):
        raise DataError("--calibrate", "is missing", "give images like those that the model will see")
    return settings.train_data


def facts_of(model: Path, settings: RunSettings) -> list[str]:
    """Return what the run `model` says of how good it is, and on which data, in lines."""
    lines = [f"Trained on {settings.train_data}."]
    try:
        record = read_record(model)
    except VitlabError:
        return lines
    for name, source in settings.evals.items():
        found = {key.split("/", 1)[1]: value for key, value in record.last.items() if key.startswith(f"{name}/")}
        count = found.get("count")
        figures = ", ".join(f"{key} {value:.4g}" for key, value in found.items() if key != "count")
        if figures:
            lines.append(f"On {'the' if count is None else f'{count:,.0f}'} images of {source}: {figures}.")
    return lines
