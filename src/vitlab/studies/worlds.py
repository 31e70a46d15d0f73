"""The worlds, one a scale."""

from collections.abc import Callable, Mapping
from functools import partial

from vitlab.studies.study import Edition, Scale
from vitlab.studies.world import World
from vitlab.studies.world_miniature import MINIATURE
from vitlab.studies.world_paper import PAPER
from vitlab.studies.world_small import SMALL

WORLDS = (MINIATURE, SMALL, PAPER)


def in_every_world(edition: Callable[[World], Edition]) -> Mapping[Scale, Callable[[], Edition]]:
    """Return the editions of a study that is written for any world."""
    return {world.scale: partial(edition, world) for world in WORLDS}
