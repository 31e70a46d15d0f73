"""`vitlab predict`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from vitlab.cli import options


def predict(
    model: options.Weighted,
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 3,
    on_bad_image: options.BadImages = options.OnBadImage.FAIL,
    decoding: options.Decoding = None,
    max_pixels: options.MaxPixels = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Name what is on images."""
    from vitlab.errors import one_line
    from vitlab.studies.evaluation import Reading, predict_files

    how = None if decoding is None else decoding.value
    reading = Reading(how, max_pixels, skip_bad=on_bad_image == options.OnBadImage.SKIP)
    for path, prediction in predict_files(model, images, reading, device=device):
        if isinstance(prediction, str):
            typer.echo(f"skipped {prediction}", err=True)
        elif as_json:
            typer.echo(json.dumps({"path": str(path), "top": prediction.top(top)}, ensure_ascii=False))
        else:
            named = "  ".join(f"{one_line(name)} {100 * share:.1f} %" for name, share in prediction.top(top))
            typer.echo(f"{one_line(str(path))}: {named}")
