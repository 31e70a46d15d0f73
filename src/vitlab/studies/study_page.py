"""The pages of studies: one for each, and an index of all that are in a folder."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitlab import files
from vitlab.studies.conduct import PIECES, Failure, failure_of, held_by, results, seconds_of
from vitlab.studies.duration import spoken
from vitlab.studies.report import render
from vitlab.studies.study import Edition, Scale, Sheet, Study
from vitlab.studies.work import Piece, in_order

PAGE = "index.html"


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
    seconds: float

    @property
    def finished(self) -> bool:
        """Whether every piece is done."""
        return self.done == len(self.pieces)

    def words(self) -> str:
        """Return it in a line."""
        if self.finished:
            return f"{self.sheet.finding.word}: {self.sheet.finding.words}"
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"{self.done} of {len(self.pieces)} pieces done{failed}"


def state_of(study: Study, edition: Edition, out: Path) -> State:
    """Return how far `study` is in the folder `out`."""
    pieces = in_order(list(edition.grid.values()))
    done = sum(piece.result(out / PIECES) is not None for piece in pieces)
    left = [piece for piece in pieces if piece.result(out / PIECES) is None]
    failures = {piece.name: found for piece in left if (found := failure_of(piece, out)) is not None}
    working = {piece.name: found for piece in left if (found := held_by(piece, out)) is not None}
    sheet = edition.sheet(results(edition, out))
    return State(study, edition, pieces, done, failures, working, sheet, seconds_of(pieces, out))


def write_page(state: State, scale: Scale, out: Path) -> Path:
    """Write the page of a study into its folder in `out`, and return it."""
    folder = out / state.study.name
    folder.mkdir(exist_ok=True)
    command = f"vitlab study run {state.study.name} --scale {scale} --out {shlex.quote(str(out))}"
    context = {"state": state, "study": state.study, "scale": scale, "command": command, "took": spoken(state.seconds)}
    files.write_atomic(folder / PAGE, render("study.html", context).encode())
    return folder / PAGE


def write_index(states: Sequence[State], scale: Scale, out: Path) -> Path:
    """Write the index of the studies in `out`, in the order of the paper, and return it."""
    files.write_atomic(out / PAGE, render("studies.html", {"states": states, "scale": scale}).encode())
    return out / PAGE
