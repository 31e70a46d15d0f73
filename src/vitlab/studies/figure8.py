"""Figure 8 (appendix D.2): a small ViT scaled in depth, width, MLP width, patch size, and in all of them."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from vitlab.cost.flops import cost
from vitlab.evals.interval import OverRuns
from vitlab.inspection.charts import Point, against
from vitlab.nn.grid import as_size
from vitlab.nn.patches import Patches
from vitlab.studies.ablation import exaflops, task_of
from vitlab.studies.findings import Figure
from vitlab.studies.spread import percent, typical_deviation
from vitlab.studies.study import Edition, Finding, Results, Scale, Sheet, Study, Table
from vitlab.studies.work import Piece, Training
from vitlab.studies.world import World
from vitlab.studies.worlds import in_every_world

Dimensions = Mapping[str, int]
BASES: Mapping[Scale, Dimensions] = {
    "miniature": {"depth": 2, "width": 32, "num_heads": 2, "mlp_dim": 64, "patch": 8},
    "small": {"depth": 4, "width": 64, "num_heads": 2, "mlp_dim": 128, "patch": 8},
    "paper": {"depth": 8, "width": 1024, "num_heads": 16, "mlp_dim": 2048, "patch": 32},
}
"""The network that is scaled."""
AXES: Mapping[str, tuple[Mapping[str, float], ...]] = {
    "depth": tuple({"depth": factor} for factor in (2, 4, 8)),
    "width": tuple({"width": factor, "num_heads": factor} for factor in (2, 3)),
    "MLP width": tuple({"mlp_dim": factor} for factor in (4, 8)),
    "patch size": tuple({"patch": factor} for factor in (1 / 2, 1 / 4)),
    "all": ({"depth": 2, "width": 2, "num_heads": 2, "mlp_dim": 2, "patch": 1 / 2},),
}
"""By how much the dimensions grow along each axis. Of its own the paper says no more than that 64 layers were the most."""
BASE = "base"


def scaled(base: Dimensions, factors: Mapping[str, float]) -> Dimensions:
    """Return dimensions multiplied by their factors, 1 by default."""
    return {name: round(value * factors.get(name, 1)) for name, value in base.items()}


def sizes(world: World) -> dict[str, tuple[Dimensions, ...]]:
    """Return what is trained along each axis, from the smallest, without the base, which has a row of its own."""
    base = BASES[world.scale]
    along = {axis: tuple(scaled(base, factors) for factors in steps) for axis, steps in AXES.items()}
    return {BASE: (base,), **along}


def training(world: World, dimensions: Dimensions, seed: int = 0) -> Training:
    """Return the pre-training of a network of these dimensions."""
    changes: dict[str, Any] = {name: value for name, value in dimensions.items() if name != "patch"}
    stem = Patches(patch_size=as_size(dimensions["patch"]))
    model = world.networks[world.usual].model_copy(update=changes | {"stem": stem})
    return world.variant("scaled " + "-".join(map(str, dimensions.values())), model, seed=seed)


def edition(world: World) -> Edition:
    """Return the study in `world`: every size is pre-trained and judged by linear heads on every task."""
    grid: dict[str, Piece] = {
        _label(dimensions, task, seed): world.heads(training(world, dimensions, seed), task=task)
        for axis in sizes(world).values()
        for dimensions in axis
        for seed in world.seeds
        for task in world.tasks
    }
    return Edition(world.words, grid, partial(sheet, world))


def _label(dimensions: Dimensions, task: str, seed: int) -> str:
    return f"{'-'.join(map(str, dimensions.values()))}, {task}, seed {seed}"


def sheet(world: World, results: Results) -> Sheet:
    """Return accuracy by compute along each axis, and whether depth helps most, width least and smaller patches too."""
    one, average = f"top-1 on {task_of(world)}", "average over tasks"
    heading = ["scaled", "compute", "parameters", "depth", "width", "MLP width", "patch", one, average]
    rows = [
        [
            axis,
            *_size(world, dimensions),
            *(percent(_top1(world, results, dimensions, tasks)) for tasks in ((task_of(world),), (*world.tasks,))),
        ]
        for axis, each in sizes(world).items()
        for dimensions in each
    ]
    note = (
        f"Top-1 in percent of linear heads on {world.shots} images a class, mean and sample deviation over seeds. "
        "Compute is that of the base's pre-training. The paper draws its numbers without stating them."
    )
    panels = {one: _points(world, results, (task_of(world),)), average: _points(world, results, (*world.tasks,))}
    drawing = against(panels, "relative compute", "top-1 in %", log_x=True)
    figure = Figure(
        "Accuracy against compute", "Each line begins at the base and scales one of its dimensions.", drawing
    )
    figures = [figure] if all(panels.values()) else []
    return Sheet([Table("Linear few-shot accuracy", [heading, *rows], note)], figures, _finding(world, results))


def _size(world: World, dimensions: Dimensions) -> list[str]:
    parameters = f"{cost(training(world, dimensions).settings.model).parameters:,}"
    shown = (str(dimensions[name]) for name in ("depth", "width", "mlp_dim", "patch"))
    return [f"{_compute(world, dimensions):.2g} ×", parameters, *shown]


def _compute(world: World, dimensions: Dimensions) -> float:
    """Return the compute of a pre-training, beside that of the base."""
    return exaflops(training(world, dimensions)) / exaflops(training(world, BASES[world.scale]))


def _points(world: World, results: Results, tasks: Sequence[str]) -> dict[str, list[Point]]:
    """Return the lines of a panel, each from the base."""
    along = sizes(world)
    (base,) = along.pop(BASE)
    points = {
        axis: [
            Point(_compute(world, dimensions), 100 * top1.mean, top1.std and 100 * top1.std)
            for dimensions in (base, *each)
            if (top1 := _top1(world, results, dimensions, tasks)) is not None
        ]
        for axis, each in along.items()
    }
    return {axis: each for axis, each in points.items() if each}


def _top1(world: World, results: Results, dimensions: Dimensions, tasks: Sequence[str]) -> OverRuns | None:
    """Return the mean over tasks, over those seeds that have them all; None without any."""
    return results.over_means([[_label(dimensions, task, seed) for task in tasks] for seed in world.seeds], "top1")


def _finding(world: World, results: Results) -> Finding:
    """Compare what each axis gains for a doubling of compute, up to the largest that was made."""
    along, tasks = sizes(world), tuple(world.tasks)
    (base,) = along.pop(BASE)
    start = _top1(world, results, base, tasks)
    ends = {axis: _top1(world, results, each[-1], tasks) for axis, each in along.items()}
    known = [end for end in ends.values() if end is not None]
    if start is None or len(known) < len(ends):
        return Finding(None, "Not every size could be measured.")
    noise = typical_deviation([start, *known])
    doublings = {axis: math.log2(_compute(world, each[-1])) for axis, each in along.items()}
    gains = {axis: (end.mean - start.mean) / doublings[axis] for axis, end in ends.items() if end is not None}
    alone = {axis: gain for axis, gain in gains.items() if axis != "all"}
    agrees = (
        max(alone, key=alone.__getitem__) == "depth"
        and min(alone, key=alone.__getitem__) == "width"
        and min(gains["patch size"] * doublings["patch size"], gains["all"] * doublings["all"]) > noise
    )
    ranked = sorted(gains, key=gains.__getitem__, reverse=True)
    listed = ", ".join(f"{axis} {100 * gains[axis]:+.1f}" for axis in ranked)
    words = (
        f"Points of average top-1 gained for a doubling of compute: {listed}. "
        f"Networks deviate by {100 * noise:.1f} over seeds."
    )
    return Finding(agrees, words)


STUDY = Study(
    name="figure8",
    title="Scaling one dimension at a time",
    question="Given more compute, should a ViT become deeper, wider, or see smaller patches?",
    found="Depth helps most, with diminishing returns after 16 layers; width changes least; smaller patches help, without more "
    "parameters; all together help robustly.",
    source="Figure 8, appendix D.2",
    editions=in_every_world(edition),
    minutes=4,
)
