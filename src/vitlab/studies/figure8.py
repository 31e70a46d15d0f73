"""Figure 8 (appendix D.2): a small ViT scaled in depth, width, MLP width, patch size, and in all of them."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from vitlab.cost.flops import cost
from vitlab.evals.interval import OverRuns, over_runs
from vitlab.inspection.charts import Point, against
from vitlab.models.vit import ViTSettings
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


def trainings(world: World) -> dict[str, tuple[Training, ...]]:
    """Return the pre-trainings along each axis, from the smallest, without the base, which has a row of its own."""
    base = BASES[world.scale]
    along = {axis: [scaled(base, factors) for factors in steps] for axis, steps in AXES.items()}
    return {
        axis: tuple(_training(world, dimensions) for dimensions in each)
        for axis, each in {BASE: [base], **along}.items()
    }


def _training(world: World, dimensions: Dimensions) -> Training:
    changes: dict[str, Any] = {name: value for name, value in dimensions.items() if name != "patch"}
    stem = Patches(patch_size=as_size(dimensions["patch"]))
    model = world.networks[world.usual].model_copy(update=changes | {"stem": stem})
    return world.variant("scaled " + "-".join(map(str, dimensions.values())), model)


def edition(world: World) -> Edition:
    """Return the study in `world`: every size is pre-trained once and judged by linear heads on every task."""
    grid: dict[str, Piece] = {
        _label(training, task): world.heads(training, task=task)
        for axis in trainings(world).values()
        for training in axis
        for task in world.tasks
    }
    return Edition(world.words, grid, partial(sheet, world), minutes=4)


def _label(training: Training, task: str) -> str:
    return f"{training.name}, {task}"


def sheet(world: World, results: Results) -> Sheet:
    """Return accuracy by compute along each axis, and whether depth helps most, width least and smaller patches too."""
    along = trainings(world)
    one, average = f"top-1 on {task_of(world)}", "average over tasks"
    (base,) = along[BASE]
    heading = ["scaled", "compute", "parameters", "depth", "width", "MLP width", "patch", one, average]
    rows = [
        [
            axis,
            *_size(training, base),
            *(percent(_top1(results, training, tasks)) for tasks in ((task_of(world),), (*world.tasks,))),
        ]
        for axis, each in along.items()
        for training in each
    ]
    note = (
        f"Top-1 in percent of linear heads on {world.shots} images a class, mean and sample deviation over draws of the images. "
        "Compute is that of the base's pre-training. The paper draws its numbers without stating them."
    )
    panels = {one: _points(world, results, (task_of(world),)), average: _points(world, results, (*world.tasks,))}
    drawing = against(panels, "relative compute", "top-1 in %", log_x=True)
    figure = Figure(
        "Accuracy against compute", "Each line begins at the base and scales one of its dimensions.", drawing
    )
    figures = [figure] if all(panels.values()) else []
    return Sheet([Table("Linear few-shot accuracy", [heading, *rows], note)], figures, _finding(world, results))


def _size(training: Training, base: Training) -> list[str]:
    model = training.settings.model
    assert isinstance(model, ViTSettings)
    parameters = f"{cost(model).parameters:,}"
    dimensions = model.depth, model.width, model.mlp_dim, model.stem.cell.height
    return [f"{exaflops(training) / exaflops(base):.2g} ×", parameters, *map(str, dimensions)]


def _points(world: World, results: Results, tasks: Sequence[str]) -> dict[str, list[Point]]:
    """Return the lines of a panel, each from the base."""
    along = trainings(world)
    (base,) = along.pop(BASE)
    return {
        axis: [
            Point(exaflops(training) / exaflops(base), 100 * top1.mean, top1.std and 100 * top1.std)
            for training in (base, *each)
            if (top1 := _top1(results, training, tasks)) is not None
        ]
        for axis, each in along.items()
        if any(_top1(results, training, tasks) for training in (base, *each))
    }


def _top1(results: Results, training: Training, tasks: Sequence[str]) -> OverRuns | None:
    """Return the mean over tasks, and its deviation over the draws."""
    found = [results[_label(training, task)] for task in tasks]
    draws = [result["draws"] for result in found if result is not None]
    return over_runs([sum(each) / len(each) for each in zip(*draws, strict=True)]) if len(draws) == len(found) else None


def _finding(world: World, results: Results) -> Finding:
    """Compare what each axis gains for a doubling of compute, up to the largest that was made."""
    along = trainings(world)
    (base,) = along.pop(BASE)
    start = _top1(results, base, (*world.tasks,))
    ends = {axis: _top1(results, each[-1], (*world.tasks,)) for axis, each in along.items()}
    known = [end for end in ends.values() if end is not None]
    if start is None or len(known) < len(ends):
        return Finding(None, "Not every size could be measured.")
    noise = typical_deviation([start, *known])
    doublings = {axis: math.log2(exaflops(each[-1]) / exaflops(base)) for axis, each in along.items()}
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
        f"The heads deviate by {100 * noise:.1f} with the images that are drawn."
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
)
