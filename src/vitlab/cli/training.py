"""What `finetune` and `pretrain` do alike: plan, print the plan, start or resume, report."""

import shlex
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

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
        raise KeyboardInterrupt from None


def train(plan: "Callable[[Asked], Plan]", asked: "Asked | None", out: Path | None, resume: bool) -> None:
    """Carry out the run that `asked` plans, or the one in `out` when it is None and `resume` is set."""
    from vitlab.errors import SettingsError
    from vitlab.studies import run
    from vitlab.train.progress import Terminal

    console, say = console_and_say()
    if asked is None and not resume:
        raise SettingsError("DATA", "is missing", "give a folder of images, or 'digits' to try it out")
    if resume and out is None:
        raise SettingsError("--resume", "needs the run to continue", "add --out RUN")
    planned = plan(asked) if asked is not None else None
    differences = planned.differences if planned else []
    if planned is not None:
        folder = out or Path("runs") / f"{planned.settings.recipe}-{Path(asked.data).resolve().name}"  # pyright: ignore
        _say_plan(planned, folder, say)
    else:
        folder = out or Path()
    watcher = Terminal(console)
    with interruptible(say, f"continue with: vitlab {sys.argv[1]} --resume --out {shlex.quote(str(folder))}"):
        if resume:
            result = run.resume(folder, watcher, say, asked=planned.settings if planned else None)
        else:
            assert planned is not None
            result = run.start(planned.settings, folder, watcher, say)
    _finish(result, differences, say)


def _say_plan(planned: "Plan", folder: Path, say: Callable[[str], None]) -> None:
    model, training = planned.settings.model, planned.settings.train
    pieces = f" in {training.pieces} pieces of {training.micro_batch_size}" if training.pieces > 1 else ""
    fresh = "" if planned.settings.weights else ", from fresh weights: no --weights given"
    say(f"recipe   {planned.settings.recipe}{fresh}")
    for line in planned.differences:
        say(f"         changed {line}")
    say(f"data     {planned.train}: {len(planned.train):,} images, {len(planned.train.classes)} classes")
    for name, source in planned.evals.items():
        say(f"{name:8} {source}: {len(source):,} images")
    say(f"model    width {model.width}, depth {model.depth}, patch {model.stem.patch_size}, image {model.image_size}")
    say(
        f"training {training.steps} steps of {training.batch_size} images{pieces}, {training.optimizer.type}, rate {training.lr}"
    )
    say(f"device   {planned.settings.device}")
    say(f"run      {folder}")


def _finish(result: "RunResult", differences: list[str], say: Callable[[str], None]) -> None:
    """Write the report and say what came out and where it is."""
    from vitlab.evals.classify import wilson_interval
    from vitlab.studies.report import Evaluation, write_report

    evaluation = None
    for name, predictions in result.predictions.items():
        evaluation = evaluation or Evaluation(name, result.sources[name], predictions)
        low, high = wilson_interval(predictions.top(1), len(predictions.labels))
        say(
            f"{name}: top-1 {100 * predictions.top(1):.1f} % on {len(predictions.labels):,} images "
            f"(95 % interval {100 * low:.1f}–{100 * high:.1f}), top-5 {100 * predictions.top(5):.1f} %"
        )
    if not result.predictions:
        return
    command = "vitlab " + shlex.join(sys.argv[1:])
    page = write_report(result.path, result.model, evaluation, differences, command)
    say(f"model    {result.path / 'model.safetensors'}")
    say(f"report   {page}")
