"""`vitlab runs`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from vitlab.cli import options
from vitlab.cli.columns import print_columns


def runs(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="A folder with runs in it, to list them (default: runs), or runs, to compare them."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Draw the curves of all of them: a new .png, .svg or .pdf file.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List the runs in a folder, or compare some: the settings in which they differ, their last figures, their curves."""
    from vitlab.studies import comparison

    given = folders or [Path("runs")]
    found = comparison.find_runs(given)
    drawn = None if out is None else comparison.save_curves(found, out)
    if as_json:
        typer.echo(json.dumps([comparison.as_json(run) for run in found], indent=2, ensure_ascii=False))
        return
    if not found:
        typer.echo(f"no runs in {given[0]}")
    for rows in comparison.tables(found, given) if found else ():
        print_columns(rows)
        typer.echo()
    for line in comparison.notes(found):
        typer.echo(f"note: {line}", err=True)
    if drawn is not None:
        typer.echo(f"curves   {drawn}")
