"""The pages of studies: one for each, and an index: the paper with every table and figure that is in a folder."""

import shlex
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vitlab import files
from vitlab.studies import contents
from vitlab.studies.conduct import PIECES, Failure, failure_of, held_by, results, seconds_of
from vitlab.studies.duration import spoken
from vitlab.studies.report import page_file, render, svg_markup
from vitlab.studies.study import Edition, Finding, Results, Scale, Sheet, Study, Table
from vitlab.studies.work import Piece, in_order

PAGE = "index.html"
THUMBNAIL_ROWS, THUMBNAIL_COLUMNS = 5, 4
"""So much of a table is shown in the index."""


@dataclass(frozen=True)
class State:
    """How far a study is: its pieces, those that are done, and why others failed or who works on them."""

    study: Study
    edition: Edition
    pieces: Sequence[Piece]
    done: int
    failures: Mapping[str, Failure]
    working: Mapping[str, str]
    sheet: Sheet
    figures: Sequence["Drawn"]
    seconds: float

    @property
    def finished(self) -> bool:
        """Whether every piece is done."""
        return self.done == len(self.pieces)

    @property
    def badge(self) -> str:
        """The verdict in a word or two."""
        return self.sheet.finding.word if self.finished else "not finished"

    def words(self) -> str:
        """Return it in a line."""
        if self.finished:
            return f"{self.sheet.finding.word}: {self.sheet.finding.words}"
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"{self.done} of {len(self.pieces)} pieces done{failed}"


@dataclass(frozen=True)
class Drawn:
    """A figure of a sheet as it stands on a page."""

    title: str
    text: str
    svg: Markup


@dataclass(frozen=True)
class Card:
    """A study in the index: its verdict, and a first look at what it shows: a figure, or the beginning of a table."""

    study: Study
    badge: str
    words: str
    figure: Markup | None
    table: Table | None


def state_of(study: Study, edition: Edition, out: Path) -> State:
    """Return how far `study` is in the folder `out`."""
    pieces = in_order(list(edition.grid.values()))
    done = sum(piece.result(out / PIECES) is not None for piece in pieces)
    left = [piece for piece in pieces if piece.result(out / PIECES) is None]
    failures = {piece.name: found for piece in left if (found := failure_of(piece, out)) is not None}
    working = {piece.name: found for piece in left if (found := held_by(piece, out)) is not None}
    sheet, figures, failure = _summed_up(edition, results(edition, out))
    more = {} if failure is None else {failure.name: failure}
    return State(study, edition, pieces, done, {**failures, **more}, working, sheet, figures, seconds_of(pieces, out))


def as_json(state: State, out: Path) -> dict[str, object]:
    """Return how far a study is as JSON values."""
    finding = state.sheet.finding
    return {
        "name": state.study.name,
        "finished": state.finished,
        "agrees": finding.agrees if state.finished else None,
        "finding": finding.words if state.finished else None,
        "pieces": len(state.pieces),
        "done": state.done,
        "failed": {name: failure.reason for name, failure in state.failures.items()},
        "seconds": round(state.seconds, 1),
        "tables": [{"title": table.title, "rows": [list(row) for row in table.rows]} for table in state.sheet.tables],
        "page": str(out / state.study.name / PAGE),
    }


def card_of(state: State) -> Card:
    """Return what the index shows of a study."""
    figure = state.figures[0].svg if state.figures else None
    table = None
    if figure is None and state.sheet.tables:
        rows = [row[:THUMBNAIL_COLUMNS] for row in state.sheet.tables[0].rows[: 1 + THUMBNAIL_ROWS]]
        table = Table(state.sheet.tables[0].title, rows)
    words = state.sheet.finding.words if state.finished else state.words()
    return Card(state.study, state.badge, words, figure, table)


def write_page(state: State, scale: Scale, out: Path) -> Path:
    """Write the page of a study into its folder in `out`, and return it."""
    folder = out / state.study.name
    folder.mkdir(exist_ok=True)
    asked, where = shlex.quote(state.study.file or state.study.name), shlex.quote(str(out))
    context = {
        "state": state,
        "study": state.study,
        "scale": scale,
        "command": f"vitlab study run {asked} --scale {scale} --out {where}",
        "took": spoken(state.seconds),
    }
    files.write_atomic(folder / PAGE, _rendered("study.html", context).encode())
    return folder / PAGE


def write_index(cards: Sequence[Card], scale: Scale, out: Path) -> Path:
    """Write the index of the studies in `out`, the paper's in its order, and return it; those not in it are named too."""
    shown = {card.study.name: card for card in cards}
    known = contents.names()
    paper = [(name, shown.get(name), contents.about(name), (out / name / PAGE).exists()) for name in known]
    own = [card for card in cards if card.study.name not in known]
    others = sorted(page.parent.name for page in out.glob(f"*/{PAGE}") if page.parent.name not in (*known, *shown))
    counts = {
        badge: sum(card.badge == badge for card in cards) for badge in dict.fromkeys(card.badge for card in cards)
    }
    context = {
        "paper": paper,
        "own": own,
        "others": others,
        "counts": counts,
        "scale": scale,
        "out": shlex.quote(str(out)),
    }
    files.write_atomic(out / PAGE, _rendered("studies.html", context).encode())
    return out / PAGE


def _rendered(template: str, context: dict[str, Any]) -> str:
    return render(template, context | {"studies_style": page_file("studies.css")})


def _summed_up(edition: Edition, found: Results) -> tuple[Sheet, Sequence[Drawn], Failure | None]:
    """Return what the results amount to; a mistake in that must not end studies of days, so that it is shown as a failure."""
    try:
        sheet = edition.sheet(found)
        return sheet, [Drawn(one.title, one.text, svg_markup(one.drawing)) for one in sheet.figures], None
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        finding = Finding(None, f"The results could not be summed up ({reason}).")
        return Sheet([], [], finding), [], Failure("the sum of the results", reason, traceback.format_exc(), "")
