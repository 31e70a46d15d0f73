"""The scaling study of section 4.4: every network of a world pre-trained on the largest set, which table 6 and figure 5 show."""

from collections.abc import Sequence
from typing import NamedTuple

from vitlab.evals.interval import OverRuns
from vitlab.studies.recipe import find_recipe
from vitlab.studies.study import Results
from vitlab.studies.table6 import name_of, read_paper
from vitlab.studies.transfer import FAMILIES, Family, Transfer, family_of
from vitlab.studies.work import Piece
from vitlab.studies.world import World


class Reached(NamedTuple):
    """A model: what its pre-training cost in exaFLOPs, and the accuracy that it then reached."""

    name: str
    family: Family
    exaflops: float
    top1: OverRuns


def scaling_set(world: World) -> list[Transfer]:
    """Return the models, families in the paper's order: its lines of table 6, or in a smaller world every network once."""
    if world.scale == "paper":
        return [_as_long(world, name_of(row.model), row.epochs) for row in read_paper()]
    models = [Transfer(world, network, seeds=world.seeds) for network in world.networks]
    return sorted(models, key=lambda model: (FAMILIES.index(family_of(model.settings)), model.exaflops))


def _as_long(world: World, network: str, epochs: int) -> Transfer:
    recipe = find_recipe(world.pretrained(network).settings.recipe, "pretrain")
    return Transfer(world, network, seeds=world.seeds, length=epochs / (recipe.epochs or epochs))


def scaling_grid(world: World) -> dict[str, Piece]:
    """Return the fine-tunings of all models by label."""
    return {label: piece for model in scaling_set(world) for label, piece in model.grid().items()}


def reached(models: Sequence[Transfer], results: Results, task: str | None = None) -> list[Reached]:
    """Return those of the models that have results on a task, or without one their average over tasks."""
    found = [(model, model.average(results) if task is None else model.top1(results, task)) for model in models]
    return [
        Reached(model.title, family_of(model.settings), model.exaflops, top1)
        for model, top1 in found
        if top1 is not None
    ]
