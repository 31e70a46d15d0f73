"""`vitlab study list`."""

import json

import typer

from vitlab.cli import options
from vitlab.cli.columns import print_columns


def list_studies(as_json: options.Json = False) -> None:
    """List the studies: every table and figure of the paper with results, in its order."""
    from vitlab.studies.contents import about, names

    rows = [(name, about(name)) for name in names()]
    if as_json:
        typer.echo(json.dumps([{"name": name, "about": words} for name, words in rows], indent=2, ensure_ascii=False))
        return
    print_columns(rows)
    typer.echo("\n`vitlab study show NAME` tells more, `vitlab study run NAME` carries it out, `--all` all of them.")
