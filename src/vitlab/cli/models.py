"""`vitlab models`."""

import json

import typer

from vitlab.cli import options
from vitlab.cli.columns import print_columns


def models(weights: options.ListWeights = False, as_json: options.Json = False) -> None:
    """List the models by name, with their size at 224 pixels and 1,000 classes; or the weights that were published."""
    from rich.console import Console
    from rich.table import Table

    from vitlab.models.catalog import list_models
    from vitlab.weights.hub import published

    rows = published() if weights else list_models()
    if as_json:
        typer.echo(json.dumps([row._asdict() for row in rows], indent=2))
        return
    if weights:
        _list_weights()
        return
    table = Table("name", "layers", "width", "MLP", "heads", "parameters", "from", box=None, header_style="bold")
    for row in rows:
        table.add_row(
            *("" if value is None else f"{value:,}" if isinstance(value, int) else str(value) for value in row)
        )
    Console().print(table)
    typer.echo("Any size goes with any patch size: --model S/8")


def _list_weights() -> None:
    """Print the published weights."""
    from vitlab.weights.hub import published

    rows = [("name", "model", "trained on", "pixels", "top-1", "file")]
    for each in published():
        pixels, top1 = each.image_size or "", "" if each.top1 is None else f"{each.top1:.1f}"
        rows.append((each.name, each.model, each.trained_on, str(pixels), top1, each.url))
    print_columns(rows)
    typer.echo(
        "A name is used as it stands: --weights augreg/S_16. top-1 is on ImageNet in percent, where it was published."
    )
