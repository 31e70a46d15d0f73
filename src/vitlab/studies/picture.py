"""A figure that a person asked for as a new file."""

from pathlib import Path

from vitlab.errors import SettingsError
from vitlab.inspection.drawing import Drawing

KINDS = (".png", ".svg", ".pdf")


def check_picture(path: Path) -> None:
    """Refuse a file of unknown kind, or one that exists or has no folder, before anything is computed for it.

    Raises:
        SettingsError: it is one of these.
    """
    if path.suffix not in KINDS:
        raise SettingsError("--out", f"'{path}' names no kind of picture", f"end it in {', '.join(KINDS)}")
    if path.exists():
        raise SettingsError("--out", f"{path} already exists", "choose another name")
    if not path.parent.is_dir():
        raise SettingsError("--out", f"{path} cannot be written (no folder {path.parent})", "choose another place")


def save_picture(drawing: Drawing, path: Path) -> Path:
    """Write `drawing` to the new file `path`, which has it whole or not at all.

    Raises:
        SettingsError: the file cannot be written.
    """
    draft = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        drawing.save(draft)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise SettingsError("--out", f"{path} cannot be written ({error.strerror})", "choose another place") from None
    return path
