"""`vitlab vtab`."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from vitlab.cli import options
from vitlab.cli.columns import print_columns
from vitlab.cli.training import console_and_say, interruptible


def vtab(
    model: options.Weighted,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Names of tasks or groups with commas: natural,clevr-count. Default: all whose data are here."
        ),
    ] = None,
    tune: Annotated[
        bool,
        typer.Option("--tune", help="Choose rate and steps, the same for all tasks, by the mean on validation images."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="The folder of the runs. Default: runs/vtab-<model>.")] = None,
    image_size: options.ImageSize = None,
    steps: options.Steps = None,
    lr: Annotated[
        list[float] | None, typer.Option(min=0, help="Peak learning rate; with --tune several, each with a --lr.")
    ] = None,
    batch_size: options.BatchSize = None,
    precision: options.Precision = options.HowPrecise.AUTO,
    compile_: options.Compile = False,
    remat: options.Remat = False,
    seed: options.Seed = None,
    workers: options.Workers = None,
    device: options.Device = "auto",
    changes: options.Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is left in --out.")] = False,
    as_json: options.Json = False,
) -> None:
    """Say how well weights transfer to the 19 tasks of VTAB-1k: 1,000 images each, one setting for all, the paper's.

    Finished tasks are not run again, and tasks can be added: give the same command with --resume.
    """
    from vitlab.studies.cell import Studio
    from vitlab.studies.plan import Asked
    from vitlab.studies.vtab import choose_tasks, plan_vtab, present, run_vtab, usable
    from vitlab.studies.vtab_page import as_json as in_json
    from vitlab.studies.vtab_page import remarks, table, write_files

    asked = Asked(
        weights=model,
        image_size=options.parse_size(image_size),
        steps=steps,
        batch_size=options.parse_batch_size(batch_size),
        precision=precision.value,
        compile=compile_,
        remat=remat,
        seed=seed,
        workers=workers,
        device=device,
        changes=tuple(changes or ()),
    )
    names = [name.strip() for name in tasks.split(",")] if tasks else []
    here, missing = present(choose_tasks(names), names)
    folder = out or Path("runs") / f"vtab-{Path(model).resolve().stem}"
    here, wrong = usable(here, names, folder)
    plan = plan_vtab(asked, here[0], lr or [], tune=tune, command="vitlab " + shlex.join(sys.argv[1:]))
    console, say = console_and_say()
    tried = f", {len(plan.settings)} settings to choose from" if tune else ""
    say(f"vtab     {len(here)} of 19 tasks{tried}")
    for task, what in wrong.items():
        say(f"left out {task}: {what}")
    say(f"run      {folder}")
    with interruptible(say, "the same command with --resume goes on"):
        scored = run_vtab(plan, asked, here, folder, Studio(console, say), resume=resume, missing=missing | wrong)
    page = write_files(scored, folder)
    if as_json:
        typer.echo(json.dumps(in_json(scored), indent=2, ensure_ascii=False))
        return
    print_columns(table(scored))
    for line in remarks(scored):
        typer.echo(line)
    say(f"report   {page}")
