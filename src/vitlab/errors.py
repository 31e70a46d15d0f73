"""Every error that a person can cause: where it is, what is wrong, and what to do about it."""

from collections.abc import Sequence
from pathlib import Path

MAX_SHOWN = 1000
"""How many characters of a part of an error are shown; a path is not longer, but a name in a damaged file may be megabytes."""


def one_line(text: str) -> str:
    """Return `text` as it may be printed: whatever moves the cursor or breaks the line is escaped, and its length is bounded."""
    shown = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in shown
    )


class VitlabError(Exception):
    """An error with a place, a reason and a remedy, printed as one line, and below it a line for each of its `items` if it has any;
    the command line exits with `exit_code`."""

    exit_code = 1

    def __init__(self, where: str | Path, what: str, remedy: str = "", items: Sequence[str] = ()) -> None:
        super().__init__(where, what, remedy, items)
        self.where = str(where)
        self.what = what
        self.remedy = remedy
        self.items = items

    def __str__(self) -> str:
        where, what, remedy = map(one_line, (self.where, self.what, self.remedy))
        return (
            f"{where}: {what}"
            + (f"; {remedy}" if remedy else "")
            + "".join(f"\n  {one_line(item)}" for item in self.items)
        )


class RequestError(VitlabError):
    """The request was wrong: an argument, a path, a setting."""

    exit_code = 2


class SettingsError(RequestError):
    """A setting is unknown, of the wrong type, or out of range."""


class DataError(RequestError):
    """A data set is missing, empty, or does not fit what it is used for."""


class ImageError(DataError):
    """One image cannot be decoded, or must not be."""


class BadImagesError(DataError):
    """Some images of a data set cannot be decoded; `images` names every one with its reason, each on a line of its own."""

    def __init__(self, where: str | Path, images: Sequence[ImageError], total: int) -> None:
        remedy = "repair or remove them, or leave them out by --on-bad-image skip:"
        shown = [f"{image.where}: {image.what}" for image in images[:50]]
        more = [f"… and {len(images) - 50} more"] if len(images) > 50 else []
        super().__init__(where, f"{len(images)} of {total} images cannot be used", remedy, shown + more)
        self.images = list(images)

    def __reduce__(self) -> tuple[object, ...]:
        return (_bad_images, (self.where, self.what, self.remedy, self.images))


def _bad_images(where: str, what: str, remedy: str, images: list[ImageError]) -> BadImagesError:
    error = BadImagesError(where, images, len(images))
    error.what, error.remedy = what, remedy
    return error


class PackError(VitlabError):
    """A data set could not be packed to the end; what is packed is kept, and the same command goes on from there."""


class PredictionError(VitlabError):
    """Predictions could not be written to the end; what is done is kept, and the same command goes on from there."""


class WeightsError(RequestError):
    """A file holds no weights, or weights that do not fit the model."""


class BusyError(VitlabError):
    """A server has as much to do as it may have; in a moment there is room again."""


class DownloadError(RequestError):
    """A file cannot be downloaded, or what came is not what was asked for."""


class RunFolderError(RequestError):
    """A run folder exists, is in use, cannot be written, or cannot be continued."""


class ExportError(VitlabError):
    """What was written of a model does not answer as the model does; it was not kept."""


class NonFiniteError(VitlabError):
    """The loss or a gradient stopped being a number; the weights are those before that step."""


class NotEnoughMemoryError(VitlabError):
    """A step needs more memory than there is; each item is a change that needs less."""


class WorkerError(VitlabError):
    """A process that reads images ahead died or hangs; the run can be resumed."""


class RankError(VitlabError):
    """A process that trained with others is lost."""


class CheckpointError(VitlabError):
    """No checkpoint of a run can be read."""
