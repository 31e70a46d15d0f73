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
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(
        "name", "depth", "width", "MLP", "heads", "patch", "parameters", "from", box=None, header_style="bold"
    )
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()))
    Console().print(table)
    typer.echo("Any size goes with any patch size: --model S/8")
