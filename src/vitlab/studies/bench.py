"""Bench: VTAB's three groups of tasks, each learned from few images; VTAB-1k itself at the paper's scale, small ones elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from vitlab.data.source import Source
from vitlab.evals.interval import OverRuns
from vitlab.studies.pictures import STRUCTURED, structured
from vitlab.studies.recipe import find_recipe
from vitlab.studies.study import Results, Scale
from vitlab.studies.vtab import RECIPE, all_tasks, table9
from vitlab.studies.work import Piece, Training
from vitlab.studies.world import Upstream, World, measured_heads
from vitlab.studies.world_miniature import TASKS
from vitlab.studies.world_paper import named_task, run_settings

Group = Literal["natural", "specialized", "structured"]
GROUPS: tuple[Group, ...] = ("natural", "specialized", "structured")
IMAGES = 100
"""Of a task that are learned from, where it is not VTAB-1k; as many of every class."""
UNSEEN = "new fractals"


class Entry(NamedTuple):
    """What is benched: a network, and what it was pre-trained on."""

    network: str
    data: Upstream

    def title(self, world: World) -> str:
        """Return it for people."""
        return f"{self.network}, {world.titles[self.data]}"


class Contest(NamedTuple):
    """Who is compared: a ViT with a ResNet, as in figure 2, and a ViT after a large and a medium set, as in table 9."""

    vit: Entry
    resnet: Entry
    large: Entry
    medium: Entry

    def entries(self) -> list[Entry]:
        """Return all, each once, ViTs first."""
        return list(dict.fromkeys([self.vit, self.large, self.medium, self.resnet]))


CONTESTS: Mapping[Scale, Contest] = {
    "miniature": Contest(
        Entry("Micro/4", "large"), Entry("R8x1", "large"), Entry("Micro/4", "large"), Entry("Micro/4", "medium")
    ),
    "small": Contest(Entry("Ti/4", "large"), Entry("R14x2", "large"), Entry("Ti/4", "large"), Entry("Ti/4", "medium")),
    "paper": Contest(
        Entry("H/14", "large"), Entry("BiT-R200x3", "large"), Entry("L/16", "large"), Entry("L/16", "medium")
    ),
}
"""The paper's figure 2 has BiT-R152x4, of which table 3 says no recipe; here it is the largest ResNet of table 6."""


def tasks_of(world: World) -> Mapping[str, Group]:
    """Return the group of every task."""
    if world.scale == "paper":
        return {task: next(known for known in GROUPS if known == group) for task, group in all_tasks().items()}
    natural: dict[str, Group] = {task: "natural" for task in world.tasks if task != UNSEEN}
    return {**natural, UNSEEN: "specialized", **dict.fromkeys(STRUCTURED, "structured")}


def titles_of(world: World) -> Mapping[str, str]:
    """Return what the tasks are called for people."""
    if world.scale == "paper":
        return {row["task"]: row["title"] for row in table9()}
    return {task: task for task in tasks_of(world)}


def bench(world: World) -> dict[str, Piece]:
    """Return every task for every entry and seed, by label."""
    return {
        _label(entry, task, seed): _piece(world, entry, task, seed)
        for entry in CONTESTS[world.scale].entries()
        for task in tasks_of(world)
        for seed in world.seeds
    }


def scores(world: World, results: Results, entry: Entry, tasks: Sequence[str]) -> OverRuns | None:
    """Return the mean over `tasks` of an entry's accuracy, over those seeds that have all of them; None without any."""
    metric = "test/top1" if world.scale == "paper" else "top1"
    return results.over_means([[_label(entry, task, seed) for task in tasks] for seed in world.seeds], metric)


def by_group(world: World, results: Results, entry: Entry) -> dict[str, OverRuns | None]:
    """Return the mean of an entry over all tasks, as "all", and over those of each group."""
    tasks = tasks_of(world)
    members = {"all": list(tasks)} | {group: [task for task in tasks if tasks[task] == group] for group in GROUPS}
    return {group: scores(world, results, entry, found) for group, found in members.items()}


def _piece(world: World, entry: Entry, task: str, seed: int) -> Piece:
    start = world.pretrained(entry.network, entry.data, seed)
    if world.scale == "paper":
        return _finetuned(world, start, entry, task)
    train, test = _sides(world, task)
    return measured_heads(start, task, train, test, IMAGES // len(train.classes))


def _sides(world: World, task: str) -> tuple[Source, Source]:
    if task in STRUCTURED:
        return structured(task, "train"), structured(task, "test")
    given = world.tasks[task]() if task in world.tasks else TASKS[UNSEEN]()
    return given.train, given.test


def _finetuned(world: World, start: Training, entry: Entry, task: str) -> Training:
    """Return a task of VTAB-1k as the paper runs it, the same for all: see `vtab`."""
    given, recipe, model = named_task(f"vtab/{task}"), find_recipe(RECIPE, "finetune"), world.networks[entry.network]
    changes = {"num_classes": len(given.train.classes), "image_size": recipe.size_for(model)}
    settings = run_settings(recipe, model.model_copy(update=changes), given.train, {"test": given.test})
    return Training(f"vtab-{task}-from-{start.name}", settings, start)


def _label(entry: Entry, task: str, seed: int) -> str:
    return f"{entry.network} on {entry.data}, {task}, seed {seed}"
