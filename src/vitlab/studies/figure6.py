"""Figure 6 (section 4.5): what a fine-tuned network looks at, by attention rollout; figure 14 shows more of the same."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from vitlab.data.source import Pixels
from vitlab.inspection import figures
from vitlab.studies.findings import Figure
from vitlab.studies.inside import IMAGES, finetuned, measured_rollouts, network, picture, seeds, shown, sight
from vitlab.studies.statements import looks_at_the_ink
from vitlab.studies.study import Edition, Results, Sheet, Study, Table
from vitlab.studies.work import Piece, Result, Untrained
from vitlab.studies.world import World
from vitlab.studies.worlds import in_every_world

FEW = 8
"""Images that are drawn, of different classes where there are so many."""


def edition(world: World) -> Edition:
    """Return the study in `world`: the rollout of fine-tuned networks, and of one before training."""
    grid: dict[str, Piece] = {}
    for seed in seeds(world):
        tuned = finetuned(world, seed)
        grid[f"fine-tuned, seed {seed}"] = measured_rollouts(world, tuned)
        grid[f"untrained, seed {seed}"] = measured_rollouts(world, Untrained(tuned))
    return Edition(world.words, grid, partial(sheet, world))


def sheet(world: World, results: Results) -> Sheet:
    """Return a few images with what is looked at, and, of digits, how much of that is ink."""
    found, fresh = ([results[f"{what}, seed {seed}"] for seed in seeds(world)] for what in ("fine-tuned", "untrained"))
    heading = ["network", "rollout on ink", "patches with ink"]
    rows = [
        [f"{name}, seed {seed}", f"{100 * np.mean(result['mass']):.1f}", f"{100 * np.mean(result['area']):.1f}"]
        for name, measured in (("fine-tuned", found), ("before training", fresh))
        for seed, result in zip(seeds(world), measured, strict=True)
        if result is not None and "mass" in result
    ]
    note = f"In percent, the mean over {IMAGES} random test images. Ink is a patch at least half as bright as the brightest."
    tables = [Table("Where the rollout is", [heading, *rows], note)] if rows else []
    drawn = [_few(world, found[0])] if found[0] is not None else []
    return Sheet(tables, drawn, looks_at_the_ink(found, fresh))


def overlays(world: World, result: Result, chosen: Sequence[int]) -> list[tuple[Pixels, Pixels]]:
    """Return those of the images that `chosen` counts, each with the same darkened where the network does not look."""
    tuned, source = finetuned(world), shown(world.tasks[sight(world)]().test)
    seen = [picture(tuned, source, index) for index in chosen]
    cell = network(world, "plain").stem.cell
    maps = [np.asarray(result["maps"][index], np.float32) for index in chosen]
    return [(image, figures.overlay(image, heat, cell)) for image, heat in zip(seen, maps, strict=True)]


def _few(world: World, result: Result) -> Figure:
    source = shown(world.tasks[sight(world)]().test)
    _, first = np.unique(source.labels, return_index=True)
    chosen = [int(index) for index in first[:FEW]]
    pairs = overlays(world, result, chosen)
    titles = [source.classes[int(source.labels[index])] for index in chosen]
    drawing = figures.rollouts([image for image, _ in pairs], [look for _, look in pairs], titles)
    text = "Test images, the first of each class in a random order, and what reaches the output through all layers."
    return Figure("What the network looks at", text, drawing)


STUDY = Study(
    name="figure6",
    title="Attention rollout",
    question="Does the network look at what tells the class of an image?",
    found="The model attends to image regions that are semantically relevant for classification.",
    source="Figure 6, section 4.5 and appendix D.8",
    editions=in_every_world(edition),
    minutes=1,
)
