"""`vitlab study run`."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitlab.cli import options
from vitlab.cli.study_report import tell
from vitlab.cli.training import console_and_say

if TYPE_CHECKING:
    from rich.console import Console

    from vitlab.studies.board import Board, Chosen
    from vitlab.studies.work import Piece


def run(
    studies: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME|FILE.py…", help="Names from `vitlab study list`, or Python files of your own."),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every study of the paper that this scale has.")] = False,
    scale: Annotated[
        str,
        typer.Option(help="miniature: minutes, no download. small: hours, CIFAR-size data. paper: its data and sizes."),
    ] = "miniature",
    out: Annotated[
        Path | None,
        typer.Option(help="The folder; studies in it share what they have in common. Default: runs/<scale>."),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1, help="Pieces at once. Default: one a core in miniature, where the numbers are the same; else 1."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Carry out studies, and write a page of each with the paper's numbers beside it.

    Given again, the command goes on where it was; several machines may share the folder.
    """
    from vitlab.studies import team
    from vitlab.studies.board import Board, choose
    from vitlab.studies.conduct import open_folder
    from vitlab.studies.contents import find, names
    from vitlab.studies.study import scale_named

    _refuse_ranks()
    _check_names(studies, all_)
    size, folder = scale_named(scale), out or Path("runs") / scale
    chosen, left = choose([find(name) for name in studies or names()], size, whole=all_)
    team.use_threads(size)
    if team.is_member():
        raise SystemExit(team.join([edition for _, edition in chosen], folder))
    console, say = console_and_say()
    workers = team.size_for(size, processes)
    open_folder(folder, size)
    say(f"studies  {', '.join(study.name for study, _ in chosen)}")
    for name, why in left.items():
        say(f"without  {name}: {why}")
    board = Board(chosen, size, folder)
    _carry_out(board, chosen, workers, console)
    tell(folder, [study for study, _ in chosen], as_json)


def _refuse_ranks() -> None:
    """Refuse to be one of the ranks that train one piece together: the processes of a study each work on their own."""
    from vitlab.errors import SettingsError

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        what = "does not train one piece on several devices: its processes each work on one"
        raise SettingsError("study run", what, "start it without torchrun, once a machine, with the same --out")


def _check_names(studies: list[str] | None, all_: bool) -> None:
    from vitlab.errors import SettingsError

    if bool(studies) == all_:
        raise SettingsError("NAME", "name studies, or give --all", "see `vitlab study list`")


def _carry_out(board: "Board", chosen: "Chosen", processes: int, console: "Console") -> None:
    """Do what is left, here or by a team of `processes`; when interrupted, say how to go on and leave with the code for it."""
    from vitlab.studies import team
    from vitlab.studies.cell import Studio
    from vitlab.studies.conduct import conduct
    from vitlab.train.loop import Interrupted

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False)

    def work_on(piece: "Piece") -> None:
        for line in board.look():
            say(f"{board.standing()}: {line}")
        say(f"{board.standing()}: begun    {piece.name}")

    say(f"run      {board.out}: {board.done} of {len(board.pieces)} pieces are done, {processes} at once")
    try:
        if board.done == len(board.pieces):
            return
        if processes > 1:
            team.lead(board, processes, sys.argv[1:], console, say)
        else:
            conduct([edition for _, edition in chosen], board.out, Studio(console, say), work_on)
    except Interrupted as stop:
        say("interrupted; the same command goes on where it was")
        raise SystemExit(stop.exit_code) from None
    except KeyboardInterrupt:
        say("interrupted; the same command goes on where it was")
        raise
