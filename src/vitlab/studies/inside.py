"""What the studies that look inside share: networks, and what is measured of them."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from vitlab.config import to_json
from vitlab.data.loader import pixels_of
from vitlab.data.open import AnySource
from vitlab.data.source import Pixels, Subset
from vitlab.evals.features import map_source
from vitlab.inspection.attention import rollout
from vitlab.inspection.distance import attention_distance, even_distance
from vitlab.inspection.embeddings import filter_components, position_similarity
from vitlab.inspection.figures import attending
from vitlab.models.classifier import Classifier
from vitlab.models.vit import ViTSettings
from vitlab.nn.grid import as_size
from vitlab.studies.study import Scale
from vitlab.studies.work import Measurement, Result, Training, Untrained
from vitlab.studies.world import Task, World

Kind = Literal["plain", "coarse", "hybrid"]
"""ViT-L/16, ViT-L/32 and R50+ViT-L/16 in the paper."""
NAMES: Mapping[Scale, Mapping[Kind, str]] = {
    "miniature": {"plain": "Micro/4", "coarse": "Micro/4", "hybrid": "R5+Micro/4"},
    "small": {"plain": "Ti/4", "coarse": "Ti/4", "hybrid": "R8+Ti/4"},
    "paper": {"plain": "L/16", "coarse": "L/32", "hybrid": "R50+L/16"},
}
"""Those of a world's networks that are looked into."""
SIGHT: Mapping[Scale, int] = {"miniature": 32}
"""The side of the images in the fine-tuning whose rollout is shown, where it is not the recipe's: 8×8 patches, of 4×4 before."""
IMAGES = 128
"""So many images of the test set are shown to a network, as in figure 7 of the paper."""
AT_ONCE = 8
"""Images in a batch: the attention of one layer of ViT-L/16 at 384 pixels is 21 MB an image."""


def network(world: World, kind: Kind) -> ViTSettings:
    """Return the network that is looked into."""
    model = world.networks[NAMES[world.scale][kind]]
    assert isinstance(model, ViTSettings)  # all of NAMES are
    return model


def pretrained(world: World, kind: Kind, seed: int = 0, words: str = "", **train: Any) -> Training:
    """Return its pre-training on the large set, that of other studies too; `words` name what `train` changes of the recipe."""
    name = NAMES[world.scale][kind]
    if not train:
        return world.pretrained(name, seed=seed)
    return world.variant(f"{name} on large {words}", network(world, kind), name, seed=seed, **train)


def seeds(world: World) -> tuple[int, ...]:
    """Return the seeds of what is looked into: two show how far trainings differ."""
    return world.seeds[:2]


def sight(world: World) -> str:
    """Return the task on which attention is shown: digits where there are, whose ink can be told from the background."""
    return "digits" if "digits" in world.tasks else world.task


def finetuned(world: World, seed: int = 0) -> Training:
    """Return the fine-tuning of the plain network whose rollout is shown; as in the paper its images may be larger than before."""
    model, side = network(world, "plain"), SIGHT.get(world.scale)
    if side is not None:
        model = model.model_copy(update={"image_size": as_size(side)})
    return world.finetuned(pretrained(world, "plain", seed), model, sight(world), seed)


def shown(test: AnySource) -> Subset:
    """Return the images that networks are shown: of a test set a random selection, always the same."""
    count = min(IMAGES, len(test))
    return Subset(test, np.random.default_rng(0).choice(len(test), count, replace=False))


def picture(training: Training, source: Subset, index: int) -> Pixels:
    """Return the image at `index` of `source` as the network of `training` sees it."""
    return training.settings.image_spec.prepare(pixels_of(source.read(index)))


def measured_filters(model: Training | Untrained) -> Measurement:
    """Return the measurement of `components`, the first 28 of the patch filters, each from 0 to 1."""
    return Measurement(f"filters-{_name(model)}", _measure_filters, (model,))


def measured_positions(model: Training) -> Measurement:
    """Return the measurement of `similarity`, of every position with every other."""
    return Measurement(f"positions-{_name(model)}", _measure_positions, (model,))


def measured_distances(world: World, model: Training) -> Measurement:
    """Return the measurement of `pixels`, the attention distance by layer and head, and `even`, that of attention to all alike."""
    test = world.tasks[world.task]().test
    inputs = {"images": to_json(test), "count": IMAGES}
    return Measurement(f"distances-{_name(model)}", partial(_measure_distances, test=test), (model,), inputs)


def measured_rollouts(world: World, model: Training | Untrained) -> Measurement:
    """Return the measurement of `maps`, the rollout in every image.

    Of digits also `mass` and `area`, by image: the share of the rollout, and of the patches, that are on ink.
    """
    task = sight(world)
    given = world.tasks[task]()
    inputs = {"images": to_json(given.test), "count": IMAGES}
    measure = partial(_measure_rollouts, task=given, inked=task == "digits")
    return Measurement(f"rollouts-{_name(model)}", measure, (model,), inputs)


def _measure_filters(models: Sequence[Classifier]) -> Result:
    components = filter_components(models[0], 28)
    low, high = (find(axis=(1, 2, 3), keepdims=True) for find in (components.min, components.max))
    return {"components": _rounded((components - low) / np.maximum(high - low, 1e-12))}


def _measure_positions(models: Sequence[Classifier]) -> Result:
    return {"similarity": _rounded(position_similarity(models[0]))}


def _measure_distances(models: Sequence[Classifier], *, test: AnySource) -> Result:
    model = attending(models[0])
    found, _ = map_source(model, shown(test), partial(attention_distance, model), AT_ONCE)
    return {"pixels": _rounded(found.mean(dim=0)), "even": even_distance(model)}


def _measure_rollouts(models: Sequence[Classifier], *, task: Task, inked: bool) -> Result:
    model, source = attending(models[0]), shown(task.test)
    found, _ = map_source(model, source, partial(rollout, model), AT_ONCE)
    result = {"maps": _rounded(found)}
    if not inked:
        return result
    cell, grid = model.settings.stem.cell, model.settings.grid
    seen = np.stack([model.image_spec.prepare(pixels_of(source.read(index))) for index in range(len(source))])
    bright = seen.reshape(-1, grid.rows, cell.height, grid.columns, cell.width, 3).mean(axis=(2, 4, 5))
    ink = bright >= bright.max(axis=(1, 2), keepdims=True) / 2
    mass = (found.numpy() * ink).sum(axis=(1, 2)) / found.numpy().sum(axis=(1, 2))
    return {**result, "mass": _rounded(mass), "area": _rounded(ink.mean(axis=(1, 2)))}


def _rounded(values: ArrayLike) -> list[Any]:
    return np.asarray(values, np.float64).round(3).tolist()


def _name(model: Training | Untrained) -> str:
    return model.name if isinstance(model, Training) else f"untrained-{model.training.name}"
