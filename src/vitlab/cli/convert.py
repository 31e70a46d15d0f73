"""`vitlab convert`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vitlab.cli import options


class Format(StrEnum):
    """What reads the result: this library, timm (and transformers by it), transformers' ViT classes, the paper's code."""

    VITLAB = "vitlab"
    TIMM = "timm"
    HUGGINGFACE = "huggingface"
    OFFICIAL = "official"


def convert(
    model: Annotated[str, typer.Argument(help="A run folder, a file or folder of weights, or a published name.")],
    out: Annotated[Path, typer.Argument(help="The file (vitlab, official) or folder (timm, huggingface) to make.")],
    to: Annotated[Format, typer.Option("--to", help="The format to write.")],
    image_size: options.ImageSize = None,
    trained_size: Annotated[
        str | None, typer.Option(help="The size of a file that does not say it and is not square: 160x224.")
    ] = None,
    num_heads: Annotated[int | None, typer.Option(min=1, help="The heads of a file that does not say them.")] = None,
) -> None:
    """Read weights of any format and write them in another; what was matched, resized or left over is said."""
    from vitlab.weights.convert import check_free, left_out
    from vitlab.weights.convert import convert as convert_model
    from vitlab.weights.load import load_with_report

    check_free(out)
    loaded = load_with_report(
        model,
        image_size=options.parse_size(image_size),
        trained_size=options.parse_size(trained_size, "--trained-size"),
        num_heads=num_heads,
    )
    for line in loaded.report.lines():
        typer.echo(line, err=True)
    typer.echo(f"written  {convert_model(loaded.model, out, to.value)}")
    for line in left_out(loaded.model, to.value):
        typer.echo(f"- left out {line}", err=True)
