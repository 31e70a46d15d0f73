"""Section 4.5: all that it says of the inside of networks, judged together."""

from functools import partial

from vitlab.studies import figure6, figure7, figure11
from vitlab.studies.inside import seeds
from vitlab.studies.statements import (
    Measured,
    deeper_looks_farther,
    filters_are_smooth,
    hybrids_are_less_local,
    listed,
    looks_at_the_ink,
    lowest_heads_differ,
    near_is_similar,
    rows_and_columns_appear,
    together,
)
from vitlab.studies.study import Edition, Results, Sheet, Study
from vitlab.studies.world import World
from vitlab.studies.worlds import in_every_world

PARTS = {"figure 6": figure6.edition, "figure 7": figure7.edition, "figure 11": figure11.edition}


def edition(world: World) -> Edition:
    """Return the study in `world`: the pieces of the figures that the section speaks of."""
    given = {part: make(world) for part, make in PARTS.items()}
    grid = {f"{part}, {label}": piece for part, each in given.items() for label, piece in each.grid.items()}
    return Edition(world.words, grid, partial(sheet, world))


def sheet(world: World, results: Results) -> Sheet:
    """Return every statement with what was found."""

    def measured(label: str) -> Measured:
        return [results[f"{label}, seed {seed}"] for seed in seeds(world)]

    positions, distances = measured("figure 7, positions"), measured("figure 7, distances")
    findings = [
        filters_are_smooth(measured("figure 7, filters"), measured("figure 7, untrained filters")),
        near_is_similar(positions),
        rows_and_columns_appear(positions),
        lowest_heads_differ(distances),
        hybrids_are_less_local(measured("figure 11, plain"), measured("figure 11, hybrid")),
        deeper_looks_farther(distances),
        looks_at_the_ink(measured("figure 6, fine-tuned"), measured("figure 6, untrained")),
    ]
    return Sheet([listed(findings, len(seeds(world)))], [], together(findings))


STUDY = Study(
    name="section45",
    title="Inside the Vision Transformer",
    question="Does what the paper says in words of filters, positions and attention show in networks of another size?",
    found="Filters resemble basis functions; closer patches have more similar positions, with rows and columns; some heads attend "
    "globally in the lowest layers and others nearby, which is less pronounced in hybrids; attention distance increases with "
    "depth; the model attends to regions that matter for the class.",
    source="Section 4.5",
    editions=in_every_world(edition),
    minutes=2,
)
