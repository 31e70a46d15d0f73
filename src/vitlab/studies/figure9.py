"""Figure 9 (appendix D.3): the class token against global average pooling, each at several learning rates."""

from collections.abc import Mapping
from functools import partial

from vitlab.evals.interval import OverRuns
from vitlab.inspection.charts import Point, against
from vitlab.nn.pooling import ClassToken, Mean, Pool
from vitlab.studies.ablation import task_of
from vitlab.studies.findings import Figure
from vitlab.studies.spread import percent, typical_deviation
from vitlab.studies.study import Edition, Finding, Results, Sheet, Study, Table
from vitlab.studies.work import Piece, Training
from vitlab.studies.world import World
from vitlab.studies.worlds import in_every_world

POOLS: Mapping[str, Pool] = {"class token": ClassToken(), "average pooling": Mean()}
TOKEN, MEAN = POOLS
FACTORS = (3 / 8, 1.0, 8 / 3)
"""Rates in those of the recipe. The paper's are 8e-4, the recipe's, for both, and 3e-4 for average pooling alone."""
IN_THE_PAPER = {(TOKEN, 1.0): "good", (MEAN, 1.0): "very poor", (MEAN, 3 / 8): "as good"}

Found = Mapping[tuple[str, float], OverRuns | None]


def edition(world: World) -> Edition:
    """Return the study in `world`: the usual network with either pooling, pre-trained at every rate."""
    grid: dict[str, Piece] = {
        _label(pool, factor, seed): world.heads(_training(world, pool, factor, seed), task=task_of(world))
        for pool in POOLS
        for factor in FACTORS
        for seed in world.seeds
    }
    return Edition(world.words, grid, partial(sheet, world))


def _training(world: World, pool: str, factor: float, seed: int) -> Training:
    if pool == TOKEN and factor == 1:
        return world.pretrained(seed=seed)
    model = world.networks[world.usual].model_copy(update={"pool": POOLS[pool]})
    name = f"{pool} at {factor:.3g} of the rate"
    training = world.variant(name, model, seed=seed, lr=factor * _rate(world))
    if pool == TOKEN:
        return training
    linear = training.settings.model.model_copy(update={"representation_dim": None})  # "just like" a ResNet's
    return Training(training.name, training.settings.model_copy(update={"model": linear}))


def _rate(world: World) -> float:
    return world.pretrained().settings.train.lr


def sheet(world: World, results: Results) -> Sheet:
    """Return accuracy by rate, and whether it is the rate rather than the pooling that matters."""
    found: Found = {
        (pool, factor): results.over([_label(pool, factor, seed) for seed in world.seeds], "top1")
        for pool in POOLS
        for factor in FACTORS
    }
    heading = ["learning rate", *(cell for pool in POOLS for cell in (pool, "in the paper"))]
    rows = [
        [
            f"{factor * _rate(world):.2g}",
            *(cell for pool in POOLS for cell in (percent(found[pool, factor]), IN_THE_PAPER.get((pool, factor), ""))),
        ]
        for factor in FACTORS
    ]
    note = (
        f"Top-1 in percent of linear heads on {world.shots} images a class of {task_of(world)}, mean and sample deviation over "
        "seeds. "
        f"The paper shows rates of 8e-4 and 3e-4, here in the rows of {_rate(world):.2g} and {FACTORS[0] * _rate(world):.2g}, and "
        "draws curves without numbers."
    )
    points = {
        pool: [
            Point(factor * _rate(world), 100 * each.mean, each.std and 100 * each.std) for factor, each in of.items()
        ]
        for pool in POOLS
        if (of := _known(found, pool))
    }
    text = "Both at the end of pre-training; the paper draws the same over its course, at fewer rates."
    drawing = against({"": points}, "learning rate", f"top-1 on {task_of(world)} in %", log_x=True)
    figure = Figure("Accuracy against the learning rate", text, drawing)
    return Sheet(
        [Table("Linear few-shot accuracy", [heading, *rows], note)], [figure] if points else [], _finding(world, found)
    )


def _known(found: Found, pool: str) -> dict[float, OverRuns]:
    return {factor: each for factor in FACTORS if (each := found[pool, factor]) is not None}


def _finding(world: World, found: Found) -> Finding:
    """The pooling matters less than its rate: the best of both differ by less than average pooling
    loses at the token's rate, which is more than the deviation over seeds."""
    token, mean = _known(found, TOKEN), _known(found, MEAN)
    if len(token) + len(mean) < len(found):
        return Finding(None, "Not every rate could be measured.")
    token_rate, mean_rate = (max(each, key=lambda factor: each[factor].mean) for each in (token, mean))
    gap = token[token_rate].mean - mean[mean_rate].mean
    loss = mean[mean_rate].mean - mean[token_rate].mean
    words = (
        f"The class token is best at {token_rate * _rate(world):.2g} with {100 * token[token_rate].mean:.1f} %, average pooling at "
        f"{mean_rate * _rate(world):.2g} with {100 * mean[mean_rate].mean:.1f} %: a difference of {100 * abs(gap):.1f} points. "
        + (
            "Both are best at the same rate."
            if token_rate == mean_rate
            else f"At the rate of the class token, average pooling is {100 * loss:.1f} points below its best."
        )
    )
    noise = typical_deviation([*token.values(), *mean.values()])
    return Finding(loss > max(abs(gap), noise), words)


def _label(pool: str, factor: float, seed: int) -> str:
    return f"{pool}, {factor:.3g} of the rate, seed {seed}"


STUDY = Study(
    name="figure9",
    title="Class token and average pooling",
    question="Does a ViT need its class token?",
    found="Averaging the patches' outputs works as well as a class token, but needs a lower learning rate: at that of the class "
    "token it performed very poorly.",
    source="Figure 9, appendix D.3",
    editions=in_every_world(edition),
    minutes=4,
)
