"""The folder that `evaluate --out` writes: the numbers, what the model says of each image, and how far it can be trusted."""

import csv
import io
import json
from pathlib import Path

from vitlab import files
from vitlab.data.labels import label_at
from vitlab.errors import DataError, VitlabError
from vitlab.evals.classify import AnyPredictions
from vitlab.inspection import charts
from vitlab.studies.evaluation import Evaluated


def check_free(out: Path) -> None:
    """Refuse the name of a file or folder that is there already, or whose parent is not.

    Raises:
        DataError: it is so.
    """
    if out.exists() or out.is_symlink():
        raise DataError(out, "exists already", "choose another --out, or remove it")
    if not out.absolute().parent.is_dir():
        raise DataError(out.parent, "is no folder", "make it first")


def write_scoresheet(found: Evaluated, folder: Path) -> None:
    """Write `evaluation.json`, `predictions.csv`, `against.csv` and `reliability.png` into a new folder, which appears when whole.

    The tables have a line an image: its name, its labels, the numbers of its most probable classes and their probabilities. The
    numbers count in `classes` of `evaluation.json`. The last two files are there where there is another model, and where
    the model names one class an image.

    Raises:
        DataError: the folder is there already.
        VitlabError: it cannot be written.
    """
    check_free(folder)
    draft = folder.with_name(f".{folder.name}.part")
    numbers = found.as_json() | {"classes": found.predictions.classes}
    try:
        files.remove(draft)  # of an attempt that was cut
        files.make_folder(draft)
        content = json.dumps(numbers, indent=2, ensure_ascii=False) + "\n"
        files.write_bytes(draft / "evaluation.json", content.encode())
        files.write_bytes(draft / "predictions.csv", table_of(found.predictions))
        if found.against is not None:
            files.write_bytes(draft / "against.csv", table_of(found.against.predictions))
        calibration = found.predictions.calibration
        if calibration is not None:
            shown = calibration.counts, calibration.confidence, calibration.accuracy, calibration.ece
            charts.reliability(*shown).save(draft / "reliability.png")
        check_free(folder)
        files.rename(draft, folder)
        files.flush_folder(folder.absolute().parent)
    except OSError as error:
        raise VitlabError(folder, f"cannot be written ({error.strerror or error})", "choose another --out") from None


def table_of(predictions: AnyPredictions) -> bytes:
    """Return predictions as CSV: image, labels (several with a space between), top1, top2, ..., p1, p2, ..."""
    leaders, text = predictions.leaders, io.StringIO()
    places = range(1, leaders.shape[1] + 1)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "labels", *(f"top{place}" for place in places), *(f"p{place}" for place in places)])
    for row, key in enumerate(predictions.keys):
        label, best = label_at(predictions.labels, row), leaders[row].tolist()
        own = str(label) if isinstance(label, int) else " ".join(map(str, label))
        writer.writerow([key, own, *best, *(f"{predictions.probabilities[row, c]:.6g}" for c in best)])
    return text.getvalue().encode("utf-8", "backslashreplace")
