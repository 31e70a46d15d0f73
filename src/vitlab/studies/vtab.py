"""VTAB-1k (Zhai et al. 2019) as the paper runs it: 19 tasks of 1,000 images, one setting for all, top-1 on their test sets.

With `tune` the setting is chosen first: every task is trained on its 800 images with each, and the highest mean over the tasks of
the accuracy on their 200 validation images wins. Then each task is trained on its 1,000. Every training is an ordinary run folder,
and what is finished is not run again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import mean
from typing import cast

from vitlab import files
from vitlab.config import Settings, nearest, parse, read_json, to_json
from vitlab.data.catalog import Catalogued, data_folder, entries, place_of, require
from vitlab.data.open import open_data, refuse_shadowed
from vitlab.errors import DataError, NonFiniteError, SettingsError
from vitlab.nn.grid import Size
from vitlab.studies.cell import Outcome, Studio, carry_out, finished, keep_plan
from vitlab.studies.plan import Asked, divided_as, plan_finetune
from vitlab.studies.published import read_table
from vitlab.studies.recipe import Origin, RunSettings, find_recipe
from vitlab.train.config import TrainSettings
from vitlab.train.run import pretty

RECIPE = "vtab"
PLAN, CHOICE = "vtab.json", "choice.json"
TUNED_LRS, TUNED_LENGTHS = (0.01, 0.1), (1, 4)
"""What is tried by default: the paper says two rates and two schedules, and not which. These are those of the benchmark's own
light search (Zhai et al. 2019): 0.01 and 0.1, 2,500 steps and 10,000."""


class Setting(Settings):
    """What all tasks are trained with."""

    lr: float
    steps: int

    def __str__(self) -> str:
        return f"lr-{self.lr:g}-steps-{self.steps}"


class VtabPlan(Settings):
    """What decides the numbers of every task; tasks can be added to it as their data come. `settings` are what is chosen from."""

    weights: Origin
    image_size: Size
    train: TrainSettings
    changes: tuple[str, ...]
    settings: tuple[Setting, ...]
    command: str = ""


class Choice(Settings):
    """The setting that was chosen, and the mean accuracy on validation images of each, over `tasks`."""

    setting: Setting
    scores: Mapping[str, float]
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Scored:
    """What came out: the outcome of every task that was run, what is missing and how to get it, and how the setting was chosen."""

    plan: VtabPlan
    setting: Setting
    choice: Choice | None
    tasks: Mapping[str, Outcome]
    missing: Mapping[str, str]


def all_tasks() -> dict[str, str]:
    """Return the group of each of the 19 tasks, in the order of table 9."""
    return {row["task"]: entries()[f"vtab/{row['task']}"].group for row in table9()}


@cache
def table9() -> tuple[dict[str, str], ...]:
    """Return the paper's table 9: for each "task" its "title" there and, by the name of the model, top-1 in percent."""
    return tuple(read_table("table9"))


def choose_tasks(names: Sequence[str]) -> list[str]:
    """Return the tasks called `names`, or of the groups called so; without any, all.

    Raises:
        SettingsError: there is no such task or group.
    """
    tasks = all_tasks()
    chosen: list[str] = []
    for name in names:
        found = [task for task, group in tasks.items() if name.removeprefix("vtab/") in (task, group)]
        if not found:
            known = [*tasks, *dict.fromkeys(tasks.values())]
            raise SettingsError("--tasks", f"there is no task '{name}'", nearest(name.removeprefix("vtab/"), known))
        chosen += found
    return [task for task in tasks if task in chosen] if names else list(tasks)


