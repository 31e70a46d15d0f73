"""Table 7 (appendix D.1): ResNets pre-trained with SGD and with Adam."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from vitlab.studies.published import read_table
from vitlab.studies.study import Edition, Finding, Results, Scale, Sheet, Study, Table
from vitlab.studies.work import Piece, Training
from vitlab.studies.world import World
from vitlab.studies.worlds import in_every_world
from vitlab.train.optimizer import SGD

NETWORKS: Mapping[Scale, tuple[str, str]] = {
    "miniature": ("R8x0.5", "R14x0.5"),
    "small": ("R14x1", "R26x1"),
    "paper": ("BiT-R50x1", "BiT-R152x2"),
}
"""A ResNet and a larger one."""
SGD_RATES: Mapping[Scale, tuple[float, float]] = {"miniature": (0.3, 1.0), "small": (0.1, 0.3), "paper": (0.48, 0.16)}
"""The paper's is that of BiT, 0.03 for 256 images; short trainings need more: the miniature learns more by 0.3 than by 0.1."""
ADAM_FACTORS = (1.0, 3.0)
"""Adam's rates, in that of the recipe; the miniature learns less by a third of it."""
OPTIMIZERS = ("Adam", "SGD")
METRICS = ("test/top1", "test/count")


def edition(world: World) -> Edition:
    """Return the study in `world`: both ResNets, pre-trained by either optimizer at two rates, are fine-tuned on every task."""
    grid: dict[str, Piece] = {}
    for network in NETWORKS[world.scale]:
        for optimizer in OPTIMIZERS:
            for rate in (0, 1):
                start = _pretraining(world, network, optimizer, rate)
                for task in world.tasks:
                    tuned = world.finetuned(start, world.networks[network], task)
                    grid[_label(network, optimizer, rate, task)] = tuned
    return Edition(world.words, grid, partial(sheet, world))


def _pretraining(world: World, network: str, optimizer: str, rate: int) -> Training:
    usual = world.pretrained(network)
    if optimizer == "Adam" and rate == 0:
        return usual
    lr = SGD_RATES[world.scale][rate] if optimizer == "SGD" else ADAM_FACTORS[rate] * usual.settings.train.lr
    chosen = SGD(weight_decay=1e-4) if optimizer == "SGD" else usual.settings.train.optimizer
    name = f"{network} by {optimizer} at {lr:.3g}"
    return world.variant(name, world.networks[network], network, lr=lr, optimizer=chosen)


def _label(network: str, optimizer: str, rate: int, task: str) -> str:
    return f"{network}, {optimizer}, rate {rate}, {task}"


@dataclass(frozen=True)
class Arm:
    """A network pre-trained by an optimizer at one rate: top-1 by task, and of how many images."""

    top1: Mapping[str, float]
    images: Mapping[str, float]
    lr: float

    @property
    def average(self) -> float:
        """The mean over tasks."""
        return sum(self.top1.values()) / len(self.top1)

    @property
    def chance(self) -> float:
        """The standard error of the average: each image of a task is a draw."""
        errors = (math.sqrt(top1 * (1 - top1) / self.images[task]) for task, top1 in self.top1.items())
        return math.hypot(*errors) / len(self.top1)


def _best(world: World, results: Results, network: str, optimizer: str) -> Arm | None:
    """Return the rate with the better average over tasks, None before all of both is known."""
    arms: list[Arm] = []
    for rate in (0, 1):
        found = {task: results[_label(network, optimizer, rate, task)] for task in world.tasks}
        known = {task: result for task, result in found.items() if result is not None}
        if len(known) < len(found):
            return None
        top1, images = ({task: float(result[name]) for task, result in known.items()} for name in METRICS)
        arms.append(Arm(top1, images, _pretraining(world, network, optimizer, rate).settings.train.lr))
    return max(arms, key=lambda arm: arm.average)


def paper() -> dict[str, dict[str, float]]:
    """Return the table of the paper in percent, by data set and column, as "ResNet50 Adam"."""
    rows = read_table("table7")
    return {row.pop("dataset"): {column: float(value) for column, value in row.items()} for row in rows}


def sheet(world: World, results: Results) -> Sheet:
    """Return accuracy by task and optimizer, the paper's table, and whether Adam is the better."""
    arms = {
        (network, optimizer): _best(world, results, network, optimizer)
        for network in NETWORKS[world.scale]
        for optimizer in OPTIMIZERS
    }
    heading = ["task", *(f"{network} {optimizer}" for network, optimizer in arms)]
    rows = [[task, *(_percent(arm and arm.top1[task]) for arm in arms.values())] for task in world.tasks]
    rows.append(["average", *(_percent(arm and arm.average) for arm in arms.values())])
    rows.append(["rate of pre-training", *("" if arm is None else f"{arm.lr:.2g}" for arm in arms.values())])
    note = "Top-1 in percent after fine-tuning, for either optimizer at the better of two rates of pre-training; one run each."
    published = paper()
    columns = list(published["Average"])
    theirs = [
        ["data set", *columns],
        *([name, *(f"{row[column]:.2f}" for column in columns)] for name, row in published.items()),
    ]
    tables = [
        Table("Accuracy by the optimizer of pre-training", [heading, *rows], note),
        Table("The paper's table 7", theirs, "Pre-trained on JFT-300M; SGD with the settings of BiT."),
    ]
    return Sheet(tables, [], _finding(world, arms))


def _finding(world: World, arms: Mapping[tuple[str, str], Arm | None]) -> Finding:
    """Adam is better on average, by more than such a difference deviates by chance where the test images are others."""
    gains: list[float] = []
    words: list[str] = []
    for network in NETWORKS[world.scale]:
        adam, sgd = (arms[network, optimizer] for optimizer in OPTIMIZERS)
        if adam is None or sgd is None:
            return Finding(None, "Not every training could be measured.")
        gains.append(adam.average - sgd.average)
        better = sum(adam.top1[task] > sgd.top1[task] for task in world.tasks)
        words.append(f"{network} {100 * gains[-1]:+.1f} points, better on {better} of {len(world.tasks)} tasks")
    chance = math.hypot(*(arm.chance for arm in arms.values() if arm is not None)) / len(gains)
    mean = sum(gains) / len(gains)
    told = f"Adam's average less SGD's: {'; '.join(words)}. The mean of both deviates by {100 * chance:.1f} by chance."
    return Finding(min(gains) > 0 if abs(mean) > chance else None, told)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


STUDY = Study(
    name="table7",
    title="SGD and Adam for ResNets",
    question="Are ResNets pre-trained better by SGD, as usual, or by Adam?",
    found="Adam is better on most data sets and on average, for a small and a large ResNet, so the paper's ResNets have it.",
    source="Table 7, appendix D.1",
    editions=in_every_world(edition),
    minutes=3,
)
