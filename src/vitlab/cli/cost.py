"""`vitlab cost`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitlab.cli import options
from vitlab.cli.columns import print_columns

if TYPE_CHECKING:
    from vitlab.studies.affordable import Afforded
    from vitlab.studies.costing import Asked, Costed
    from vitlab.studies.measured import Measured
    from vitlab.studies.table6 import Table6


def cost(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A name from `vitlab models`, a file of weights or a run. Without it: the models of the paper's table 6."
        ),
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(help="Pixels: 224, or 384x640 (height x width). Default: the model's own.")
    ] = None,
    num_classes: Annotated[
        int | None, typer.Option(min=1, help="Classes of the head. Default: the model's own.")
    ] = None,
    train_images: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="Images of a training set: 1281167, or 303M.")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over them.")] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="DEVICES [TIME]", help="What can be trained in it: '8xH200 24h'."),
    ] = None,
    rate: Annotated[float | None, typer.Option(help="TFLOP/s that a device reaches in training.")] = None,
    utilisation: Annotated[
        float | None, typer.Option(help="The share of its peak that a device of --budget reaches. Default: 0.4.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure images/s and the largest batch here, in inference and training.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(help="How long --measure takes for each of its figures. Default: 10.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Draw what was measured: a new .png, .svg or .pdf file.")] = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Say what a model costs: parameters and operations by part, memory, the compute of a training and its time.

    Nothing is computed and no weight is read, but with --measure.
    """
    from vitlab.studies.costing import Asked

    asked = Asked(
        model=model,
        image_size=options.parse_size(image_size),
        num_classes=num_classes,
        train_images=options.parse_count(train_images, "--train-images"),
        epochs=epochs,
        rate=rate,
        budget=budget,
        utilisation=utilisation,
    )
    if measure:
        stated = {"--budget": budget, "--rate": rate, "--utilisation": utilisation}
        _refuse(stated, "is of a rate that is stated, and --measure finds that of this device", "give one of the two")
        _measure(asked, 10.0 if seconds is None else seconds, device, out, as_json)
        return
    from vitlab.studies.affordable import answer

    measuring = {"--out": out, "--seconds": seconds, "--device": None if device == "auto" else device}
    _refuse(measuring, "is for what --measure measures", "add --measure")
    _show(answer(asked), as_json)


def _refuse(given: Mapping[str, object], what: str, remedy: str) -> None:
    from vitlab.errors import SettingsError

    for flag in (flag for flag, value in given.items() if value is not None):
        raise SettingsError(flag, what, remedy)


def _measure(asked: "Asked", seconds: float, device: str, out: Path | None, as_json: bool) -> None:
    """Measure, say each figure as it comes, and show all of them; when interrupted, those that are there."""
    from vitlab.studies.costing import costed
    from vitlab.studies.measured import Measured, said
    from vitlab.studies.picture import check_picture, save_picture
    from vitlab.studies.plan import choose_device
    from vitlab.studies.speed import Bench, Point, measure, sizes_for

    if out is not None:
        check_picture(out)
    found = costed(asked)
    models = sizes_for(found.settings, asked.image_size is not None or found.training is not None)
    bench = Bench.on(choose_device(device), seconds)
    typer.echo(f"measuring {2 * len(models)} figures, about {seconds:g} s each, on {bench}", err=True)
    points: list[Point] = []
    interrupted = False
    try:
        for point in measure(models, bench):
            points.append(point)
            typer.echo(f"  {said(point)}", err=True)
    except KeyboardInterrupt:
        interrupted = True
    measured = Measured(found.name, models, bench, points, found.training)
    _show(measured, as_json)
    if out is not None and points:
        typer.echo(f"figure   {save_picture(measured.drawing(), out)}", err=as_json)
    if interrupted:
        raise KeyboardInterrupt


def _show(found: "Table6 | Costed | Afforded | Measured", as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2, ensure_ascii=False))
        return
    for table in found.tables():
        print_columns(table, right=1)
        typer.echo()
    for line in found.lines():
        typer.echo(line)
