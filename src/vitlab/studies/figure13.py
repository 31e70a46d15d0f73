"""Figure 13 (appendix D.6): axial attention in ViTs and in a ResNet: accuracy against compute, and against speed."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from vitlab.evals.interval import OverRuns
from vitlab.inspection.charts import Point, against
from vitlab.inspection.drawing import Drawing
from vitlab.models.classifier import AnySettings, Classifier
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import Axial
from vitlab.nn.axial_resnet import AxialAttention
from vitlab.nn.pooling import Mean
from vitlab.nn.position import Learned2D
from vitlab.studies.ablation import exaflops, task_of
from vitlab.studies.findings import Figure
from vitlab.studies.plan import choose_device
from vitlab.studies.speed import Bench, measure
from vitlab.studies.spread import percent, typical_deviation
from vitlab.studies.study import Edition, Finding, Results, Scale, Sheet, Study, Table
from vitlab.studies.work import Measurement, Piece, Result, Training, Untrained
from vitlab.studies.world import World
from vitlab.studies.worlds import in_every_world

NETWORKS: Mapping[Scale, tuple[str, str, str]] = {
    "miniature": ("R8x0.5", "Micro/8", "Micro/4"),
    "small": ("R14x1", "Mini/8", "Mini/4"),
    "paper": ("BiT-R50x1", "B/32", "B/16"),
}
"""A ResNet, and a ViT with large and with small patches; each is compared with its axial form."""
HEADS = 8
"""Of AxialResNet's attention, as its authors have it."""
SECONDS = 3.0
"""For the speed of a network."""


class Compared(NamedTuple):
    """A network: the exaFLOPs of its pre-training, its accuracy then, and the images a second that it classifies."""

    exaflops: float
    top1: OverRuns
    speed: float


def axial(model: AnySettings) -> AnySettings:
    """Return the axial form of a network: of a ViT two blocks for each, of a ResNet attention for its 3×3 convolutions."""
    if isinstance(model, ResNetSettings):
        return model.model_copy(update={"unit": AxialAttention(num_heads=HEADS)})
    return model.model_copy(update={"attention": Axial(), "position": Learned2D(), "pool": Mean()})


def trainings(world: World, seed: int = 0) -> dict[str, Training]:
    """Return the pre-trainings by the name of their network, each before its axial form."""
    found: dict[str, Training] = {}
    for name in NETWORKS[world.scale]:
        found[name] = world.pretrained(name, seed=seed)
        model = axial(world.networks[name])
        found[f"Axial-{name}"] = world.variant(f"Axial-{name} on large", model, name, seed=seed)
    return found


def edition(world: World) -> Edition:
    """Return the study in `world`: every network is pre-trained, judged by linear heads, and its speed is measured here."""
    grid: dict[str, Piece] = {}
    for seed in world.seeds:
        for name, training in trainings(world, seed).items():
            grid[_label(name, seed)] = world.heads(training, task=task_of(world))
    for name, training in trainings(world).items():
        inputs = {"seconds": SECONDS}
        speed = Measurement(f"speed-of-{training.name}", _measure_speed, (Untrained(training),), inputs)
        grid[f"{name}, speed"] = speed
    return Edition(world.words, grid, partial(sheet, world))


def _measure_speed(models: Sequence[Classifier]) -> Result:
    """Return the images a second of inference, at the batch where it is fastest."""
    bench = Bench.on(choose_device("auto"), SECONDS)
    point = next(iter(measure([models[0].settings], bench)))  # of inference, which is before training
    return {"images_per_second": point.images_per_second, "batch_size": point.batch_size, "on": str(bench)}


