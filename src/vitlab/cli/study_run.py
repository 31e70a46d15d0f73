"""`vitlab study run`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitlab.cli import options
from vitlab.cli.study_report import tell
from vitlab.cli.training import console_and_say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from vitlab.ranks import Ranks
    from vitlab.studies.board import Board, Chosen
    from vitlab.studies.study import Scale
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

    Given again, the command goes on where it was; several machines may share the folder. Under torchrun all its devices train
    each piece together.
    """
    from vitlab.ranks import joined
    from vitlab.studies import team
    from vitlab.studies.board import choose
    from vitlab.studies.contents import find, names
    from vitlab.studies.study import scale_named

    _check_names(studies, all_)
    size, folder = scale_named(scale), out or Path("runs") / scale
    chosen, left = choose([find(name) for name in studies or names()], size, whole=all_)
    team.use_threads(size)
    if team.is_member():
        raise SystemExit(team.join([edition for _, edition in chosen], folder))
    with joined() as ranks:
        if not ranks.first:
            _follow(chosen, folder, ranks)
            return
        _lead(chosen, left, folder, size, _workers(size, processes, ranks), ranks)
    tell(folder, [study for study, _ in chosen], as_json)


def _lead(
    chosen: "Chosen", left: "Mapping[str, str]", folder: Path, scale: "Scale", workers: int, ranks: "Ranks"
) -> None:
    """Say what is done and what is left out, and do it."""
    from vitlab.studies.board import Board
    from vitlab.studies.conduct import open_folder

    console, say = console_and_say()
    open_folder(folder, scale)
    say(f"studies  {', '.join(study.name for study, _ in chosen)}")
    for name, why in left.items():
        say(f"without  {name}: {why}")
    _carry_out(Board(chosen, scale, folder), chosen, workers, ranks, console)


def _workers(scale: "Scale", processes: int | None, ranks: "Ranks") -> int:
    """Return how many pieces are worked on at once: by several ranks one, which they train together."""
    from vitlab.errors import SettingsError
    from vitlab.studies import team

    if ranks.world == 1:
        return team.size_for(scale, processes)
    if processes is not None:
        what = "is for pieces at once, and under torchrun all devices train one together"
        raise SettingsError("--processes", what, "leave it out, or start without torchrun")
    return 1


def _follow(chosen: "Chosen", folder: Path, ranks: "Ranks") -> None:
    """Take part in the pieces that the first rank begins, in silence."""
    from vitlab.studies.cell import silent
    from vitlab.studies.conduct import follow
    from vitlab.train.loop import Interrupted

    try:
        follow([edition for _, edition in chosen], folder, silent(ranks))
    except Interrupted as stop:
        raise SystemExit(stop.exit_code) from None


def _check_names(studies: list[str] | None, all_: bool) -> None:
    from vitlab.errors import SettingsError

    if bool(studies) == all_:
        raise SettingsError("NAME", "name studies, or give --all", "see `vitlab study list`")


def _carry_out(board: "Board", chosen: "Chosen", processes: int, ranks: "Ranks", console: "Console") -> None:
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

    several = f", each on {ranks.world} devices" if ranks.world > 1 else ""
    say(f"run      {board.out}: {board.done} of {len(board.pieces)} pieces are done, {processes} at once{several}")
    try:
        if board.done == len(board.pieces):
            return
        if processes > 1:
            team.lead(board, processes, sys.argv[1:], console, say)
        else:
            conduct([edition for _, edition in chosen], board.out, Studio(console, say, ranks), work_on)
    except Interrupted as stop:
        say("interrupted; the same command goes on where it was")
        raise SystemExit(stop.exit_code) from None
    except KeyboardInterrupt:
        say("interrupted; the same command goes on where it was")
        raise
