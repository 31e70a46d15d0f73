"""`vitlab fewshot`."""

import json
from typing import Annotated

import typer

from vitlab.cli import options


def fewshot(
    model: options.Weighted,
    train: Annotated[str, typer.Argument(help="Labelled images to draw from, as for finetune.")],
    test: Annotated[
        str | None, typer.Argument(help="Labelled images to test on. Default: the test part of TRAIN.")
    ] = None,
    shots: Annotated[str, typer.Option(metavar="N,N", help="Images a class.")] = "1,5,10",
    seeds: Annotated[int, typer.Option(min=1, help="Draws for each number of shots: seeds 0, 1, …")] = 3,
    l2: Annotated[
        str,
        typer.Option(
            metavar="NUMBER|sweep", help="The regulariser; sweep: 2^-10 to 2^19, the best on the test images."
        ),
    ] = "1024",
    probe: Annotated[bool, typer.Option("--probe", help="Fit logistic regression to all training images too.")] = False,
    knn: Annotated[
        str | None, typer.Option(metavar="K,K", help="Classify by so many nearest training images too, as 20.")
    ] = None,
    on_bad_image: options.BadImages = options.OnBadImage.FAIL,
    decoding: options.Decoding = None,
    max_pixels: options.MaxPixels = None,
    workers: options.Workers = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Say how good frozen features are: a linear head in closed form on a few images a class, as the paper does.

    Features are computed once and kept in ~/.cache/vitlab/features (or $VITLAB_CACHE): another number of shots takes seconds.
    """
    counts = options.parse_counts(shots, "--shots")
    nearest = () if knn is None else options.parse_counts(knn, "--knn")

    from vitlab.cli.bar import bar
    from vitlab.studies.fewshot import Protocol, measure_data, open_sides, parse_l2s

    protocol = Protocol(counts, seeds, parse_l2s(l2), probe, nearest)
    reading = options.to_reading(decoding, max_pixels, on_bad_image)
    sides = open_sides(train, test)
    with bar("features") as advance:
        found = measure_data(model, sides, protocol, reading, workers=workers, device=device, seen=advance)
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2, ensure_ascii=False))
        return
    for line in found.lines():
        typer.echo(line)
