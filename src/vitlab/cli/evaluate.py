"""`vitlab evaluate`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from vitlab.cli import options


def evaluate(
    model: options.Weighted,
    data: Annotated[
        str | None,
        typer.Argument(
            help="Labelled images, as for finetune; imagenet-real and objectnet for ImageNet models. Default: what the run "
            "evaluated on."
        ),
    ] = None,
    suite: Annotated[
        options.WhichSuite | None,
        typer.Option(
            help="Measure what the paper measures, as far as the data of the catalog are here, into the folder --out."
        ),
    ] = None,
    parts: Annotated[
        str | None,
        typer.Option(metavar="PART,PART", help="With --suite: classify, fewshot, transfer, vtab. Default: all."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="With --suite: updates of each training. Default: the paper's.")
    ] = None,
    changes: options.Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="With --suite: go on with what is left in --out.")] = False,
    against: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Compare with this model on the same images.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write evaluation.json, predictions.csv and reliability.png into this folder; it must not exist. With --suite: "
            "the folder of its runs, default runs/suite-<model>."
        ),
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(help="Pixels the model sees: 384, or 384x640 (height x width). Default: the model's.")
    ] = None,
    resize: Annotated[
        int | None,
        typer.Option(
            min=1, help="Pixels of the shorter side before the middle is cut out. Default: as the model was made for."
        ),
    ] = None,
    missing_images: Annotated[
        options.OnBadImage,
        typer.Option(
            help="Refuse a data set of the catalog that lacks images, or evaluate on the others and say which."
        ),
    ] = options.OnBadImage.FAIL,
    on_bad_image: options.BadImages = options.OnBadImage.FAIL,
    decoding: options.Decoding = None,
    max_pixels: options.MaxPixels = None,
    workers: options.Workers = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Say how good a model is on labelled images: top-1, top-5, loss, calibration, and each class, every image counted once."""
    from vitlab.cli import suite as whole

    if suite is not None:
        others = {
            "--against": against,
            "--image-size": image_size,
            "--resize": resize,
            "--decoding": decoding,
            "--max-pixels": max_pixels,
            "--missing-images": missing_images == options.OnBadImage.SKIP,
            "--on-bad-image": on_bad_image == options.OnBadImage.SKIP,
        }
        whole.refuse_options(data, {name: bool(value) for name, value in others.items()})
        asked = whole.Asked(model, parts, out, steps, workers, device, tuple(changes or ()), resume, as_json)
        whole.measure(asked)
        return
    whole.refuse_alone({"--parts": parts, "--steps": steps, "--set": changes, "--resume": resume})

    from vitlab.studies.evaluation import evaluate_model
    from vitlab.studies.scoresheet import check_free, write_scoresheet

    reading = options.to_reading(decoding, max_pixels, on_bad_image, resize, missing_images)
    if out is not None:
        check_free(out)
    size = options.parse_size(image_size)
    found = evaluate_model(model, data, reading, against=against, image_size=size, workers=workers, device=device)
    if out is not None:
        write_scoresheet(found, out)
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2, ensure_ascii=False))
        return
    for line in found.lines():
        typer.echo(line)
