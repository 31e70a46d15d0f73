"""Table 6 (appendix D.1): each model of the scaling study with its compute and accuracies, and the paper's compute recounted."""

from collections.abc import Mapping, Sequence
from functools import partial

from vitlab.studies.scaling import Reached, reached, scaling_grid, scaling_set
from vitlab.studies.spread import percent, typical_deviation
from vitlab.studies.study import Edition, Finding, Results, Sheet, Study, Table
from vitlab.studies.table6 import Compared, misprint_note, read_accuracies, table6
from vitlab.studies.transfer import FAMILIES, Transfer, unit_for
from vitlab.studies.world import World
from vitlab.studies.worlds import in_every_world

TOLERANCE = 0.03
"""How far a count of ours may be from the printed one, which is rounded to 1 of as few as 50 exaFLOPs."""


def edition(world: World) -> Edition:
    """Return the study in `world`: every network is pre-trained on the largest set and fine-tuned on every task."""
    return Edition(world.words, scaling_grid(world), partial(sheet, world))


def sheet(world: World, results: Results) -> Sheet:
    """Return the models of `world`, those of the paper, and whether compute is what the paper says and buys accuracy."""
    models = scaling_set(world)
    average = reached(models, results)
    complete = len(average) == len(models)
    return Sheet([_ours(world, models, results), _theirs()], [], finding(average, table6().rows, complete))


def _ours(world: World, models: Sequence[Transfer], results: Results) -> Table:
    unit = unit_for([model.exaflops for model in models])
    rows = [
        [
            model.title,
            f"{model.pretraining(model.seeds[0]).settings.train.steps:,}",
            *(percent(model.top1(results, task)) for task in world.tasks),
            percent(model.average(results)),
            unit.shown(model.exaflops),
        ]
        for model in models
    ]
    note = "Top-1 in percent after fine-tuning, mean and sample deviation over seeds. Compute is of the pre-training."
    return Table("Models of this world", [["model", "steps", *world.tasks, "average", unit.name], *rows], note)


def _theirs() -> Table:
    accuracies = read_accuracies()
    heading = ["model", "epochs", *accuracies[0], "exaFLOPs", "exaFLOPs, counted", "counted / printed"]
    rows = [
        [row.model, str(row.epochs), *_printed(top1), _marked(row), f"{row.exaflops:,.1f}", f"{row.ratio:.3f}"]
        for row, top1 in zip(table6().rows, accuracies, strict=True)
    ]
    note = (
        "The paper's numbers, after JFT-300M, except the two last columns: our count of what its models compute in so many epochs. "
        f"* {misprint_note()}"
    )
    return Table("Models of the paper", [heading, *rows], note)


def _printed(top1: Mapping[str, float]) -> list[str]:
    return [f"{value:.2f}" for value in top1.values()]


def _marked(row: Compared) -> str:
    return f"{row.paper:,}" + (" *" if row.misprint else "")


def finding(average: Sequence[Reached], counted: Sequence[Compared], complete: bool) -> Finding:
    """Return whether the printed compute is met, and whether in every family the dearest model is better than the cheapest."""
    farthest = max(abs(row.ratio - 1) for row in counted if not row.misprint)
    met = f"The paper's compute is met within {100 * farthest:.1f} % in every line but the misprint."
    if not complete:
        return Finding(None, f"{met} Not every model of this world is measured.")
    spread, gains = typical_deviation([model.top1 for model in average]), dict[str, float]()
    for family in FAMILIES:
        own = sorted((model for model in average if model.family == family), key=lambda model: model.exaflops)
        gains[family] = own[-1].top1.mean - own[0].top1.mean
    listed = ", ".join(f"{100 * gain:+.1f} points in {family}s" for family, gain in gains.items())
    words = (
        f"{met} From the cheapest to the dearest model it is {listed}; models vary by {100 * spread:.1f} over seeds."
    )
    return Finding(farthest <= TOLERANCE and min(gains.values()) > spread, words)


STUDY = Study(
    name="table6",
    title="Models of the scaling study",
    question="What does pre-training each model cost, and what accuracy does it reach on each task?",
    found="From 50 to 4,262 exaFLOPs, accuracy grows with compute in each of the three families.",
    source="Table 6, appendix D.1",
    editions=in_every_world(edition),
    minutes=7,
)
