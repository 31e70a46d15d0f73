"""A table in plain columns."""

from collections.abc import Sequence

import typer


def print_columns(rows: Sequence[Sequence[str]], right: int | None = None) -> None:
    """Print rows as columns; a line may be longer than the terminal is wide, for a name or a path is not to be cut.

    A row with fewer cells than the first does not count for the widths: its last cell is a remark. The columns from `right` on
    are numbers, which end below each other.
    """
    full = [row for row in rows if len(row) == len(rows[0])]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    for row in rows:
        cells = (
            text.ljust(width) if right is None or index < right else text.rjust(width)
            for index, (text, width) in enumerate(zip(row, widths, strict=False))
        )
        typer.echo("  ".join(cells).rstrip())
