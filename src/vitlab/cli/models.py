"""`vitlab models`."""

import json

import typer

from vitlab.cli import options


def models(as_json: options.Json = False) -> None:
    """List the models by name, with their size at 224 pixels and 1,000 classes."""
    from rich.console import Console
    from rich.table import Table

    from vitlab.models.catalog import list_models

    rows = list_models()
    if as_json:
        typer.echo(json.dumps([row._asdict() for row in rows], indent=2))
        return
    table = Table("name", "layers", "width", "MLP", "heads", "parameters", "from", box=None, header_style="bold")
    for row in rows:
        table.add_row(*("" if value is None else f"{value:,}" if isinstance(value, int) else value for value in row))
    Console().print(table)
    typer.echo("Any size goes with any patch size: --model S/8")