def sheet(world: World, results: Results) -> Sheet:
    """Return accuracy against compute and speed, and whether axial attention is better and dearer, and AxialResNet slow."""
    found = _compared(world, results)
    one = f"top-1 on {task_of(world)} in %"
    heading = ["network", "compute", one, "images a second"]
    least = min((each.exaflops for each in found.values()), default=1.0)
    rows = [
        [name, f"{each.exaflops / least:.2f} ×", percent(each.top1), f"{each.speed:,.0f}"]
        for name, each in found.items()
    ]
    devices = {result["on"] for name in trainings(world) if (result := results[f"{name}, speed"]) is not None}
    note = (
        f"Linear heads on {world.shots} images a class, mean and sample deviation over seeds. Compute is that of "
        f"pre-training, beside the least. Speed is that of inference on {'; '.join(sorted(devices))}; the paper's on TPUv3 cores."
    )
    panels = {"compute": _points(found, least, of_speed=False), "speed": _points(found, least, of_speed=True)}
    labels = {"compute": "relative compute", "speed": "images a second"}
    figures = [
        Figure(
            f"Accuracy against {what}",
            "A line goes from a network to its axial form.",
            _drawn(points, labels[what], one),
        )
        for what, points in panels.items()
        if points
    ]
    return Sheet([Table("Networks and their axial forms", [heading, *rows], note)], figures, _finding(world, found))


def _compared(world: World, results: Results) -> dict[str, Compared]:
    """Return the networks of which everything is measured."""
    found: dict[str, Compared] = {}
    for name, training in trainings(world).items():
        top1 = results.over([_label(name, seed) for seed in world.seeds], "top1")
        timed = results[f"{name}, speed"]
        speed = None if timed is None else timed["images_per_second"]
        if top1 is not None and speed is not None:
            found[name] = Compared(exaflops(training), top1, float(speed))
    return found


def _points(found: Mapping[str, Compared], least: float, *, of_speed: bool) -> dict[str, list[Point]]:
    """Return a series for each network and its axial form."""
    series: dict[str, list[Point]] = {}
    for name, each in found.items():
        x = each.speed if of_speed else each.exaflops / least
        point = Point(x, 100 * each.top1.mean, each.top1.std and 100 * each.top1.std, name)
        series.setdefault(name.removeprefix("Axial-"), []).append(point)
    return series


def _drawn(series: Mapping[str, Sequence[Point]], x_label: str, y_label: str) -> Drawing:
    return against({"": series}, x_label, y_label)


def _finding(world: World, found: Mapping[str, Compared]) -> Finding:
    """Axial ViTs are better for more compute, and AxialResNet has fewer images a second than its ResNet, also for its compute."""
    resnet, *vits = NETWORKS[world.scale]
    if len(found) < 2 * len(NETWORKS[world.scale]):
        return Finding(None, "Not every network could be measured.")
    noise = typical_deviation([each.top1 for each in found.values()])
    gains = {name: found[f"Axial-{name}"].top1.mean - found[name].top1.mean for name in vits}
    dearer = {
        name: found[f"Axial-{name}"].exaflops / found[name].exaflops for name in found if f"Axial-{name}" in found
    }
    slower = found[resnet].speed / found[f"Axial-{resnet}"].speed
    told = "; ".join(
        f"{name} {100 * gains[name]:+.1f} points for {dearer[name]:.1f} times the compute" for name in vits
    )
    words = (
        f"Axial attention gives {told}; networks deviate by {100 * noise:.1f} over seeds. In {resnet} it takes "
        f"{dearer[resnet]:.1f} times the compute and {slower:.1f} times the time."
    )
    better = min(gains.values()) > noise and min(dearer[name] for name in vits) > 1
    return Finding(better and slower > max(1.0, dearer[resnet]), words)


def _label(name: str, seed: int) -> str:
    return f"{name}, heads, seed {seed}"


STUDY = Study(
    name="figure13",
    title="Axial attention",
    question="Is attention along rows and columns better than attention to all patches, or than convolutions?",
    found="Axial ViTs are better than ViTs in accuracy, but cost more compute, since each block becomes two; AxialResNet looks "
    "reasonable in compute but is extremely slow.",
    source="Figure 13, appendix D.6",
    editions=in_every_world(edition),
    minutes=5,
)
