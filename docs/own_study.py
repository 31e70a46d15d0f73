"""Do fixed random positions do as well as learned ones? A row for table 8 that the paper has not: see docs/studies.md.

vitlab study run docs/own_study.py --out runs/miniature
"""

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn import functional

from vitlab.config import Settings, parse, to_json
from vitlab.evals.interval import OverRuns
from vitlab.models.vit import ViTSettings
from vitlab.nn.grid import Grid
from vitlab.nn.position import Learned1D, NoPosition, Place, Position, SinCosPosition
from vitlab.studies.ablation import task_of
from vitlab.studies.recipe import RunSettings
from vitlab.studies.spread import percent
from vitlab.studies.study import Edition, Finding, Results, Sheet, Study, Table
from vitlab.studies.table8 import paper
from vitlab.studies.work import Training
from vitlab.studies.world import World
from vitlab.studies.worlds import in_every_world


class RandomFourier(Settings):
    """Fixed sines and cosines of random directions, of `bandwidth` (Rahimi and Recht 2007); the class token has none."""

    type: Literal["RandomFourier"] = "RandomFourier"
    place: ClassVar[Place] = "stem"
    bandwidth: PositiveFloat = 1.0

    def build(self, grid: Grid, prefix: int, width: int) -> "RandomFourierPosition":
        """Return the module that adds them to the patches behind `prefix` class tokens."""
        return RandomFourierPosition(grid, prefix, width, self.bandwidth)


class RandomFourierPosition(SinCosPosition):
    """Adds the same rows as any fixed position, drawn instead of computed: `temperature` is the bandwidth."""

    @cached_property
    def fixed(self) -> Tensor:
        """The rows, a pure function of grid and width."""
        draw = torch.Generator().manual_seed(0)
        directions = self.temperature * torch.randn(2, self.width // 2, generator=draw, device="cpu")
        rows, columns = (torch.arange(count, device="cpu").float() for count in (self.grid.rows, self.grid.columns))
        angles = torch.cartesian_prod(rows, columns) @ directions
        return functional.pad(torch.cat([angles.sin(), angles.cos()], dim=1)[None], (0, 0, self.prefix, 0))


class OwnViT(ViTSettings):
    """A ViT that may have this kind of position too."""

    position: Annotated[Position | RandomFourier, Field(discriminator="type")] = Learned1D()


class OwnRun(RunSettings):
    """A run with such a model: what its folder holds is read again as this."""

    model: OwnViT


KINDS: Mapping[str, Position | RandomFourier] = {
    "none": NoPosition(),
    "1d": Learned1D(),
    "random": RandomFourier(),
}


def trained(world: World, kind: str, seed: int) -> Training:
    """Return the pre-training with a kind of position: where table 8 has it, the same piece of work."""
    if isinstance(position := KINDS[kind], RandomFourier):
        like = world.variant(f"position-{kind}", world.networks[world.usual], seed=seed)
        model = to_json(like.settings.model) | {"position": to_json(position)}
        return Training(like.name, parse(OwnRun, to_json(like.settings) | {"model": model}, "own_study.py"))
    model = world.networks[world.usual].model_copy(update={"position": position})
    return world.variant(f"position-{kind}-stem", model, seed=seed)


def edition(world: World) -> Edition:
    """Return the study in `world`."""
    task = task_of(world)
    grid = {
        f"{kind} {seed}": world.heads(trained(world, kind, seed), task=task) for kind in KINDS for seed in world.seeds
    }
    return Edition(world.words, grid, partial(sheet, world))


def sheet(world: World, results: Results) -> Sheet:
    """Return the table, and whether random positions are as good as learned ones: within the spread of the seeds."""
    ours = {kind: results.over([f"{kind} {seed}" for seed in world.seeds], "top1") for kind in KINDS}
    published = paper()
    rows = [["position", "top-1", "in the paper"]]
    for kind, found in ours.items():
        rows.append([kind, percent(found), f"{100 * published[kind]['stem']:.1f}" if kind in published else ""])
    return Sheet([Table("Linear few-shot accuracy", rows)], [], _finding(ours["1d"], ours["random"]))


def _finding(learned: OverRuns | None, random: OverRuns | None) -> Finding:
    if learned is None or random is None:
        return Finding(None, "Not every kind could be measured.")
    gap, spread = random.mean - learned.mean, max(learned.std or 0, random.std or 0)
    words = f"Random positions are {100 * gap:+.1f} points from learned ones, whose seeds are {100 * spread:.1f} apart."
    return Finding(abs(gap) <= spread, words)


STUDY = Study(
    name="random-positions",
    title="Random positions",
    question="Do fixed random positions do as well as learned ones?",
    found="How positions are encoded makes little difference (table 8); it did not try random ones.",
    source="our own, after table 8",
    editions=in_every_world(edition),
    minutes=2,
)
