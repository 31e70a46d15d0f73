"""Figure 11 (appendix D.7): how far each head looks by depth, in a ViT and in a hybrid."""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from vitlab.inspection import figures
from vitlab.studies.findings import Figure
from vitlab.studies.inside import IMAGES, NAMES, Kind, measured_distances, pretrained, seeds
from vitlab.studies.statements import hybrids_are_less_local
from vitlab.studies.study import Edition, Results, Sheet, Study, Table
from vitlab.studies.work import Piece, Result
from vitlab.studies.world import World
from vitlab.studies.worlds import in_every_world

KINDS: tuple[Kind, ...] = ("plain", "hybrid")


def edition(world: World) -> Edition:
    """Return the study in `world`: the attention distances of both networks after pre-training."""
    grid: dict[str, Piece] = {
        _label(kind, seed): measured_distances(world, pretrained(world, kind, seed))
        for seed in seeds(world)
        for kind in KINDS
    }
    return Edition(world.words, grid, partial(sheet, world))


def sheet(world: World, results: Results) -> Sheet:
    """Return both drawings of the first seed, the distances of each layer over seeds, and whether the hybrid is less local."""
    names = NAMES[world.scale]
    found: dict[Kind, list[Result | None]] = {
        kind: [results[_label(kind, seed)] for seed in seeds(world)] for kind in KINDS
    }
    first = {names[kind]: _distances(each[0]) for kind, each in found.items() if each[0] is not None}
    text = (
        f"Mean attention distance over {IMAGES} test images, a dot a head, and the mean of each layer. The line is attention to "
        "all patches alike."
    )
    drawn = [Figure("Attention distance by depth", text, figures.distances_beside(first))] if first else []
    heading = ["network", "layer", "nearest head", "mean of the heads", "farthest head", "all alike"]
    rows = [row for kind in KINDS for row in _rows(names[kind], [each for each in found[kind] if each is not None])]
    note = "In pixels, the mean over trainings that differ in their seed."
    table = Table("Attention distance", [heading, *rows], note)
    return Sheet([table], drawn, hybrids_are_less_local(found["plain"], found["hybrid"]))


def _rows(name: str, found: list[Result]) -> list[list[str]]:
    """Return a row a layer of the means over trainings."""
    if not found:
        return []
    pixels = np.sort([_distances(result)[0] for result in found], axis=2).mean(
        axis=0
    )  # heads have no order: the nearest first
    return [
        [name, str(layer), f"{heads[0]:.1f}", f"{heads.mean():.1f}", f"{heads[-1]:.1f}", f"{found[0]['even']:.1f}"]
        for layer, heads in enumerate(pixels, start=1)
    ]


def _distances(result: Result) -> tuple[NDArray[np.float32], float]:
    return np.asarray(result["pixels"], np.float32), float(result["even"])


def _label(kind: Kind, seed: int) -> str:
    return f"{kind}, seed {seed}"


STUDY = Study(
    name="figure11",
    title="Attention distance of a hybrid",
    question="Do the lowest layers look nearby where a ResNet has read the image before?",
    found="Highly localised attention in the low layers is less pronounced in hybrids, which may have it in their convolutions.",
    source="Figure 11, section 4.5 and appendix D.7",
    editions=in_every_world(edition),
    minutes=2,
)
