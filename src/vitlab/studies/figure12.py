"""Figure 12 (appendix D.5): images a second and the largest batch by image size, measured on the device that is here."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from vitlab.config import parse, to_json
from vitlab.errors import SettingsError
from vitlab.inspection import charts
from vitlab.models.classifier import AnySettings, Classifier
from vitlab.nn.grid import as_size
from vitlab.studies import speed
from vitlab.studies.findings import Figure
from vitlab.studies.plan import choose_device
from vitlab.studies.speed import Bench, Mode
from vitlab.studies.study import Edition, Finding, Results, Scale, Sheet, Study, Table
from vitlab.studies.transfer import macs_of, networks_of
from vitlab.studies.work import Measurement, Result
from vitlab.studies.world import World, slug
from vitlab.studies.worlds import in_every_world

SIZES: Mapping[Scale, tuple[int, ...]] = {"miniature": (16, 32, 64), "small": (32, 64, 128), "paper": speed.SIZES}
"""Sides of images; the paper's are those of its figure."""
SECONDS: Mapping[Scale, float] = {"miniature": 1.0, "small": 5.0, "paper": 20.0}
"""For a point."""
COMPARABLE = 2.0
"""Speeds within this factor of each other count as comparable."""


def timing(world: World, network: str) -> Measurement:
    """Return the measurement of a network's speed in inference and in training at the sizes of its scale."""
    settings, scale = world.networks[network], world.scale
    inputs = {"model": to_json(settings), "sizes": SIZES[scale], "seconds": SECONDS[scale]}
    work = partial(_measure, settings=settings, sizes=SIZES[scale], seconds=SECONDS[scale])
    return Measurement(f"timing-{scale}-{slug(network)}", work, inputs=inputs)


def _measure(models: Sequence[Classifier], *, settings: AnySettings, sizes: Sequence[int], seconds: float) -> Result:
    del models
    bench, resized = Bench.on(choose_device("auto"), seconds), list[AnySettings]()
    for side in sizes:
        try:
            resized.append(parse(type(settings), dict(settings) | {"image_size": as_size(side)}, "image_size"))
        except SettingsError:  # a network that has no such size
            continue
    return {"device": str(bench), "points": [point.as_json() for point in speed.measure(resized, bench)]}


def timed(world: World) -> list[str]:
    """Return the networks of the figure: ViTs and ResNets, the cheapest of each first."""
    return networks_of(world, "ViT") + networks_of(world, "ResNet")


def edition(world: World) -> Edition:
    """Return the study in `world`: nothing is trained, each network is timed."""
    return Edition(world.words, {name: timing(world, name) for name in timed(world)}, partial(sheet, world))


def point_of(result: Result | None, side: int, mode: Mode) -> Mapping[str, Any] | None:
    """Return what was measured for square images of `side` pixels, None where nothing was."""
    points = [] if result is None else result["points"]
    return next(
        (point for point in points if list(point["image_size"]) == [side, side] and point["mode"] == mode), None
    )


def sheet(world: World, results: Results) -> Sheet:
    """Return the two panels of the figure with their numbers, and whether ViTs are as fast and take larger batches."""
    panels = {
        "images a second, at the best batch": _series(world, results, "images_per_second"),
        "largest batch": _series(world, results, "largest_batch"),
    }
    panels = {title: series for title, series in panels.items() if series}
    drawing = charts.against(panels, "image size [pixels]", "inference", log_x=True, log_y=True) if panels else None
    devices = " and ".join(dict.fromkeys(found["device"] for name in timed(world) if (found := results[name])))
    text = f"Inference on {devices or 'this device'}. On a CPU the largest batch is estimated from the memory, on a GPU tried."
    figures = [] if drawing is None else [Figure("Speed and memory by image size", text, drawing)]
    return Sheet([_table(world, results)], figures, finding(world, results))


def _series(world: World, results: Results, what: str) -> dict[str, list[charts.Point]]:
    found: dict[str, list[charts.Point]] = {}
    for name in timed(world):
        points = [(side, point_of(results[name], side, "inference")) for side in SIZES[world.scale]]
        drawn = [charts.Point(side, point[what]) for side, point in points if point is not None and point[what]]
        if drawn:
            found[name] = drawn
    return found


def _table(world: World, results: Results) -> Table:
    sides, modes = SIZES[world.scale], speed.MODES
    heading = ["network", *(f"{mode}, {side} px" for mode in modes for side in sides)]
    rows = [
        [name, *(_cell(point_of(results[name], side, mode)) for mode in modes for side in sides)]
        for name in timed(world)
    ]
    note = "Images a second at the best batch / the largest batch that fits. Training is a step with Adam."
    return Table("Images a second, and the largest batch", [heading, *rows], note)


def _cell(point: Mapping[str, Any] | None) -> str:
    if point is None:
        return ""
    rate, batch = point["images_per_second"], point["largest_batch"]
    return f"{'–' if rate is None else f'{rate:,.0f}'} / {'–' if batch is None else f'{batch:,}'}"


def finding(world: World, results: Results) -> Finding:
    """Return whether ViTs are about as fast as the ResNets that compute as much, and the dearest fits more images at once."""
    side = world.networks[world.usual].image_size.height
    pairs = [(nearest(world, resnet), resnet) for resnet in networks_of(world, "ResNet")]
    measured = {name: point_of(results[name], side, "inference") for name in timed(world)}
    known = {
        name: point
        for name, point in measured.items()
        if point and point["images_per_second"] and point["largest_batch"]
    }
    if any(name not in known for pair in pairs for name in pair):
        return Finding(None, "Not every network could be timed.")
    ratios = [known[vit]["images_per_second"] / known[resnet]["images_per_second"] for vit, resnet in pairs]
    vit, resnet = pairs[-1]
    fits = known[vit]["largest_batch"], known[resnet]["largest_batch"]
    words = (
        f"At {side} pixels ViTs make {min(ratios):.1f} to {max(ratios):.1f} times the images a second of the ResNets that are "
        f"nearest in compute. {fits[0]:,} images fit at once with {vit}, {fits[1]:,} with {resnet}."
    )
    return Finding(min(ratios) >= 1 / COMPARABLE and fits[0] > fits[1], words)


def nearest(world: World, network: str) -> str:
    """Return the ViT that computes most nearly as much as `network` for an image."""
    macs = {name: macs_of(world.networks[name]) for name in [*networks_of(world, "ViT"), network]}
    return min(networks_of(world, "ViT"), key=lambda name: abs(math.log(macs[name] / macs[network])))


STUDY = Study(
    name="figure12",
    title="Speed and memory by image size",
    question="How many images a second does each network process, and how many fit the memory at once?",
    found=(
        "ViTs are about as fast as ResNets of their compute, and fit larger batches; that attention grows with the fourth power of "
        "the image side only begins to show in the largest models at the largest sizes."
    ),
    source="Figure 12, appendix D.5",
    editions=in_every_world(edition),
    minutes=1,
)
