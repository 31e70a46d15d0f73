"""What `finetune --protocol` does: plan, print the plan, carry out what is left of it, report."""

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitlab.studies.plan import Asked
    from vitlab.studies.protocol import Protocol

SEEDS = 3
"""Table 2: mean and deviation of three fine-tunings."""


def only_rate(lrs: Sequence[float] | None, seeds: int | None) -> float | None:
    """Return the one rate of a run without a protocol, None where that is left to the recipe.

    Raises:
        SettingsError: there are several, or a number of seeds.
    """
    from vitlab.errors import SettingsError

    if lrs and len(lrs) > 1:
        raise SettingsError("--lr", f"is given {len(lrs)} times", "add --protocol paper to choose among them")
    if seeds is not None:
        raise SettingsError("--seeds", "is for --protocol paper", "add that, or give --seed")
    return lrs[0] if lrs else None


def transfer(asked: "Asked", lrs: Sequence[float], seeds: int | None, out: Path | None, resume: bool) -> None:
    """Transfer weights by the paper's protocol into the folder `out`; with `resume`, go on with the one there.

    As with a run, data and options may then be left out, and with data it is started where there is none yet.
    """
    from vitlab.cli.training import console_and_say, interruptible
    from vitlab.studies.cell import Studio
    from vitlab.studies.protocol import read_protocol, run_protocol
    from vitlab.studies.protocol_page import lines, write_files

    console, say = console_and_say()
    if resume and asked.data is None:
        _refuse_others(asked, lrs, seeds, out)
        folder = out or Path()
        protocol = read_protocol(folder)
    else:
        folder, protocol = _planned(asked, lrs, seeds or SEEDS, out, say)
    with interruptible(say, f"continue with: vitlab finetune --resume --out {shlex.quote(str(folder))}"):
        found = run_protocol(protocol, folder, Studio(console, say), resume=resume)
    for line in lines(found):
        say(line)
    say(f"report   {write_files(found, folder)}")


def refuse_processes(processes: int | None, override: bool) -> None:
    """Refuse what a protocol has no use for.

    Raises:
        SettingsError: it is for one process, and its plan does not change.
    """
    from vitlab.errors import SettingsError

    if (processes or 1) > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingsError("--processes", "does not go with --protocol", "leave it out: one process, one device")
    if override:
        raise SettingsError("--override-resume", "does not go with --protocol", "begin another in another --out")


def _refuse_others(asked: "Asked", lrs: Sequence[float], seeds: int | None, out: Path | None) -> None:
    from vitlab.errors import SettingsError
    from vitlab.studies.plan import Asked

    if out is None:
        raise SettingsError("--resume", "needs the folder to continue in", "add --out DIR")
    if asked != Asked() or lrs or seeds:
        what = "continues a protocol as it was begun"
        raise SettingsError("--resume", what, "leave the other options out, or give DATA too")


def _planned(
    asked: "Asked", lrs: Sequence[float], seeds: int, out: Path | None, say: Callable[[str], None]
) -> "tuple[Path, Protocol]":
    """Return the folder and the plan, after printing it."""
    from vitlab.cli.training import say_plan
    from vitlab.studies.protocol import plan_protocol

    planned, protocol = plan_protocol(asked, lrs, seeds, "vitlab " + shlex.join(sys.argv[1:]))
    settings = protocol.settings
    name = f"protocol-{settings.recipe.replace('/', '-')}-{Path(asked.data or '').resolve().name}"
    folder = out or Path("runs") / name
    tested = {name: source for name, source in planned.evals.items() if name in settings.evals}
    say_plan(replace(planned, settings=settings, evals=tested), folder, 1, say)
    names = list(protocol.candidates)
    trials = f"{len(names)} trials ({', '.join(names)}) judged on {protocol.share:.0%} of every class, held out; then "
    runs = "1 run" if seeds == 1 else f"{seeds} runs"
    say(f"protocol {trials if len(names) > 1 else ''}{runs} on all training images, each tested once")
    return folder, protocol
