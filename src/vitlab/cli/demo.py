"""`vitlab demo`."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Where runs and page go; an interrupted demo goes on there.")] = Path(
        "runs/demo"
    ),
    quick: Annotated[
        bool, typer.Option("--quick", help="Seconds instead of minutes: only shows that all works.")
    ] = False,
) -> None:
    """Tell the paper's story in three minutes on a laptop, without a network.

    Pre-trains a small ViT on generated fractals, fine-tunes it on real digits at a higher resolution, trains the same model
    from scratch, fits linear few-shot heads, and writes one page with a table and figures.
    """
    from vitlab.cli.training import console_and_say, interruptible
    from vitlab.studies.miniature import FULL, QUICK, run_miniature

    console, say = console_and_say()
    with interruptible(say, "vitlab demo goes on where it stopped"):
        run_miniature(QUICK if quick else FULL, out / "quick" if quick else out, console, say)
