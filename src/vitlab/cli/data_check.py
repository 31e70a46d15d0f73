"""`vitlab data check`."""

import json
from typing import TYPE_CHECKING

import typer

from vitlab.cli import options

if TYPE_CHECKING:
    from vitlab.errors import ImageError


def check(
    data: options.Described,
    workers: options.Readers = None,
    max_pixels: options.MaxPixels = None,
    as_json: options.Json = False,
) -> None:
    """Decode every image and list each that cannot be used, with its reason; the exit code is 1 if there is any.

    Warns of the same image under different labels, and in more than one split, and says which JPEG decoder is in use.
    """
    from vitlab.cli.bar import bar
    from vitlab.data.check import check as check_all
    from vitlab.data.limits import limits_of
    from vitlab.data.native import decoder
    from vitlab.data.open import open_splits
    from vitlab.data.scan import cores

    sources = open_splits(data)
    total, done = sum(map(len, sources.values())), 0
    with bar("checking") as advance:

        def seen(error: "ImageError | None") -> None:
            if error is not None and not as_json:
                typer.echo(str(error))  # at once: whoever interrupts a long check keeps what it found
            nonlocal done
            done += 1
            advance(done, total)

        found = check_all(sources, cores() if workers is None else workers, limits_of(max_pixels), seen=seen)
    if as_json:
        typer.echo(json.dumps({"data": data, "decoder": decoder(), **found.as_json()}, indent=2, ensure_ascii=False))
    else:
        for line in found.lines(data):
            typer.echo(line)
        typer.echo(f"JPEG files are decoded by {decoder()}", err=True)
    if found.count:
        raise typer.Exit(1)
