"""Study: a table or figure of the paper as data: a grid of pieces of work, and how their results become what the paper shows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from vitlab.errors import SettingsError
from vitlab.evals.interval import OverRuns, over_runs
from vitlab.studies.findings import Figure
from vitlab.studies.work import Piece, Result

Scale = Literal["miniature", "small", "paper"]
"""Minutes on two cores with the data of the package; hours with CIFAR-size data that the user has; the paper's data and sizes."""
SCALES: tuple[Scale, ...] = get_args(Scale)


@dataclass(frozen=True)
class Table:
    """Rows of text, the heading first; numbers of the paper have columns of their own, named so."""

    title: str
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """Whether the results show what the paper found, in words; `agrees` is None where they cannot tell at this scale."""

    agrees: bool | None
    words: str

    @property
    def word(self) -> str:
        """The answer in a word."""
        return {True: "agrees", False: "does not agree", None: "cannot tell"}[self.agrees]


@dataclass(frozen=True)
class Sheet:
    """What the results of a study amount to."""

    tables: Sequence[Table]
    figures: Sequence[Figure]
    finding: Finding


@dataclass(frozen=True)
class Results:
    """What the pieces of a study came to, by the labels of its grid; None for one that failed or is not finished."""

    by_label: Mapping[str, Result | None]

    def __getitem__(self, label: str) -> Result | None:
        return self.by_label[label]

    def over(self, labels: Sequence[str], metric: str) -> OverRuns | None:
        """Return mean and deviation of a number over those of the runs `labels` that have it, None without any."""
        found = [self.by_label[label] for label in labels]
        values = [float(result[metric]) for result in found if result is not None and metric in result]
        return over_runs(values) if values else None

    def over_means(self, runs: Sequence[Sequence[str]], metric: str) -> OverRuns | None:
        """Return mean and deviation over `runs` of the mean of a number over the labels of each.

        A run that lacks a label is left out; None without any that is whole.
        """
        found = [[self.by_label[label] for label in labels] for labels in runs]
        whole = [[float(result[metric]) for result in each if result is not None] for each in found if None not in each]
        return over_runs([sum(each) / len(each) for each in whole]) if whole else None


@dataclass(frozen=True)
class Edition:
    """A study at one scale: its grid by label, what it is run on in words, and how its results become a sheet."""

    data: str
    grid: Mapping[str, Piece]
    sheet: Callable[[Results], Sheet]


@dataclass(frozen=True)
class Study:
    """One table or figure of the paper, or a question of your own.

    `found` is what the paper says of it, `source` where. An edition is made when it is asked for: a scale may need data that are
    not here. `impossible` says why there is none at a scale. `minutes` is about how long the miniature takes on two cores by
    itself, `file` where the study was read from, if it is of your own.
    """

    name: str
    title: str
    question: str
    found: str
    source: str
    editions: Mapping[Scale, Callable[[], Edition]]
    impossible: Mapping[Scale, str] = field(default_factory=dict[Scale, str])
    minutes: float | None = None
    file: str = ""

    def at(self, scale: str) -> Edition:
        """Return the study at `scale`.

        Raises:
            SettingsError: there is no such scale, or not of this study.
            DataError: the data for it are not here.
        """
        known = scale_named(scale)
        if known not in self.editions:
            why = self.impossible.get(known, "nobody has written it down")
            remedy = f"use {' or '.join(scale for scale in SCALES if scale in self.editions)}"
            raise SettingsError("--scale", f"{self.name} has no {scale} edition: {why}", remedy)
        return self.editions[known]()


def scale_named(name: str) -> Scale:
    """Return the scale called `name`.

    Raises:
        SettingsError: there is none.
    """
    for scale in SCALES:
        if scale == name:
            return scale
    raise SettingsError("--scale", f"there is no '{name}'", f"use {' or '.join(SCALES)}")
