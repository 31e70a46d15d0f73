"""`vitlab data describe`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from vitlab.cli import options


def describe(
    data: options.Described,
    out: Annotated[
        Path | None, typer.Option(help="A folder for contact-sheet.png: examples of the classes. Default: no sheet.")
    ] = None,
    seed: options.Seed = None,
    workers: options.Readers = None,
    as_json: options.Json = False,
) -> None:
    """Say what a data set holds: counts, class balance, sizes, formats, duplicates, what is left out, what looks wrong.

    No image is decoded, so it is fast; `vitlab data check` decodes them all. --seed chooses the examples on the sheet.
    """
    from vitlab.cli.bar import bar
    from vitlab.data.describe import describe as describe_all
    from vitlab.data.open import open_splits
    from vitlab.data.scan import cores

    sources = open_splits(data)
    readers = cores() if workers is None else workers
    sheet = None
    if out is not None:
        from vitlab.data.sheet import new_sheet_path

        sheet = new_sheet_path(out)
    total, done = sum(map(len, sources.values())), 0
    with bar("describing") as advance:

        def seen() -> None:
            nonlocal done
            done += 1
            advance(done, total)

        found = describe_all(data, sources, readers, seen)
    if sheet is not None:
        from vitlab.data.sheet import write_sheet

        write_sheet(sheet, next(iter(sources.values())), seed or 0, readers)
    if as_json:
        typer.echo(json.dumps({**found.as_json(), "sheet": sheet and str(sheet)}, indent=2, ensure_ascii=False))
        return
    for line in found.lines():
        typer.echo(line)
    if sheet is not None:
        typer.echo(f"\ncontact sheet: {sheet}")
