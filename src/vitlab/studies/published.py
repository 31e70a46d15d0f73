"""Published: the tables of the paper, as they are printed."""

import csv
from importlib import resources


def read_table(name: str) -> list[dict[str, str]]:
    """Return the lines of a table of the paper, "table2" and so on, by the names of its columns."""
    text = (resources.files("vitlab.studies") / "paper" / f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
