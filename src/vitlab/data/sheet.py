"""Contact sheet: a few examples of each class in one picture, the same for the same data and seed."""

import io
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vitlab import files
from vitlab.data.image import decode
from vitlab.data.scan import scan
from vitlab.data.source import Example, Pixels, Source, Subset
from vitlab.errors import DataError, ImageError

NAME = "contact-sheet.png"
CLASSES, EXAMPLES = 40, 8
"""Rows and columns: what a person can look through. Of more classes a sample is shown."""
_CELL, _GAP, _MARGIN = 96, 6, 16
_NAMES = (110, 260)  # least and most pixels for the class names
_INK, _FAINT, _PAPER, _EMPTY, _BAD = "#141414", "#6e6e6e", "#ffffff", "#f3f3f3", "#f8dcdc"

Font = ImageFont.FreeTypeFont


def new_sheet_path(folder: Path) -> Path:
    """Return where the contact sheet in `folder` goes; the folder is made.

    Raises:
        DataError: there is a sheet, or the folder cannot be made.
    """
    path = folder / NAME
    if path.exists():
        raise DataError(path, "exists already", "choose another --out, or remove it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(folder, f"cannot be made ({error.strerror})", "choose another --out") from None
    return path


def write_sheet(path: Path, source: Source, seed: int = 0, workers: int = 0) -> None:
    """Write the contact sheet of `source` as PNG to `path`."""
    content = io.BytesIO()
    draw_sheet(source, seed, workers).save(content, "PNG")
    files.write_atomic(path, content.getvalue())


def draw_sheet(source: Source, seed: int = 0, workers: int = 0) -> Image.Image:
    """Return a picture with a row for each class that has examples, `EXAMPLES` of them; `seed` chooses which.

    Small images are enlarged by a whole factor, so that their pixels show. An image that cannot be decoded is a marked
    cell. Of more than `CLASSES` classes as many are shown, chosen by `seed`, and the heading says so.
    """
    labels = source.labels if source.labels.ndim == 2 else source.labels[:, None]
    present = np.unique(labels[labels >= 0])
    rng = np.random.default_rng((seed, len(present)))
    shown = present if len(present) <= CLASSES else np.sort(rng.choice(present, CLASSES, replace=False))
    rows: list[np.ndarray] = []
    counts: list[int] = []
    for label in shown:
        members = np.flatnonzero((labels == label).any(axis=1))
        counts.append(len(members))
        rows.append(np.sort(rng.permutation(members)[:EXAMPLES]))
    cells = scan(Subset(source, np.concatenate(rows)), _thumbnail, workers)
    names = [source.classes[label] for label in shown]
    some = "" if len(shown) == len(present) else f"{len(shown)} of "
    heading = f"{source}: {len(source):,} images, {some}{len(present):,} classes"
    page, left = _page(heading, names, counts)
    for row, members in enumerate(rows):
        for column in range(len(members)):
            _place(page, next(cells), (left + column * (_CELL + _GAP), _top(row)))
    return page


def _thumbnail(example: Example) -> Pixels:
    """Return the image in the size of a cell, its sides in proportion: uint8 [h, w, 3]."""
    pixels = decode(example.data, example.key) if isinstance(example.data, bytes) else example.data
    image = Image.fromarray(np.ascontiguousarray(pixels))
    factor = _CELL / max(image.size)
    if factor >= 1:
        width, height = (side * int(factor) for side in image.size)
        return np.asarray(image.resize((width, height), Image.Resampling.NEAREST))
    width, height = (max(1, round(side * factor)) for side in image.size)
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0))


def _page(heading: str, names: list[str], counts: list[int]) -> tuple[Image.Image, int]:
    """Return the empty page with its heading and the names of its rows, and where the first column of images begins."""
    font, small, bold = _font("DejaVuSans", 14), _font("DejaVuSans", 11), _font("DejaVuSans-Bold", 15)
    widest = max(font.getlength(name) for name in names)
    side = int(min(max(widest, _NAMES[0]), _NAMES[1]))
    left = _MARGIN + side + 2 * _GAP
    width = left + EXAMPLES * (_CELL + _GAP) - _GAP + _MARGIN
    page = Image.new("RGB", (width, _top(len(names)) - _GAP + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, _MARGIN), _fit(heading, bold, width - 2 * _MARGIN, end=False), _INK, bold)
    for row, (name, count) in enumerate(zip(names, counts, strict=True)):
        middle = _top(row) + _CELL // 2
        lines = _wrap(name, font, side)
        top = middle - (18 * len(lines) + 14) // 2
        for number, line in enumerate(lines):
            draw.text((_MARGIN, top + 18 * number), line, _INK, font)
        draw.text((_MARGIN, top + 18 * len(lines) + 2), f"{count:,}", _FAINT, small)
    return page, left


def _top(row: int) -> int:
    return _MARGIN + 32 + row * (_CELL + _GAP)


def _place(page: Image.Image, cell: Pixels | ImageError, corner: tuple[int, int]) -> None:
    """Put an image in the middle of its cell, or the mark of one that cannot be used."""
    left, top = corner
    draw = ImageDraw.Draw(page)
    square = (left, top, left + _CELL - 1, top + _CELL - 1)
    if isinstance(cell, ImageError):
        draw.rectangle(square, _BAD)
        middle = (left + _CELL // 2, top + _CELL // 2)
        draw.text(middle, "cannot be\ndecoded", _FAINT, _font("DejaVuSans", 11), anchor="mm", align="center")
        return
    draw.rectangle(square, _EMPTY)
    height, width = cell.shape[:2]
    page.paste(Image.fromarray(cell), (left + (_CELL - width) // 2, top + (_CELL - height) // 2))


def _wrap(text: str, font: Font, width: int) -> list[str]:
    """Return `text` in at most two lines of `width` pixels, broken between words where there are any."""
    if font.getlength(text) <= width:
        return [text]
    breaks = [at + 1 for at, char in enumerate(text) if char in " _-,/."]
    fitting = [at for at in breaks if font.getlength(text[:at]) <= width]
    at = fitting[-1] if fitting else next(n for n in range(len(text), 0, -1) if font.getlength(text[:n]) <= width)
    return [text[:at].rstrip(), _fit(text[at:], font, width)]


def _fit(text: str, font: Font, width: int, end: bool = True) -> str:
    """Return `text`, shortened to `width` pixels at its end or its beginning."""
    shorter = text
    while shorter and font.getlength(text) > width:
        shorter = shorter[:-1] if end else shorter[1:]
        text = f"{shorter}…" if end else f"…{shorter}"
    return text


def _font(name: str, size: int) -> Font:
    """Return a font of matplotlib's, the same on every machine; Pillow's own knows Latin letters alone."""
    path = resources.files("matplotlib").joinpath("mpl-data", "fonts", "ttf", f"{name}.ttf")
    return ImageFont.truetype(io.BytesIO(path.read_bytes()), size, layout_engine=ImageFont.Layout.BASIC)
