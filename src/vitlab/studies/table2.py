"""Table 2 (section 4.2): the best ViTs beside the best ResNet, over several fine-tunings, and what each cost to pre-train."""

from collections.abc import Mapping
from functools import partial

from vitlab.studies.duration import spoken
from vitlab.studies.figure12 import point_of, timing
from vitlab.studies.published import read_table
from vitlab.studies.spread import percent, typical_deviation
from vitlab.studies.study import Edition, Finding, Results, Sheet, Study, Table
from vitlab.studies.transfer import Transfer, networks_of, unit_for
from vitlab.studies.work import Piece
from vitlab.studies.world import World
from vitlab.studies.worlds import in_every_world

SEEDS = (0, 1, 2)
"""Of fine-tuning, all from the same weights, as the paper's three runs."""
LARGEST, SMALLER, PUBLIC, RESNET = "ViT-H/14 JFT", "ViT-L/16 JFT", "ViT-L/16 I21k", "BiT-L R152x4"
"""The columns of the table whose like is compared here."""


def compared(world: World) -> dict[str, Transfer]:
    """Return what stands for each column: the dearest ViT, the next one after two sets, and the dearest ResNet."""
    *_, smaller, largest = networks_of(world, "ViT")
    resnet = networks_of(world, "ResNet")[-1]
    return {
        LARGEST: Transfer(world, largest, "large", SEEDS, start=0),
        SMALLER: Transfer(world, smaller, "large", SEEDS, start=0),
        PUBLIC: Transfer(world, smaller, "medium", SEEDS, start=0),
        RESNET: Transfer(world, resnet, "large", SEEDS, start=0),
    }


def edition(world: World) -> Edition:
    """Return the study in `world`: one pre-training a model, three fine-tunings of it a task, and its speed in training."""
    models = compared(world).values()
    grid: dict[str, Piece] = {label: piece for model in models for label, piece in model.grid().items()}
    timings = {_timing_label(model): timing(world, model.network) for model in models}
    return Edition(world.words, grid | timings, partial(sheet, world))


def sheet(world: World, results: Results) -> Sheet:
    """Return the table, the paper's as its own, and whether ViTs are ahead of the ResNet."""
    models = compared(world)
    unit = unit_for([model.exaflops for model in models.values()])
    heading = ["task", *(f"{model.network}, {world.titles[model.data]}" for model in models.values())]
    rows = [
        *([task, *(percent(model.top1(results, task)) for model in models.values())] for task in world.tasks),
        ["average", *(percent(model.average(results)) for model in models.values())],
        [unit.name, *(unit.shown(model.exaflops) for model in models.values())],
        ["time to pre-train", *(_time(model, results) for model in models.values())],
        ["in the place of", *models],
    ]
    timed = [result["device"] for model in models.values() if (result := results[_timing_label(model)]) is not None]
    device = f" on {timed[0]}" if timed else ""
    note = (
        f"Top-1 in percent, mean and sample deviation of {len(SEEDS)} fine-tunings from the same weights. The time is counted from "
        f"the images a second that training makes{device}, at its best batch, without the reading of images."
    )
    return Sheet([Table("Our models", [heading, *rows], note), _theirs()], [], finding(world, results))


def _theirs() -> Table:
    lines = read_table("table2")
    columns = list(lines[0])
    note = "Its tasks, sets and models; nothing here was measured by vitlab. * both numbers are published."
    return Table("In the paper", [["task", *columns[1:]], *([line[name] for name in columns] for line in lines)], note)


def _time(model: Transfer, results: Results) -> str:
    settings = model.pretraining(0).settings
    point = point_of(results[_timing_label(model)], settings.model.image_size.height, "training")
    if point is None or not point["images_per_second"]:
        return ""
    return spoken(settings.train.steps * settings.train.batch_size / point["images_per_second"])


def finding(world: World, results: Results) -> Finding:
    """Return whether the best ViT is ahead of the best ResNet, and a cheaper one not behind it."""
    models = compared(world)
    average = {column: model.average(results) for column, model in models.items()}
    known = {column: found for column, found in average.items() if found is not None}
    if len(known) < len(models):
        return Finding(None, f"{len(known)} of {len(models)} models are measured.")
    spread = typical_deviation(list(known.values()))
    ahead = {column: found.mean - known[RESNET].mean for column, found in known.items()}
    share = models[SMALLER].exaflops / models[RESNET].exaflops
    words = (
        f"On average over tasks the best ViT is {_points(ahead, LARGEST)} the best ResNet; one with {100 * share:.0f} % of the "
        f"ResNet's compute is {_points(ahead, SMALLER)} it, and after the medium set {_points(ahead, PUBLIC)} it. "
        f"Fine-tunings vary by {100 * spread:.1f}."
    )
    return Finding(ahead[LARGEST] > spread and ahead[SMALLER] > -spread and share < 1, words)


def _points(ahead: Mapping[str, float], column: str) -> str:
    lead = 100 * ahead[column]
    return f"{abs(lead):.1f} points {'above' if lead >= 0 else 'below'}"


def _timing_label(model: Transfer) -> str:
    return f"{model.network}, timing"


STUDY = Study(
    name="table2",
    title="Comparison with state of the art",
    question="How good are the best ViTs beside the best ResNet, and what do they cost to pre-train?",
    found=(
        "ViT-L/16 outperforms BiT-L, pre-trained on the same data, on nearly every task with far less compute; ViT-H/14 is better "
        "still, and ViT-L/16 after the public ImageNet-21k does well on most tasks with fewer resources."
    ),
    source="Table 2, section 4.2",
    editions=in_every_world(edition),
    minutes=3,
)
