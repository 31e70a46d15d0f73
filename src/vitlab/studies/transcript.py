"""Transcript: recipes of ours beside a table of the paper, row by row; nothing is trained."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vitlab.studies.study import SCALES, Edition, Finding, Results, Scale, Sheet, Table

DATA = "the recipes of this package; nothing is trained"


@dataclass(frozen=True)
class Line:
    """A recipe of ours, "" where there is none, and the values that it and the paper have for the same `row`, by their names."""

    row: Sequence[str]
    recipe: str
    ours: Mapping[str, str]
    paper: Mapping[str, str]

    @property
    def same(self) -> bool:
        """Whether ours has every value of the paper."""
        return all(self.ours.get(name) == value for name, value in self.paper.items())

    def differences(self) -> str:
        """Return in which values ours is another, in words."""
        found = [
            f"{name} {self.ours.get(name, 'not there')}, not {value}"
            for name, value in self.paper.items()
            if self.ours.get(name) != value
        ]
        return f"{self.recipe or ' '.join(self.row)} ({'; '.join(found)})"


def sheet(title: str, heading: Sequence[str], lines: Sequence[Line], note: str) -> Sheet:
    """Return the lines as a table, and whether every value of ours is the paper's; `heading` names what a row is of."""
    names = list(dict.fromkeys(name for line in lines for name in line.paper))
    top = [*heading, "our recipe", *(cell for name in names for cell in (name, "in the paper")), "same"]
    rows = [
        [
            *line.row,
            line.recipe,
            *(cell for name in names for cell in (line.ours.get(name, ""), line.paper.get(name, ""))),
            "yes" if line.same else "no",
        ]
        for line in lines
    ]
    other = [line for line in lines if not line.same]
    words = f"All {len(lines)} recipes have the values of the paper."
    if other:
        words = f"{len(other)} of {len(lines)} recipes differ: {', '.join(line.differences() for line in other)}."
    return Sheet([Table(title, [top, *rows], note)], [], Finding(not other, words))


def at_every_scale(made: Callable[[], Sheet]) -> Mapping[Scale, Callable[[], Edition]]:
    """Return the editions of a study of recipes, which is the same at every scale."""

    def edition() -> Edition:
        return Edition(DATA, {}, _without_results(made))

    return dict.fromkeys(SCALES, edition)


def _without_results(made: Callable[[], Sheet]) -> Callable[[Results], Sheet]:
    def sheet_of(results: Results) -> Sheet:
        del results
        return made()

    return sheet_of
