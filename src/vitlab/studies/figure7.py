"""Figure 7 (section 4.5): what the input layers learned, and how far each head looks."""

from functools import partial

import numpy as np

from vitlab.inspection import figures
from vitlab.studies.findings import Figure
from vitlab.studies.inside import (
    IMAGES,
    NAMES,
    measured_distances,
    measured_filters,
    measured_positions,
    pretrained,
    seeds,
)
from vitlab.studies.statements import (
    deeper_looks_farther,
    filters_are_smooth,
    listed,
    lowest_heads_differ,
    near_is_similar,
    rows_and_columns_appear,
    similarity_of,
    together,
)
from vitlab.studies.study import Edition, Results, Sheet, Study
from vitlab.studies.work import Piece, Result, Untrained
from vitlab.studies.world import World
from vitlab.studies.worlds import in_every_world


def edition(world: World) -> Edition:
    """Return the study in `world`: three measurements of pre-trained networks, and the filters before training."""
    grid: dict[str, Piece] = {}
    for seed in seeds(world):
        coarse, plain = pretrained(world, "coarse", seed), pretrained(world, "plain", seed)
        grid[f"filters, seed {seed}"] = measured_filters(coarse)
        grid[f"untrained filters, seed {seed}"] = measured_filters(Untrained(coarse))
        grid[f"positions, seed {seed}"] = measured_positions(coarse)
        grid[f"distances, seed {seed}"] = measured_distances(world, plain)
    return Edition(world.words, grid, partial(sheet, world))


def sheet(world: World, results: Results) -> Sheet:
    """Return the three drawings of the first seed, and what they show over seeds."""
    filters, untrained, positions, distances = (
        [results[f"{what}, seed {seed}"] for seed in seeds(world)]
        for what in ("filters", "untrained filters", "positions", "distances")
    )
    findings = [
        filters_are_smooth(filters, untrained),
        near_is_similar(positions),
        rows_and_columns_appear(positions),
        deeper_looks_farther(distances),
        lowest_heads_differ(distances),
    ]
    drawn = _drawn(world, filters[0], positions[0], distances[0])
    return Sheet([listed(findings, len(seeds(world)))], drawn, together(findings))


def _drawn(world: World, filters: Result | None, positions: Result | None, distances: Result | None) -> list[Figure]:
    drawn: list[Figure] = []
    if filters is not None:
        text = (
            f"The first principal components of the filters of {NAMES[world.scale]['coarse']}, each on its own scale."
        )
        components = np.asarray(filters["components"], np.float32)
        drawn.append(Figure("Left: filters of the patch embedding", text, figures.filters(components)))
    if positions is not None:
        text = "How alike the learned position of each patch is to every other, one map a patch."
        drawn.append(Figure("Centre: position similarity", text, figures.similarity(similarity_of(positions))))
    if distances is not None:
        text = (
            f"How far each head of {NAMES[world.scale]['plain']} looks, the mean over {IMAGES} test images. "
            f"Attention to all patches alike is {distances['even']:.1f} pixels on this grid."
        )
        drawing = figures.distances(np.asarray(distances["pixels"], np.float32), distances["even"])
        drawn.append(Figure("Right: attention distance", text, drawing))
    return drawn


STUDY = Study(
    name="figure7",
    title="Filters, positions and attention distance",
    question="What do the input layers of a ViT learn, and how far does each head look?",
    found="Filters resemble basis functions, positions learn the distances within an image with its rows and columns, and some "
    "heads attend to most of the image already in the lowest layers, others nearby; attention distance increases with depth.",
    source="Figure 7, section 4.5",
    editions=in_every_world(edition),
    minutes=1,
)
