"""What `finetune` and `pretrain` do alike: plan, print the plan, start or resume, report."""

import os
import shlex
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from vitlab.ranks import Ranks
    from vitlab.studies.plan import Asked, Plan
    from vitlab.studies.run import RunResult


def console_and_say() -> "tuple[Console, Callable[[str], None]]":
    """Return the console on standard error and a function that prints a line on it as it is."""
    from rich.console import Console

    console = Console(stderr=True, soft_wrap=True)
    return console, lambda line: console.print(line, highlight=False, markup=False)


@contextmanager
def interruptible(say: Callable[[str], None], remedy: str) -> Generator[None]:
    """Say how to go on when the work inside is interrupted, and leave with the exit code for it."""
    from vitlab.train.loop import Interrupted

    try:
        yield
    except Interrupted as stop:
        say(f"interrupted at step {stop.step}; {remedy}")
        raise SystemExit(stop.exit_code) from None


def train(
    plan: "Callable[[Asked], Plan]",
    asked: "Asked",
    out: Path | None,
    resume: bool,
    processes: int | None = None,
    override: bool = False,
) -> None:
    """Carry out the run that `asked` plans; with `resume`, continue the one in `out`, as it was started if no data is named.

    With data, `resume` starts the run where there is none yet: so that a scheduler may give the same command again and again.

    With several `processes` this one only launches them; each comes here too, knowing its rank from the environment, as it does
    under torchrun.
    """
    if processes and processes > 1 and "WORLD_SIZE" not in os.environ:
        from vitlab.train.launch import launch

        raise SystemExit(launch(processes, sys.argv[1:]))
    from vitlab.ranks import joined

    with joined() as ranks:
        if ranks.first:
            _lead(plan, asked, out, resume, ranks, override)
        else:
            _follow(ranks)


def _follow(ranks: "Ranks") -> None:
    """Take part in the run that the first rank has planned."""
    from vitlab.config import parse
    from vitlab.studies import run
    from vitlab.studies.recipe import RunSettings
    from vitlab.train.loop import Interrupted
    from vitlab.train.watcher import Quiet

    def nothing(_: str) -> None:
        """Leave it to the first rank to say."""

    folder, resume, override, settings = ranks.tell()
    planned = parse(RunSettings, settings, "the settings of rank 0") if settings else None
    try:
        if resume:
            run.resume(Path(folder), Quiet(), nothing, asked=planned, ranks=ranks, override=override)
        else:
            assert planned is not None  # the first rank makes a plan for every start
            run.start(planned, Path(folder), Quiet(), nothing, ranks=ranks)
    except Interrupted as stop:
        raise SystemExit(stop.exit_code) from None


def _lead(
    plan: "Callable[[Asked], Plan]", asked: "Asked", out: Path | None, resume: bool, ranks: "Ranks", override: bool
) -> None:
    """Plan the run for all ranks, take part in it, and say what came out."""
    from vitlab.config import to_json
    from vitlab.errors import SettingsError
    from vitlab.studies import run
    from vitlab.studies.plan import Asked, divided_as
    from vitlab.train.progress import Terminal
    from vitlab.train.run import is_run

    console, say = console_and_say()
    if resume and out is None:
        raise SettingsError("--resume", "needs the run to continue", "add --out RUN")
    if resume and asked.data is None and asked != Asked():
        raise SettingsError(
            "--resume", "continues a run as it was started", "leave the other options out, or give DATA too"
        )
    asked = replace(divided_as(asked, out) if resume and out else asked, world=ranks.world)
    planned = None if resume and asked.data is None else plan(asked)
    if planned is None or out is not None:
        folder = out or Path()
    else:
        recipe = planned.settings.recipe.replace("/", "-")
        folder = Path("runs") / f"{recipe}-{Path(asked.data or '').resolve().name}"
    if planned is not None:
        say_plan(planned, folder, ranks.world, say)
    if resume and planned is not None and not is_run(folder):
        say("resume   nothing there yet: the run starts")
        resume = False
    ranks.tell([str(folder.absolute()), resume, override, to_json(planned.settings) if planned else None])
    watcher = Terminal(console)
    with interruptible(say, f"continue with: vitlab {sys.argv[1]} --resume --out {shlex.quote(str(folder))}"):
        if resume:
            result = run.resume(
                folder, watcher, say, asked=planned.settings if planned else None, ranks=ranks, override=override
            )
        else:
            assert planned is not None  # without --resume there is a plan, or an error
            result = run.start(planned.settings, folder, watcher, say, ranks=ranks)
    _finish(result, planned.differences if planned else [], say)


def say_plan(planned: "Plan", folder: Path, world: int, say: Callable[[str], None]) -> None:
    """Say what will be trained on what, how long and with how much memory, by `world` processes."""
    from vitlab.studies.duration import time_line
    from vitlab.studies.resources import memory_lines

    model, training = planned.settings.model, planned.settings.train
    pieces = f" in {training.pieces} pieces of {training.micro_batch_size}" if training.pieces > 1 else ""
    fresh = "" if planned.settings.weights else ", from fresh weights: no --weights given"
    say(f"recipe   {planned.settings.recipe}{fresh}")
    for line in planned.differences:
        say(f"         changed {line}")
    labels = planned.train.labels
    several = f", up to {labels.shape[1]} labels an image: loss {training.objective.type}" if labels.ndim == 2 else ""
    say(f"data     {planned.train}: {len(planned.train):,} images, {len(planned.train.classes)} classes{several}")
    for name, source in planned.evals.items():
        say(f"{name:8} {source}: {len(source):,} images")
    say(f"model    {model.describe()}")
    steps = "1 step" if training.steps == 1 else f"{training.steps:,} steps"
    say(f"training {steps} of {training.batch_size} images{pieces}, {training.optimizer.type}, rate {training.lr}")
    say(f"device   {planned.settings.device}")
    for index, line in enumerate(memory_lines(planned.settings)):
        say(f"{'' if index else 'memory':8} {line}")
    takes = time_line(planned.settings, world, sum(map(len, planned.evals.values())))
    if takes:
        say(f"time     {takes}")
    for line in planned.advice:
        say(f"advice   {line}")
    say(f"run      {folder}")


def _finish(result: "RunResult", differences: list[str], say: Callable[[str], None]) -> None:
    """Write the report and say what came out and where it is."""
    from vitlab.studies.findings import Evaluation
    from vitlab.studies.report import write_report

    evaluation = None
    for name, predictions in result.predictions.items():
        evaluation = evaluation or Evaluation(name, result.sources[name], predictions, result.model.image_spec.limits)
        say(f"{name}: {predictions.summary()}")
    if not result.sources:
        return  # it was finished before
    for name in result.sources if not result.predictions else ():
        say(f"{name}: loss {result.metrics[f'{name}/loss']:.3f}")
    command = "vitlab " + shlex.join(sys.argv[1:])
    page = write_report(result.path, result.model, evaluation, differences, command)
    say(f"model    {result.path / 'model.safetensors'}")
    say(f"report   {page}")
