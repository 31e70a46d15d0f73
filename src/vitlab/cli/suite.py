"""What `evaluate --suite` does: print what is measured, carry out what is left of it, report."""

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import typer


@dataclass(frozen=True)
class Asked:
    """What a person asked for of the suite."""

    model: str
    parts: str | None
    out: Path | None
    steps: int | None
    workers: int | None
    device: str
    changes: tuple[str, ...]
    resume: bool
    as_json: bool


def measure(asked: Asked) -> None:
    """Measure weights as the paper does, and write a page and a JSON file into the folder.

    Raises:
        SystemExit: with 1, a measurement failed.
    """
    from vitlab.cli.columns import print_columns
    from vitlab.cli.training import console_and_say, interruptible
    from vitlab.studies.cell import Studio
    from vitlab.studies.plan import Asked as Training
    from vitlab.studies.suite import choose_parts, run_suite
    from vitlab.studies.suite_page import as_json, lines, rows, write_files

    parts = choose_parts([name.strip() for name in asked.parts.split(",")] if asked.parts else [])
    folder = asked.out or Path("runs") / f"suite-{Path(asked.model).resolve().stem}"
    training = Training(
        weights=asked.model, steps=asked.steps, workers=asked.workers, device=asked.device, changes=asked.changes
    )
    console, say = console_and_say()
    say(f"suite    {', '.join(parts)}")
    say(f"run      {folder}")
    with interruptible(say, "the same command with --resume goes on"):
        suite = run_suite(
            training,
            parts,
            folder,
            Studio(console, say),
            resume=asked.resume,
            command="vitlab " + shlex.join(sys.argv[1:]),
            seen=lambda suite: write_files(suite, folder),
        )
    page = write_files(suite, folder)
    if asked.as_json:
        typer.echo(json.dumps(as_json(suite), indent=2, ensure_ascii=False))
    else:
        print_columns(rows(suite))
        for line in lines(suite):
            typer.echo(line)
    say(f"report   {page}")
    if any(left.failed for left in suite.left):
        raise SystemExit(1)


def refuse_options(data: str | None, given: dict[str, bool]) -> None:
    """Refuse what does not go with --suite; `given` says of each option whether it was.

    Raises:
        SettingsError: something does not.
    """
    from vitlab.errors import SettingsError

    if data is not None:
        raise SettingsError("DATA", "does not go with --suite, which names its data sets", "leave it out")
    for name in (name for name, there in given.items() if there):
        raise SettingsError(name, "does not go with --suite", "leave it out")


def refuse_alone(given: dict[str, object]) -> None:
    """Refuse options that are for --suite alone.

    Raises:
        SettingsError: one is given.
    """
    from vitlab.errors import SettingsError

    for name in (name for name, value in given.items() if value):
        raise SettingsError(name, "is for --suite", "add --suite paper, or leave it out")
