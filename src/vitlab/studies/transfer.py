"""Transfer: a network pre-trained on a set and fine-tuned on the tasks of a world, what it reached, and what that cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

from vitlab.cost.flops import cost, exaflops_of
from vitlab.evals.interval import OverRuns
from vitlab.models.classifier import AnySettings
from vitlab.models.resnet import ResNetSettings
from vitlab.nn.stem import ResNetStem
from vitlab.studies.study import Results
from vitlab.studies.work import Piece, Training
from vitlab.studies.world import Upstream, World

Family = Literal["ViT", "ResNet", "hybrid"]
FAMILIES: tuple[Family, ...] = ("ViT", "ResNet", "hybrid")
FLOPS = {"exaFLOPs": 1.0, "petaFLOPs": 1e-3, "teraFLOPs": 1e-6, "gigaFLOPs": 1e-9}
"""Units of compute, the largest first, in exaFLOPs."""


def family_of(settings: AnySettings) -> Family:
    """Return what kind of network it is; a hybrid is a ViT on the features of a ResNet."""
    if isinstance(settings, ResNetSettings):
        return "ResNet"
    return "hybrid" if isinstance(settings.stem, ResNetStem) else "ViT"


@dataclass(frozen=True)
class Transfer:
    """A network of `world` that is pre-trained on `data` and fine-tuned on every task, once for each of `seeds`.

    `length` is that of the pre-training, in times of its recipe. With `start` every fine-tuning begins at the weights of that seed;
    without, at those of its own.
    """

    world: World
    network: str
    data: Upstream = "large"
    seeds: tuple[int, ...] = (0,)
    length: float = 1.0
    start: int | None = None

    @property
    def title(self) -> str:
        """The network, and how much longer or shorter than usual it is pre-trained."""
        return self.network + ("" if self.length == 1 else f", {self.length:g} × as long")

    @property
    def name(self) -> str:
        """What tells it from others in a grid."""
        return f"{self.network} on {self.data}" + ("" if self.length == 1 else f" x{self.length:g}")

    @property
    def settings(self) -> AnySettings:
        """The network."""
        return self.world.networks[self.network]

    def pretraining(self, seed: int) -> Training:
        """Return the pre-training that the fine-tuning of `seed` begins with."""
        first = seed if self.start is None else self.start
        usual = self.world.pretrained(self.network, self.data, first)
        if self.length == 1:
            return usual
        steps = round(self.length * usual.settings.train.steps)
        return self.world.variant(self.name, self.settings, self.network, self.data, first, steps=steps)

    def grid(self) -> dict[str, Piece]:
        """Return the fine-tunings by label."""
        return {
            self._label(task, seed): self.world.finetuned(self.pretraining(seed), self.settings, task, seed)
            for task in self.world.tasks
            for seed in self.seeds
        }

    def top1(self, results: Results, task: str) -> OverRuns | None:
        """Return the accuracy on a task over those seeds that have it, None without any."""
        return results.over([self._label(task, seed) for seed in self.seeds], "test/top1")

    def average(self, results: Results) -> OverRuns | None:
        """Return the accuracy averaged over tasks, over those seeds that have them all, None without any."""
        runs = [[self._label(task, seed) for task in self.world.tasks] for seed in self.seeds]
        return results.over_means(runs, "test/top1")

    @property
    def exaflops(self) -> float:
        """What the pre-training computes, in 10¹⁸ floating-point operations, as the paper counts them."""
        settings = self.pretraining(self.seeds[0]).settings
        images = settings.train.steps * settings.train.batch_size
        return exaflops_of(macs_of(settings.model), images, 1) or 0.0

    def _label(self, task: str, seed: int) -> str:
        return f"{self.name}, {task}, seed {seed}"


class Unit(NamedTuple):
    """A unit of compute, in exaFLOPs."""

    name: str
    exaflops: float

    def shown(self, exaflops: float) -> str:
        """Return an amount of compute in this unit, for people."""
        amount = exaflops / self.exaflops
        return f"{amount:,.0f}" if amount >= 100 else f"{amount:.3g}"


def unit_for(exaflops: Sequence[float]) -> Unit:
    """Return the largest unit in which the most of `exaflops` is 1 or more."""
    fitting = (Unit(name, size) for name, size in FLOPS.items() if max(exaflops) >= size)
    return next(fitting, Unit(*list(FLOPS.items())[-1]))


def networks_of(world: World, family: Family) -> list[str]:
    """Return the networks of a family, those that cost the least first."""
    found = [name for name, settings in world.networks.items() if family_of(settings) == family]
    return sorted(found, key=lambda name: macs_of(world.networks[name]))


def macs_of(settings: AnySettings) -> int:
    """Return the multiply-accumulates of a network for an image, counted once: a page asks for them many times."""
    return _macs_of(type(settings), settings.model_dump_json())


@cache
def _macs_of(kind: type[AnySettings], settings: str) -> int:
    return cost(kind.model_validate_json(settings)).macs
