"""Figure 4 (section 4.3): linear few-shot accuracy against the number of pre-training images, for ViTs and ResNets."""

from collections.abc import Mapping, Sequence
from functools import partial

from vitlab.evals.interval import OverRuns
from vitlab.inspection.charts import Point, against
from vitlab.studies.findings import Figure
from vitlab.studies.rivals import NEAREST, RIVALS, lead, turns
from vitlab.studies.spread import percent
from vitlab.studies.study import Edition, Finding, Results, Scale, Sheet, Study, Table
from vitlab.studies.work import Piece, Training
from vitlab.studies.world import World, slug
from vitlab.studies.worlds import in_every_world

SHARES: Mapping[Scale, tuple[float, ...]] = {
    "miniature": (0.1, 0.3, 1),
    "small": (0.1, 0.3, 1),
    "paper": (0.03, 0.1, 0.3, 1),
}
"""Of the large set's images; the paper takes 9, 30, 90 and 300 millions."""

Reached = Mapping[str, Mapping[float, OverRuns | None]]
"""The accuracy of every network after every share."""


def networks(world: World) -> list[str]:
    """Return what is compared: the rivals, ViTs first, and at the paper's scale its other ViTs."""
    pairs = RIVALS[world.scale]
    others = ["L/32", "b/32"] if world.scale == "paper" else []
    return [*(pair.vit for pair in pairs), *others, *(pair.resnet for pair in pairs)]


def pretrained_on(world: World, network: str, share: float, seed: int) -> Training:
    """Return the pre-training on a random share of the large set's images of every class, else as on all of it.

    Smaller shares are parts of larger ones.
    """
    whole = world.pretrained(network, "large", seed)
    if share == 1:
        return whole
    _, part = world.sets["large"]().split(share, seed=0)
    name = slug(f"{network} on {share:g} of large")
    return Training(f"{name}-seed{seed}", whole.settings.model_copy(update={"train_data": part}))


def edition(world: World) -> Edition:
    """Return the study in `world`: pre-training on every share, judged by linear heads on frozen features."""
    grid: dict[str, Piece] = {
        _label(network, share, seed): world.heads(pretrained_on(world, network, share, seed), task=NEAREST[world.scale])
        for network in networks(world)
        for share in SHARES[world.scale]
        for seed in world.seeds
    }
    return Edition(world.words, grid, partial(sheet, world))


def sheet(world: World, results: Results) -> Sheet:
    """Return the figure and its numbers, and whether ViTs overtake the ResNets that cost as much."""
    shares = SHARES[world.scale]
    reached: Reached = {
        network: {
            share: results.over([_label(network, share, seed) for seed in world.seeds], "top1") for share in shares
        }
        for network in networks(world)
    }
    images = {share: round(share * len(world.sets["large"]())) for share in shares}
    heading = ["network", *(f"{images[share]:,} images" for share in shares)]
    rows = [[network, *(percent(top1) for top1 in found.values())] for network, found in reached.items()]
    note = (
        f"Top-1 in percent of linear heads on {world.shots} images a class of {NEAREST[world.scale]}, mean and sample deviation "
        "over seeds. All are trained for the same number of steps with the same settings; the paper stops each where it is best."
    )
    table = Table("Linear few-shot accuracy after pre-training on", [heading, *rows], note)
    return Sheet([table], [_figure(world, reached, images)], _finding(world, reached, shares))


def _figure(world: World, reached: Reached, images: Mapping[float, int]) -> Figure:
    points = {
        network: [
            Point(images[share], 100 * top1.mean, None if top1.std is None else 100 * top1.std)
            for share, top1 in found.items()
            if top1 is not None
        ]
        for network, found in reached.items()
    }
    y_label = f"linear {world.shots}-shot top-1 [%]"
    drawing = against({NEAREST[world.scale]: points}, "pre-training images", y_label, log_x=True)
    text = f"Random subsets of {world.titles['large']}, with the same classes. Bars are sample deviations over seeds."
    return Figure("Few-shot accuracy against pre-training images", text, drawing)


def _finding(world: World, reached: Reached, shares: Sequence[float]) -> Finding:
    words, turned = list[str](), list[bool | None]()
    for vit, resnet in RIVALS[world.scale]:
        first, last = (lead(reached[vit][share], reached[resnet][share]) for share in (shares[0], shares[-1]))
        if first is None or last is None:
            return Finding(None, f"Not both of {vit} and {resnet} are measured at both ends.")
        words.append(
            f"{vit} is {first.words(resnet)}, which costs about as much, after {100 * shares[0]:g} % of the images, and "
            f"{last.words()} after all."
        )
        turned.append(turns(first, last))
    agrees = False if False in turned else None if None in turned else True
    return Finding(agrees, " ".join(words))


def _label(network: str, share: float, seed: int) -> str:
    return f"{network} on {share:g}, seed {seed}"


STUDY = Study(
    name="figure4",
    title="Few-shot accuracy against pre-training images",
    question="Do ViTs need more images than ResNets that cost as much?",
    found=(
        "ResNets are better after few pre-training images and plateau sooner than ViTs, which are better after more: ViT-B/32 is "
        "much worse than ResNet50 after 9 million images and better after 90 million; the same holds of ViT-L/16 and ResNet152x2."
    ),
    source="Figure 4, section 4.3",
    editions=in_every_world(edition),
    minutes=7,
)
