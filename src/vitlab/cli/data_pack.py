"""`vitlab data pack`."""

from pathlib import Path
from typing import Annotated

import typer

from vitlab.cli import options


def pack(
    source: Annotated[str, typer.Argument(help="A data set, as for finetune.")],
    out: Annotated[Path, typer.Argument(help="The folder to make; ready splits become train, val and test in it.")],
    shard_size: Annotated[str, typer.Option(help="About how large a shard is: 256MB, 1GB.")] = "256MB",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes. Default: one a core.")] = None,
    on_bad_image: options.BadImages = options.OnBadImage.FAIL,
    max_pixels: options.MaxPixels = None,
) -> None:
    """Pack a data set into tar shards with an index, for local disks and object stores.

    The bytes of the files stay as they are, in the order of the source, and every image is decoded once to see that it can be.
    When it is interrupted, the same command goes on. The result is used like any data set, also where it was copied to: vitlab
    finetune OUT, vitlab finetune s3://bucket/OUT.
    """
    from vitlab.cli.bar import bar
    from vitlab.data.limits import limits_of
    from vitlab.data.pack import pack as pack_data
    from vitlab.data.scan import cores

    size = options.parse_bytes(shard_size, "--shard-size")
    skip_bad = on_bad_image == options.OnBadImage.SKIP
    try:
        with bar("packing") as advance:
            crew, limits = workers or cores(), limits_of(max_pixels)
            packs = pack_data(source, out, size, crew, skip_bad=skip_bad, limits=limits, advance=advance)
    except KeyboardInterrupt:
        typer.echo("what is packed is kept; the same command goes on", err=True)
        raise
    for packed in packs.values():
        for skipped in packed.listing.manifest.skipped:
            typer.echo(f"skipped {skipped.name}: {skipped.reason}", err=True)
        typer.echo(f"packed   {packed}: {packed.describe()}")
