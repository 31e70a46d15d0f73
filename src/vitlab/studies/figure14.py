"""Figure 14 (appendix D.8): the rollout of figure 6 on many images that nobody chose."""

from functools import partial

from vitlab.inspection.drawing import tiles
from vitlab.studies import figure6
from vitlab.studies.findings import Figure
from vitlab.studies.inside import seeds
from vitlab.studies.statements import looks_at_the_ink
from vitlab.studies.study import Edition, Results, Sheet, Study
from vitlab.studies.world import World
from vitlab.studies.worlds import in_every_world

MANY, ACROSS = 64, 8


def edition(world: World) -> Edition:
    """Return the study in `world`: the pieces of figure 6."""
    given = figure6.edition(world)
    return Edition(given.data, given.grid, partial(sheet, world))


def sheet(world: World, results: Results) -> Sheet:
    """Return many images with what is looked at; the finding is that of figure 6, whose rule counts them all."""
    found, fresh = ([results[f"{what}, seed {seed}"] for seed in seeds(world)] for what in ("fine-tuned", "untrained"))
    drawn: list[Figure] = []
    if found[0] is not None:
        pairs = figure6.overlays(world, found[0], range(min(MANY, len(found[0]["maps"]))))
        text = "A random selection of test images, each beside what reaches the output through all layers."
        drawing = tiles([part for pair in pairs for part in pair], columns=2 * ACROSS)
        drawn.append(Figure("What the network looks at", text, drawing))
    return Sheet([], drawn, looks_at_the_ink(found, fresh))


STUDY = Study(
    name="figure14",
    title="More attention rollouts",
    question="Does figure 6 hold for images that are not chosen?",
    found="A random selection shows the same as figure 6: relevant regions are attended to.",
    source="Figure 14, appendix D.8",
    editions=in_every_world(edition),
    minutes=1,
)
