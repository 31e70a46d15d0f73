"""`vitlab recipes`."""

import json
from typing import Annotated

import typer

from vitlab.cli import options


def recipes(
    name: Annotated[
        str | None, typer.Argument(help="Show this one in full, with its source and what to expect.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List the recipes for --recipe: the paper's, others' and ours; or show one in full."""
    from vitlab.studies.cookbook import in_full, in_json, results, table
    from vitlab.studies.recipe import find_recipe
    from vitlab.studies.recipe import recipes as every

    if as_json:
        typer.echo(
            json.dumps(in_json(find_recipe(name)) if name else [in_json(each) for each in every().values()], indent=2)
        )
    elif name:
        recipe = find_recipe(name)
        _align([("recipe", recipe.name), *in_full(recipe)])
        if rows := results(recipe):
            typer.echo("")
            _align([("expected", "on", "top-1, %", "from"), *rows])
    else:
        rows = [("name", "verb", "for", "made for", "length", "batch", "rate", "decay"), *(row[:-1] for row in table())]
        _align(rows)
        typer.echo("`vitlab recipes NAME` shows one in full, with its source and what to expect.")


def _align(rows: list[tuple[str, ...]]) -> None:
    """Print rows in columns; a line may be longer than the terminal is wide."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