def present(tasks: Sequence[str], named: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
    """Return those of `tasks` whose data are here, and for the others how to get them.

    Raises:
        DataError: the data of all of them are not here, or those of one that is `named` by itself.
    """
    root = data_folder()
    here = [task for task in tasks if place_of(f"vtab/{task}", root) is not None]
    missing: dict[str, str] = {}
    for task in tasks:
        if task not in here:
            try:
                require(f"vtab/{task}", root)
            except DataError as error:
                if task in named or f"vtab/{task}" in named:
                    raise
                missing[task] = error.remedy
    if not here:
        raise DataError(root, "has no data of VTAB-1k", "`vitlab data list vtab` says how to get them; set VITLAB_DATA")
    return here, missing


def usable(tasks: Sequence[str], named: Sequence[str], out: Path) -> tuple[list[str], dict[str, str]]:
    """Return those of `tasks` whose data are whole or that are finished in the folder `out`, and what is wrong with the others.

    So that one that cannot be used is known before others take hours.

    Raises:
        DataError: no task can be used, or one that is `named` by itself cannot.
    """
    wrong: dict[str, DataError] = {}
    for task in tasks:
        if finished(out / "tasks" / task) is None:
            try:
                _list(task)
            except DataError as error:
                if task in named or f"vtab/{task}" in named:
                    raise
                wrong[task] = error
    if len(wrong) == len(tasks):
        raise wrong[tasks[0]]
    return [task for task in tasks if task not in wrong], {task: str(error) for task, error in wrong.items()}


def _list(task: str) -> None:
    refuse_shadowed(f"vtab/{task}")
    opened = open_data(f"vtab/{task}")
    for source in (opened.train, *opened.evals.values()):
        len(source or ())  # lists it


def plan_vtab(asked: Asked, task: str, lrs: Sequence[float] = (), *, tune: bool = False, command: str = "") -> VtabPlan:
    """Return the plan of what is `asked`, as it is for any task, found with the data of `task`.

    Raises:
        RequestError: the data, weights or settings cannot be used, or contradict each other.
    """
    for name, option in {"train.lr": "--lr", "train.steps": "--steps"}.items():
        if any(change.partition("=")[0].strip() == name for change in asked.changes):
            raise SettingsError(f"--set {name}", "is the same for all tasks", f"give {option}")
    if len(lrs) > 1 and not tune:
        raise SettingsError("--lr", f"is given {len(lrs)} times", "add --tune to choose among them")
    usual = find_recipe(RECIPE).train
    first = Setting(lr=lrs[0] if lrs else usual.lr, steps=asked.steps or usual.steps)
    settings = _settings(asked, task, first)
    assert settings.weights is not None  # the recipe starts from weights
    tried = [first]
    if tune:
        rates = sorted(set(lrs)) or TUNED_LRS
        tried = [Setting(lr=lr, steps=first.steps * longer) for lr in rates for longer in TUNED_LENGTHS]
    return VtabPlan(
        weights=settings.weights,
        image_size=settings.model.image_size,
        train=settings.train,
        changes=asked.changes,
        settings=tuple(tried),
        command=command,
    )


def run_vtab(
    plan: VtabPlan,
    asked: Asked,
    tasks: Sequence[str],
    out: Path,
    studio: Studio,
    *,
    resume: bool,
    missing: Mapping[str, str] | None = None,
) -> Scored:
    """Carry out what is left of the plan for `tasks` in the folder `out`, and return what came out of all that are finished there.

    A setting that was chosen once is kept when tasks are added. `missing` says what others lack.

    Raises:
        RunFolderError: the folder holds another plan or something else, or exists and is not to be resumed.
        NonFiniteError: no setting ended with finite numbers, or a task does not with the one that is chosen.
        Interrupted: it was asked to stop; with `resume` it goes on.
    """
    plan = keep_plan(out / PLAN, plan, resume)
    choice = _chosen(plan, asked, tasks, out, studio) if plan.settings[1:] else None
    setting = choice.setting if choice else plan.settings[0]
    outcomes: dict[str, Outcome] = {}
    for number, task in enumerate(tasks, 1):
        studio.say(f"task     {number} of {len(tasks)}, {task}")
        folder = out / "tasks" / task
        outcomes[task] = finished(folder) or carry_out(
            _settings(divided_as(asked, folder), task, setting), folder, studio
        )
        studio.say(f"         test {outcomes[task].words()}")
    every = {task: outcomes.get(task) or finished(out / "tasks" / task) for task in all_tasks()}
    known = {task: outcome for task, outcome in every.items() if outcome is not None}
    return Scored(
        plan, setting, choice, known, {task: how for task, how in (missing or {}).items() if task not in known}
    )


def _settings(asked: Asked, task: str, setting: Setting) -> RunSettings:
    """Return the run that trains a task on its 1,000 images, and tests it once. The warm-up is a tenth, which is ours."""
    changes = (f"train.schedule.warmup_steps={setting.steps // 10}", *asked.changes)
    asked = replace(asked, data=f"vtab/{task}", recipe=RECIPE, lr=setting.lr, steps=setting.steps, changes=changes)
    settings = plan_finetune(asked).settings
    return settings.model_copy(update={"train": settings.train.model_copy(update={"eval_every": None})})


def _chosen(plan: VtabPlan, asked: Asked, tasks: Sequence[str], out: Path, studio: Studio) -> Choice:
    """Return the setting with the highest mean on validation images, found with `tasks` unless it was before."""
    path = out / CHOICE
    if path.exists():
        return parse(Choice, read_json(path), path)
    found: dict[str, list[Outcome]] = {str(setting): [] for setting in plan.settings}
    for number, task in enumerate(tasks, 1):
        own = Studio(studio.console, studio.say)  # decoded for this task alone
        for setting in plan.settings:
            studio.say(f"tuning   {number} of {len(tasks)}, {task}, {setting}")
            folder = out / "tuning" / str(setting) / task
            outcome = finished(folder, trial=True)
            if outcome is None:
                settings = _tuning(_settings(divided_as(asked, folder), task, setting))
                outcome = carry_out(settings, folder, own, own.given(settings), trial=True)
            found[str(setting)].append(outcome)
            studio.say(f"         val {found[str(setting)][-1].words()}")
    scores = {name: mean(0.0 if each.diverged else each.score for each in outcomes) for name, outcomes in found.items()}
    if all(each.diverged for outcomes in found.values() for each in outcomes):
        raise NonFiniteError(out, "no setting ended with finite numbers", "give lower rates: --lr, in another --out")
    best = max(plan.settings, key=lambda setting: scores[str(setting)])
    choice = Choice(setting=best, scores=scores, tasks=tuple(tasks))
    files.write_atomic(path, pretty(to_json(choice)))
    return choice


def _tuning(settings: RunSettings) -> RunSettings:
    """Return the settings of a task for its 800 images, judged on its 200."""
    whole = cast(Catalogued, settings.train_data)
    train, val = (whole.model_copy(update={"subset": subset}) for subset in ("train800", "val200"))
    return settings.model_copy(update={"train_data": train, "evals": {"val": val}})
