"""`vitlab inspect`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from vitlab.cli import options


def inspect(
    model: options.Weighted,
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them; 16 at most.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="A data set, as for finetune: attention distance is measured on 128 of its images, and the nearest are looked "
            "for among them. Default: what the run was trained on, if it is here."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write; it must not exist. Default: inspect-<model>.")
    ] = None,
    on_bad_image: options.BadImages = options.OnBadImage.FAIL,
    decoding: options.Decoding = None,
    max_pixels: options.MaxPixels = None,
    workers: options.Workers = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Show what a ViT does with images: where it looks, why, which layer knows the answer, what it learned. Writes one page.

    Features of the data set are computed once and kept in ~/.cache/vitlab/features (or $VITLAB_CACHE).
    """
    from vitlab.cli.bar import bar
    from vitlab.errors import one_line
    from vitlab.studies.evaluation import Reading
    from vitlab.studies.inspector import inspect_model
    from vitlab.studies.inspector_page import as_json as numbers
    from vitlab.studies.inspector_page import default_folder, write_inspection
    from vitlab.studies.scoresheet import check_free

    folder = default_folder(model) if out is None else out
    check_free(folder)
    how = None if decoding is None else decoding.value
    reading = Reading(how, max_pixels, skip_bad=on_bad_image == options.OnBadImage.SKIP)
    with bar("looking at") as advance:
        found = inspect_model(model, images, data, reading, workers=workers, device=device, seen=advance)
    page = write_inspection(found, folder)
    if as_json:
        typer.echo(json.dumps(numbers(found, page), indent=2, ensure_ascii=False))
        return
    for error in found.bad:
        typer.echo(f"skipped {error}", err=True)
    for look in found.looks:
        name, share = look.prediction.top(1)[0]
        typer.echo(f"{one_line(str(look.path))}: {one_line(name)} {100 * share:.1f} %, from layer {look.settled} on")
    typer.echo(f"page: {one_line(str(page))}")
