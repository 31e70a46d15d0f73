"""`vitlab predict`."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitlab.cli import options

if TYPE_CHECKING:
    from vitlab.studies.prediction import Wanted


def predict(
    model: options.Weighted,
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Image files, folders of them, patterns ('photos/*.jpg'), - for a list of paths on standard input; parquet, CSV "
            "and JSONL tables, packs, .tar files and names as for finetune. Labels are not needed."
        ),
    ],
    top: Annotated[int | None, typer.Option(min=1, help="How many classes to name. Default: 3, in a file 5.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write a row an image, also for bad ones, into this new .parquet, .csv or .jsonl file. When it is interrupted, "
            "the same command goes on."
        ),
    ] = None,
    features: Annotated[bool, typer.Option("--features", help="With --out: the features of every image too.")] = False,
    on_bad_image: Annotated[
        options.OnBadImage,
        typer.Option(
            help="Bad images are listed and the exit code is not 0, or it is. No other image is lost to them."
        ),
    ] = options.OnBadImage.FAIL,
    decoding: options.Decoding = None,
    max_pixels: options.MaxPixels = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that read ahead. Default: half of the cores, for many images.")
    ] = None,
    device: options.Device = "auto",
    processes: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --out: share the work among so many processes here, one a GPU; or use torchrun."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Name what is on images: on the screen, or of any number of them into a file."""
    from vitlab.errors import SettingsError

    several = (processes or 1) > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1
    for flag, given in {"--features": features, "--processes": several}.items():
        if given and out is None:
            raise SettingsError(flag, "is for predictions in a file", "add --out predictions.parquet")
    if several and "WORLD_SIZE" not in os.environ:
        from vitlab.train.launch import launch

        raise SystemExit(launch(processes or 1, sys.argv[1:], "the same command goes on"))

    reading = options.to_reading(decoding, max_pixels, on_bad_image)
    if out is not None:
        from vitlab.studies.prediction import Wanted

        wanted = Wanted(model, tuple(sources), out, top or 5, features, reading, workers, device)
        _write(wanted, as_json)
        return
    from vitlab.errors import one_line
    from vitlab.studies.prediction import predict_files

    for path, prediction in predict_files(model, sources, reading, workers=workers, device=device):
        if isinstance(prediction, str):
            typer.echo(f"skipped {prediction}", err=True)
        elif as_json:
            typer.echo(json.dumps({"path": path, "top": prediction.top(top or 3)}, ensure_ascii=False))
        else:
            named = "  ".join(f"{one_line(name)} {100 * share:.1f} %" for name, share in prediction.top(top or 3))
            typer.echo(f"{one_line(path)}: {named}")


def _quiet(_done: int, _total: int) -> None:
    """Leave it to the first rank to show how far it is."""


def _write(wanted: "Wanted", as_json: bool) -> None:
    """Write the file; with bad images that are not to be skipped it is whole too, and the exit code is 1."""
    from contextlib import nullcontext

    from vitlab.cli.bar import bar
    from vitlab.ranks import joined
    from vitlab.studies.prediction import predict_to_file

    with joined() as ranks:
        try:
            with bar("predictions") if ranks.first else nullcontext(_quiet) as advance:
                written = predict_to_file(wanted, ranks, advance, lambda line: typer.echo(line, err=True))
        except KeyboardInterrupt:
            if ranks.first:
                typer.echo("what is predicted is kept; the same command goes on", err=True)
            raise
    if written is None:
        return
    typer.echo(json.dumps(written.as_json()) if as_json else written.line())
    if written.bad and not wanted.reading.skip_bad:
        raise typer.Exit(1)
