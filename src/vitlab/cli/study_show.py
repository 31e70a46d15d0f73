"""`vitlab study show`."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitlab.cli import options

if TYPE_CHECKING:
    from vitlab.studies.study import Scale, Study


def show(
    name: Annotated[str, typer.Argument(help="A name from `vitlab study list`, or a Python file of your own.")],
    as_json: options.Json = False,
) -> None:
    """Tell what a study asks, what the paper found, and what it takes at each scale."""
    from vitlab.studies.contents import find
    from vitlab.studies.study import SCALES

    study = find(name)
    scales = {scale: _facts(study, scale) for scale in SCALES}
    if as_json:
        facts = {field: getattr(study, field) for field in ("name", "title", "question", "found", "source")}
        typer.echo(json.dumps(facts | {"scales": scales}, indent=2, ensure_ascii=False))
        return
    typer.echo(f"{study.title} ({study.source})\n")
    typer.echo(study.question)
    typer.echo(f"The paper: {study.found}\n")
    for scale, facts in scales.items():
        typer.echo(f"{scale:10} {_said(facts)}")
    typer.echo(f"\nvitlab study run {name} --scale {next(iter(study.editions), SCALES[0])}")


def _facts(study: "Study", scale: "Scale") -> dict[str, Any]:
    """Return what the study takes at `scale`, or why it cannot be carried out."""
    from vitlab.errors import DataError
    from vitlab.studies.work import in_order

    if scale not in study.editions:
        return {"possible": False, "why": study.impossible.get(scale, "nobody has written it down")}
    try:
        edition = study.at(scale)
    except DataError as error:
        return {"possible": False, "why": str(error)}
    pieces = len(in_order(list(edition.grid.values())))
    return {
        "possible": True,
        "data": edition.data,
        "pieces": pieces,
        "minutes": study.minutes if scale == "miniature" else None,
    }


def _said(facts: dict[str, Any]) -> str:
    if not facts["possible"]:
        return f"not here: {facts['why']}"
    pieces = {0: "nothing to train", 1: "1 piece of work"}.get(facts["pieces"], f"{facts['pieces']} pieces of work")
    takes = "" if facts["minutes"] is None else f", about {facts['minutes']:g} minutes on two cores"
    return f"{pieces}{takes}: {facts['data']}"
