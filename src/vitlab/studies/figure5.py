"""Figure 5 (section 4.4): accuracy after transfer against the compute of pre-training, for ViTs, ResNets and hybrids."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from vitlab.evals.interval import OverRuns
from vitlab.inspection.charts import Point, against
from vitlab.inspection.drawing import Drawing
from vitlab.models.catalog import settings_for
from vitlab.studies.findings import Figure
from vitlab.studies.scaling import Reached, reached, scaling_grid, scaling_set
from vitlab.studies.spread import percent, typical_deviation
from vitlab.studies.study import Edition, Finding, Results, Sheet, Study, Table
from vitlab.studies.table6 import name_of, read_accuracies, read_paper
from vitlab.studies.transfer import FAMILIES, Family, Unit, family_of, unit_for
from vitlab.studies.world import World
from vitlab.studies.worlds import in_every_world

AVERAGED = ("ImageNet", "CIFAR-10", "CIFAR-100", "Pets", "Flowers")
"""The data sets whose average the paper's left panel shows; its right one shows the first."""
TITLES: Mapping[Family, str] = {"ViT": "Transformer (ViT)", "ResNet": "ResNet (BiT)", "hybrid": "Hybrid"}


def edition(world: World) -> Edition:
    """Return the study in `world`: every network is pre-trained on the largest set and fine-tuned on every task."""
    return Edition(world.words, scaling_grid(world), partial(sheet, world))


def paper(datasets: Sequence[str]) -> list[Reached]:
    """Return the models of table 6 with their published accuracy on average over some data sets."""
    found: list[Reached] = []
    for row, top1 in zip(read_paper(), read_accuracies(), strict=True):
        name, mean = name_of(row.model), sum(top1[dataset] for dataset in datasets) / len(datasets)
        found.append(Reached(name, family_of(settings_for(name)), row.exaflops, OverRuns(mean / 100, None, 1)))
    return found


def sheet(world: World, results: Results) -> Sheet:
    """Return the figure, the paper's as its own, and whether the families are in the paper's order."""
    models = scaling_set(world)
    unit = unit_for([model.exaflops for model in models])
    average, one = reached(models, results), reached(models, results, world.task)
    title = f"average of {len(world.tasks)} tasks"
    text = (
        "Each point is a pre-trained model, fine-tuned; the table tells which. Bars are sample deviations over seeds."
    )
    drawn = _drawn({title: average, world.task: one}, unit)
    figures = [Figure("Accuracy against compute", text, drawn)] if average else []
    published = {f"average of {len(AVERAGED)} data sets": paper(AVERAGED), AVERAGED[0]: paper(AVERAGED[:1])}
    text = "Drawn from the paper's table 6. Other data, other sizes: what can be compared is the order of the families."
    figures.append(Figure("The paper's figure", text, _drawn(published, Unit("exaFLOPs", 1))))
    return Sheet([_table(average, one, world.task, unit)], figures, finding(average, len(models), unit))


def _drawn(panels: Mapping[str, Sequence[Reached]], unit: Unit) -> Drawing:
    points = {
        title: {
            TITLES[family]: [_point(model, unit) for model in models if model.family == family] for family in FAMILIES
        }
        for title, models in panels.items()
    }
    return against(points, f"pre-training compute [{unit.name}]", "top-1 [%]", log_x=True, joined=False)


def _point(model: Reached, unit: Unit) -> Point:
    deviation = None if model.top1.std is None else 100 * model.top1.std
    return Point(model.exaflops / unit.exaflops, 100 * model.top1.mean, deviation)


def _table(average: Sequence[Reached], one: Sequence[Reached], task: str, unit: Unit) -> Table:
    on_task = {model.name: model.top1 for model in one}
    heading = ["model", "family", unit.name, "average of tasks", task]
    rows = [
        [model.name, model.family, unit.shown(model.exaflops), percent(model.top1), percent(on_task.get(model.name))]
        for model in sorted(average, key=lambda model: model.exaflops)
    ]
    note = (
        "Top-1 in percent after fine-tuning, mean and sample deviation over seeds; compute as in the paper's table 6."
    )
    return Table("Models by compute", [heading, *rows], note)


def finding(models: Sequence[Reached], expected: int, unit: Unit) -> Finding:
    """Return whether ViTs are ahead of ResNets at the same compute, and hybrids of ViTs only where there is little of it."""
    if len(models) < expected:
        return Finding(None, f"{len(models)} of {expected} models are measured.")
    vits, resnets, hybrids = ([model for model in models if model.family == family] for family in FAMILIES)
    spread = typical_deviation([model.top1 for model in models])
    over_resnets = [-lead for _, lead in leads(frontier(resnets), vits)]
    over_vits = leads(hybrids, vits)
    if not over_resnets or len(over_vits) < 2:
        return Finding(None, "The families have too little compute in common to be compared.")
    mean, (small, first), (large, last) = sum(over_resnets) / len(over_resnets), over_vits[0], over_vits[-1]
    words = (
        f"At the compute of the ResNets, ViTs are {_points(mean)} them on average. Hybrids are {_points(first)} ViTs at "
        f"{unit.shown(small)} {unit.name}, and {_points(last)} them at {unit.shown(large)}. "
        f"Models vary by {100 * spread:.1f} points over seeds."
    )
    return Finding(mean > spread and first > spread and last < first - spread, words)


def leads(models: Sequence[Reached], others: Sequence[Reached]) -> list[tuple[float, float]]:
    """Return how far each of `models` is ahead of the best that `others` reach with its compute, the cheapest first.

    Between others it is interpolated on the logarithm of compute; models that cost more than all of them are compared with their
    best, and models that cost less are left out.
    """
    best = frontier(others)
    x, y = [math.log(model.exaflops) for model in best], [model.top1.mean for model in best]
    ahead = [
        (model.exaflops, model.top1.mean - float(np.interp(math.log(model.exaflops), x, y)))
        for model in sorted(models, key=lambda model: model.exaflops)
    ]
    return [(exaflops, lead) for exaflops, lead in ahead if exaflops >= best[0].exaflops]


def frontier(models: Sequence[Reached]) -> list[Reached]:
    """Return those of `models` that reach more than every cheaper one, the cheapest first."""
    kept: list[Reached] = []
    for model in sorted(models, key=lambda model: model.exaflops):
        if not kept or model.top1.mean > kept[-1].top1.mean:
            kept.append(model)
    return kept


def _points(lead: float) -> str:
    return f"{100 * abs(lead):.1f} points {'ahead of' if lead >= 0 else 'behind'}"


STUDY = Study(
    name="figure5",
    title="Accuracy against compute",
    question="Which of ViTs, ResNets and hybrids reach most for the compute of their pre-training?",
    found=(
        "ViTs outperform ResNets with the same computational budget; hybrids improve upon ViTs for smaller models, and the gap "
        "vanishes for larger ones."
    ),
    source="Figure 5, section 4.4",
    editions=in_every_world(edition),
    minutes=7,
)
