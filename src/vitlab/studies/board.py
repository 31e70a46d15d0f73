"""Board: how far studies are in a folder, watched by the process that shows it, which keeps their pages up to date."""

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from vitlab.errors import DataError, SettingsError
from vitlab.studies.conduct import PIECES, Failure, failure_of, held_by
from vitlab.studies.contents import find, names
from vitlab.studies.study import Edition, Scale, Study
from vitlab.studies.study_page import PAGE, Card, State, card_of, state_of, write_index, write_page
from vitlab.studies.work import in_order

INDEX_SECONDS = 30.0
"""How often the index is written while studies go on, whose figures are drawn for it."""

Chosen = Sequence[tuple[Study, Edition]]
"""Studies, each as it is at one scale."""


class Board:
    """The studies `chosen` in the folder `out`, and how many of their `pieces` were done when it was last looked at."""

    def __init__(self, chosen: Chosen, scale: Scale, out: Path) -> None:
        self.scale: Scale = scale
        self.out, self.done = out, 0
        self.pieces = in_order([piece for _, edition in chosen for piece in edition.grid.values()])
        self._began, self._written = time.monotonic(), 0.0
        self._left = list(self.pieces)
        self._attempts = {name: failure.attempt for name, failure in self.failures().items()}
        self._open = list(chosen)
        self._cards: dict[str, Card] = {}
        for study, edition in chosen:
            self._show(study, edition)
        self.look()

    def look(self) -> list[str]:
        """Return a line for each piece that is done or failed since the last time; write the pages that it finishes."""
        finished = [piece.name for piece in self._left if piece.result(self.out / PIECES) is not None]
        self._left = [piece for piece in self._left if piece.name not in finished]
        self.done = len(self.pieces) - len(self._left)
        failures = self.failures()
        failed = [name for name, failure in failures.items() if self._attempts.get(name) != failure.attempt]
        self._attempts |= {name: failures[name].attempt for name in failed}
        left = {piece.name for piece in self._left}
        for study, edition in list(self._open):
            if left.isdisjoint(piece.name for piece in in_order(list(edition.grid.values()))):
                self._open.remove((study, edition))
                self._show(study, edition)
        if time.monotonic() - self._written > INDEX_SECONDS:
            self._written = time.monotonic()
            write_index(list(self._cards.values()), self.scale, self.out)
        return [f"done     {name}" for name in finished] + [f"failed   {n}: {failures[n].reason}" for n in failed]

    def failures(self) -> Mapping[str, Failure]:
        """Return why pieces have failed that are not done, without those that only need one of them."""
        found = {piece.name: failure_of(piece, self.out) for piece in self._left}
        return {name: failure for name, failure in found.items() if failure is not None and failure.name == name}

    def working(self) -> list[str]:
        """Return the names of the pieces that somebody works on."""
        return [piece.name for piece in self._left if held_by(piece, self.out) is not None]

    def standing(self) -> str:
        """Return how many pieces are done, and the time since the board was put up."""
        return f"{self.done} of {len(self.pieces)} pieces, {timedelta(seconds=round(time.monotonic() - self._began))}"

    def _show(self, study: Study, edition: Edition) -> None:
        state = state_of(study, edition, self.out)
        write_page(state, self.scale, self.out)
        self._cards[study.name] = card_of(state)


def choose(asked: Sequence[Study], scale: Scale, *, whole: bool) -> tuple[Chosen, Mapping[str, str]]:
    """Return the studies `asked` for as they are at `scale`; of the `whole` paper those that can be, and why the others cannot.

    Raises:
        SettingsError: one that was asked for by its name is not there at this scale.
        DataError: the data for it are not here.
    """
    chosen: list[tuple[Study, Edition]] = []
    left: dict[str, str] = {}
    for study in asked:
        try:
            chosen.append((study, study.at(scale)))
        except (SettingsError, DataError) as error:
            if not whole:
                raise
            left[study.name] = study.impossible.get(scale) or str(error)
    return chosen, left


def report(out: Path, scale: Scale, own: Sequence[Study] = ()) -> tuple[Sequence[State], Path]:
    """Write the page of every study in the folder `out` again, and the index; return how far they are, and the index.

    Studies of the paper are known by their name; `own` are those of your own: nothing in the folder is taken for a program.
    """
    asked = [find(name) for name in names() if (out / name / PAGE).exists()]
    chosen, _ = choose([*asked, *own], scale, whole=True)
    states = [state_of(study, edition, out) for study, edition in chosen]
    for state in states:
        write_page(state, scale, out)
    return states, write_index([card_of(state) for state in states], scale, out)
