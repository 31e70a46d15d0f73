"""Figure 3 (section 4.3): accuracy after transfer against the set that was pre-trained on, for ViTs and ResNets of two sizes."""

from collections.abc import Mapping
from functools import partial

from vitlab.evals.interval import OverRuns
from vitlab.inspection.charts import Point, against
from vitlab.studies.findings import Figure
from vitlab.studies.published import read_table
from vitlab.studies.rivals import NEAREST, RIVALS, lead, turns
from vitlab.studies.spread import percent
from vitlab.studies.study import Edition, Finding, Results, Sheet, Study, Table
from vitlab.studies.transfer import Transfer
from vitlab.studies.work import Piece
from vitlab.studies.world import Upstream, World
from vitlab.studies.worlds import in_every_world

SETS: Mapping[Upstream, str] = {"small": "ImageNet", "medium": "ImageNet-21k", "large": "JFT-300M"}
"""Our names of the sets, the smallest first, and the paper's."""

Reached = Mapping[str, Mapping[Upstream, OverRuns | None]]
"""The accuracy of every network after every set."""


def paper() -> dict[str, dict[Upstream, float]]:
    """Return the points of the paper's ViTs by network and set, in percent: those of table 5 on ImageNet."""
    rows = {row["pretraining"]: row for row in read_table("table5") if row["transfer"] == "ImageNet"}
    networks = [name for name in rows["ImageNet"] if name.startswith("ViT-")]
    return {
        network: {data: float(rows[title][network]) for data, title in SETS.items() if rows[title][network]}
        for network in networks
    }


def compared(world: World) -> dict[str, dict[Upstream, Transfer]]:
    """Return what is compared, by network and set: the rivals, ViTs first."""
    pairs = RIVALS[world.scale]
    networks = [pair.vit for pair in pairs] + [pair.resnet for pair in pairs]
    return {name: {data: Transfer(world, name, data, world.seeds) for data in SETS} for name in networks}


def edition(world: World) -> Edition:
    """Return the study in `world`: every network is pre-trained on every set, and fine-tuned."""
    grid: dict[str, Piece] = {}
    for transfers in compared(world).values():
        for transfer in transfers.values():
            grid |= transfer.grid()
    return Edition(world.words, grid, partial(sheet, world))


def sheet(world: World, results: Results) -> Sheet:
    """Return the figure with a panel a task, its numbers and the paper's, and whether the larger ViT overtakes its rival."""
    by_task: dict[str, Reached] = {
        task: {
            name: {data: transfer.top1(results, task) for data, transfer in transfers.items()}
            for name, transfers in compared(world).items()
        }
        for task in world.tasks
    }
    tables = [*(_table(world, task, reached) for task, reached in by_task.items()), _published()]
    return Sheet(tables, [_figure(world, by_task)], _finding(world, by_task[NEAREST[world.scale]]))


def _figure(world: World, by_task: Mapping[str, Reached]) -> Figure:
    images = {data: len(world.sets[data]()) for data in SETS}
    panels = {
        task: {
            name: [
                Point(images[data], 100 * top1.mean, None if top1.std is None else 100 * top1.std)
                for data, top1 in found.items()
                if top1 is not None
            ]
            for name, found in reached.items()
        }
        for task, reached in by_task.items()
    }
    resnets = [pair.resnet for pair in RIVALS[world.scale]]
    drawing = against(panels, "pre-training images", "top-1 after fine-tuning [%]", log_x=True, shaded=resnets)
    text = "ResNets are the shaded area, as in the paper. Bars are sample deviations over seeds."
    return Figure("Transfer against the size of the pre-training set", text, drawing)


def _table(world: World, task: str, reached: Reached) -> Table:
    heading = ["network", *(world.titles[data] for data in SETS)]
    rows = [[name, *(percent(top1) for top1 in found.values())] for name, found in reached.items()]
    note = "Top-1 in percent after fine-tuning, mean and sample deviation over seeds."
    return Table(f"On {task}, after pre-training on", [heading, *rows], note)


def _published() -> Table:
    rows = [
        [name, *(f"{found[data]:.2f}" if data in found else "" for data in SETS)] for name, found in paper().items()
    ]
    note = "Top-1 in percent on ImageNet, from table 5. Other networks and data: compare the order. BiT's are only drawn there."
    return Table("In the paper, on ImageNet, after pre-training on", [["network", *SETS.values()], *rows], note)


def _finding(world: World, reached: Reached) -> Finding:
    smaller, larger = RIVALS[world.scale]
    first, last = (lead(reached[larger.vit][data], reached[larger.resnet][data]) for data in ("small", "large"))
    if first is None or last is None:
        return Finding(
            None, f"Not both of {larger.vit} and {larger.resnet} are measured after the small and the large set."
        )
    words = (
        f"On {NEAREST[world.scale]}, {larger.vit} is {first.words(larger.resnet)}, which costs about as much, after the small "
        f"set, and {last.words()} after the large one."
    )
    sizes = [lead(reached[larger.vit][data], reached[smaller.vit][data]) for data in ("small", "large")]
    if sizes[0] is not None and sizes[1] is not None:
        ahead = sizes[0].words(f"the smaller {smaller.vit}")
        words += f" It is {ahead} after the small set, and {sizes[1].words()} after the large one."
    return Finding(turns(first, last), words)


STUDY = Study(
    name="figure3",
    title="Transfer after small and large sets",
    question="How much data does a ViT have to be pre-trained on to be better than a ResNet?",
    found=(
        "Large ViTs are worse than BiT ResNets after pre-training on small sets and better after large ones; larger ViTs "
        "overtake smaller ones as the set grows."
    ),
    source="Figure 3, section 4.3",
    editions=in_every_world(edition),
    minutes=10,
)
