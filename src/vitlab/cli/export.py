"""`vitlab export`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from vitlab.cli import options


def export(
    model: options.Weighted,
    out: Annotated[
        Path,
        typer.Argument(
            help="The file to make: an ONNX graph (.onnx) or a program of torch.export (.pt2). A model card goes beside it."
        ),
    ],
    image_size: Annotated[
        str | None, typer.Option(help="Pixels the model sees: 384, or 384x640 (height x width). Default: the model's.")
    ] = None,
    dynamic_size: Annotated[
        bool, typer.Option("--dynamic-size", help="Any height and width; positions are resized in the graph.")
    ] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Layers in 8 bits: a quarter of the size.")] = False,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="With --int8: images that show its ranges. Default: what the run trained on."
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="Compare the file with the model on these. Default: what the run evaluated on."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Write a model as a file that runs without this library; it is compared with the model before it gets its name."""
    from dataclasses import asdict

    from vitlab.studies.exporting import Asked, export_model

    asked = Asked(options.parse_size(image_size), dynamic_size, int8, calibrate, images)
    exported = export_model(model, out, asked)
    if as_json:
        typer.echo(json.dumps(asdict(exported), default=str, indent=2))
        return
    for line in exported.lines():
        typer.echo(line)
