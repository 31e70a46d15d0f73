"""Figure 10 (appendix D.4): the similarity of positions after three trainings that differ in length, rate and weight decay."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitlab.inspection import figures
from vitlab.studies.findings import Figure
from vitlab.studies.inside import measured_positions, pretrained, seeds
from vitlab.studies.statements import similarity_of
from vitlab.studies.study import Edition, Finding, Results, Scale, Sheet, Study, Table
from vitlab.studies.work import Training
from vitlab.studies.world import World
from vitlab.studies.worlds import in_every_world
from vitlab.train.optimizer import Adam


class Run(NamedTuple):
    """A pre-training of figure 10, as the paper names it."""

    epochs: int
    lr: float
    decay: float


RUNS = (Run(7, 2e-4, 0.01), Run(7, 4e-4, 0.1), Run(14, 4e-4, 0.1))
USUAL: Mapping[Scale, Run] = {"miniature": RUNS[2], "small": RUNS[2], "paper": RUNS[1]}
"""The one of them that the recipe of a world stands for; the others are as much longer or shorter, faster or slower."""


def training(world: World, run: Run, seed: int = 0) -> Training:
    """Return the pre-training that stands for `run`."""
    usual, base = USUAL[world.scale], pretrained(world, "plain", seed)
    if run == usual:
        return base
    train, optimizer = base.settings.train, base.settings.train.optimizer
    assert isinstance(optimizer, Adam)  # every pre-training of table 3 has it
    return pretrained(
        world,
        "plain",
        seed,
        f"as {run.epochs} epochs at {run.lr:g}",
        steps=round(train.steps * run.epochs / usual.epochs),
        lr=train.lr * run.lr / usual.lr,
        optimizer=optimizer.model_copy(update={"weight_decay": optimizer.weight_decay * run.decay / usual.decay}),
    )


def edition(world: World) -> Edition:
    """Return the study in `world`: the three trainings, and the usual one with every seed, for how much chance changes."""
    grid = {_label(run): measured_positions(training(world, run)) for run in RUNS}
    usual = USUAL[world.scale]
    again = {_label(usual, seed): measured_positions(training(world, usual, seed)) for seed in seeds(world)[1:]}
    return Edition(world.words, {**grid, **again}, partial(sheet, world))


def sheet(world: World, results: Results) -> Sheet:
    """Return the maps beside each other, how much they differ, and whether that is more than seeds do."""
    usual = USUAL[world.scale]
    measured = {_label(run): results[_label(run)] for run in RUNS}
    maps = {label: similarity_of(result) for label, result in measured.items() if result is not None}
    again = [similarity_of(found) for seed in seeds(world)[1:] if (found := results[_label(usual, seed)]) is not None]
    apart = {pair: _difference(maps[pair[0]], maps[pair[1]]) for pair in combinations(maps, 2)}
    base = maps.get(_label(usual))
    by_seed = [] if base is None else [_difference(base, other) for other in again]
    rows = [
        ["trainings", "mean difference of similarity"],
        *([f"{one} | {other}", f"{found:.3f}"] for (one, other), found in apart.items()),
        *([f"{_label(usual)}, another seed", f"{found:.3f}"] for found in by_seed),
    ]
    note = "Trainings are named as in the paper; here they differ by the same factors. Similarity is from -1 to 1."
    text = "How alike the learned position of each patch is to every other, one map a patch."
    drawn = [Figure("Position similarity", text, figures.similarities(maps))] if maps else []
    return Sheet([Table("How much the patterns differ", rows, note)], drawn, _finding(list(apart.values()), by_seed))


def _finding(apart: Sequence[float], by_seed: Sequence[float]) -> Finding:
    if len(apart) < len(RUNS) or not by_seed:
        return Finding(
            None, "The three trainings, and one of them with another seed, are not all there to be compared."
        )
    words = (
        f"Trainings that differ in length, rate or weight decay have similarities that differ by {min(apart):.3f} to "
        f"{max(apart):.3f} on average; two seeds of one training by {max(by_seed):.3f}."
    )
    return Finding(min(apart) > max(by_seed), words)


def _difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(abs(one - other).mean())


def _label(run: Run, seed: int = 0) -> str:
    name = f"{run.epochs} epochs, rate {run.lr:g}, weight decay {run.decay:g}"
    return name if seed == 0 else f"{name}, seed {seed}"


STUDY = Study(
    name="figure10",
    title="Position similarity and how a network was trained",
    question="Does the pattern that positions learn depend on how long and how fast the network was trained?",
    found="The specific pattern of similarity depends on the hyperparameters of training.",
    source="Figure 10, appendix D.4",
    editions=in_every_world(edition),
    minutes=1,
)
