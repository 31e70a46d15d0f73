"""`vitlab study report`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitlab.cli import options
from vitlab.cli.columns import print_columns

if TYPE_CHECKING:
    from vitlab.studies.study import Study


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of `vitlab study run`, also while it runs.")],
    own: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE.py…", help="Your own studies in it: nothing in the folder is run as a program."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Write the pages of a folder of studies again, from what is there, and say what came out."""
    from vitlab.studies.contents import find

    tell(folder, [find(name) for name in own or ()], as_json, strict=False)


def tell(folder: Path, studies: "Sequence[Study]", as_json: bool, *, strict: bool = True) -> None:
    """Write the pages in `folder`, and say what came out of `studies`, of all in it if there are none or it is not `strict`.

    Raises:
        Exit: with 1, a piece of what was asked for failed.
    """
    from vitlab.studies.board import report as write
    from vitlab.studies.conduct import scale_of
    from vitlab.studies.study_page import as_json as in_json

    states, index = write(folder, scale_of(folder), [study for study in studies if study.file])
    asked = {study.name for study in studies} if strict else {state.study.name for state in states}
    told = [state for state in states if state.study.name in asked]
    if as_json:
        typer.echo(json.dumps([in_json(state, folder) for state in told], indent=2, ensure_ascii=False))
    else:
        print_columns([(state.study.name, state.words()) for state in told] or [("no study of the paper is in it", "")])
    typer.echo(f"report   {index}", err=True)
    failures = {name: failure.reason for state in told for name, failure in state.failures.items()}
    for name, reason in failures.items():
        typer.echo(f"failed   {name}: {reason}", err=True)
    if strict and failures:
        raise typer.Exit(1)
