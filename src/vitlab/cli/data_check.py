"""`vitlab data check`."""

import json
from typing import TYPE_CHECKING

import typer

from vitlab.cli import options

if TYPE_CHECKING:
    from vitlab.errors import ImageError


def check(data: options.Described, workers: options.Readers = None, as_json: options.Json = False) -> None:
    """Decode every image and list each that cannot be used, with its reason; the exit code is 1 if there is any.

    Warns of the same image under different labels, and in more than one split.
    """
    from vitlab.cli.data_progress import progress
    from vitlab.data.check import check as check_all
    from vitlab.data.open import open_splits
    from vitlab.data.scan import cores

    sources = open_splits(data)
    with progress("checking", sum(map(len, sources.values()))) as step:

        def seen(error: "ImageError | None") -> None:
            if error is not None and not as_json:
                typer.echo(str(error))  # at once: whoever interrupts a long check keeps what it found
            step()

        found = check_all(sources, cores() if workers is None else workers, seen=seen)
    if as_json:
        typer.echo(json.dumps({"data": data, **found.as_json()}, indent=2, ensure_ascii=False))
    else:
        for line in found.lines(data):
            typer.echo(line)
    if found.count:
        raise typer.Exit(1)
