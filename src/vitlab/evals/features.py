"""One pass of a model over a source; the features it gives."""

from collections.abc import Callable
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitlab.data.loader import EvalBatches, bad_images_error, load
from vitlab.data.source import Source
from vitlab.errors import ImageError
from vitlab.models.classifier import Classifier
from vitlab.ranks import ALONE, Ranks


@torch.inference_mode()
def map_source(
    model: Classifier,
    source: Source,
    compute: Callable[[Tensor], Tensor],
    batch_size: int = 64,
    workers: int = 0,
    ranks: Ranks = ALONE,
) -> tuple[Tensor, tuple[str, ...]]:
    """Return `compute` of every example's normalised image [b, 3, h, w], one row each in order, and the examples' names.

    Every batch has the same shape (the last one is padded and cut), so that an example's numbers do not depend on its place. The
    `ranks` share the batches, and each gets all that came out.

    Raises:
        BadImagesError: some images cannot be decoded; each is named.
    """
    model.eval()
    device = next(model.parameters()).device
    batches = EvalBatches(source, model.image_spec, batch_size, ranks)
    rows: list[Tensor] = []
    keys: list[str] = []
    try:
        for batch in load(batches, range(len(batches)), workers):
            values = compute(model.image_spec.normalise(batch.images.to(device))).float().cpu()
            rows.append(ranks.rows(values)[ranks.rows(batch.valid)])
            keys += batch.keys
    except ImageError as error:
        raise bad_images_error(source, error, model.image_spec.limits, workers) from error
    return torch.cat(rows), _in_order(batches, keys)


def _in_order(batches: EvalBatches, keys: list[str]) -> tuple[str, ...]:
    """Return the names of all examples in the order of the source, from those that each rank read."""
    parts = [iter(part) for part in batches.ranks.words(keys)]
    return tuple(
        key
        for number in range(len(batches))
        for rank, part in enumerate(parts)
        for key in islice(part, len(batches.rows(number, rank)))
    )


def extract(model: Classifier, source: Source, batch_size: int = 64, workers: int = 0) -> NDArray[np.float32]:
    """Return the features of every example of `source` in order: float32 [n, r]."""
    return map_source(model, source, model.features, batch_size, workers)[0].numpy()
