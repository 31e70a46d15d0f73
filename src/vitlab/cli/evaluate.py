"""`vitlab evaluate`."""

import json
from typing import Annotated

import typer

from vitlab.cli import options


def evaluate(
    model: options.Weighted,
    data: Annotated[
        str | None, typer.Argument(help="Labelled images, as for finetune. Default: what the run evaluated on.")
    ] = None,
    on_bad_image: options.BadImages = options.OnBadImage.FAIL,
    decoding: options.Decoding = None,
    max_pixels: options.MaxPixels = None,
    workers: options.Workers = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Say how good a model is on labelled images: top-1, top-5, loss, and each class, every image counted once."""
    from vitlab.studies.evaluation import Reading, evaluate_model

    how = None if decoding is None else decoding.value
    reading = Reading(how, max_pixels, skip_bad=on_bad_image == options.OnBadImage.SKIP)
    found = evaluate_model(model, data, reading, workers=workers, device=device)
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2, ensure_ascii=False))
        return
    for line in found.lines():
        typer.echo(line)
