"""One pass of a model over a source; the features it gives."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitlab.data.loader import EvalBatches, bad_images_error, load
from vitlab.data.source import Source
from vitlab.errors import ImageError
from vitlab.models.classifier import Classifier


@torch.inference_mode()
def map_source(
    model: Classifier, source: Source, compute: Callable[[Tensor], Tensor], batch_size: int = 64, workers: int = 0
) -> tuple[Tensor, tuple[str, ...]]:
    """Return `compute` of every example's normalised image [b, 3, h, w], one row each in order, and the examples' names.

    Every batch has the same shape (the last one is padded and cut), so that an example's numbers do not depend on its place.

    Raises:
        BadImagesError: some images cannot be decoded; each is named.
    """
    model.eval()
    device = next(model.parameters()).device
    batches = EvalBatches(source, model.image_spec, batch_size)
    rows: list[Tensor] = []
    keys: list[str] = []
    try:
        for batch in load(batches, range(len(batches)), workers):
            rows.append(compute(model.image_spec.normalise(batch.images.to(device))).float().cpu()[batch.valid])
            keys += batch.keys
    except ImageError as error:
        raise bad_images_error(source, error, model.image_spec.limits, workers) from error
    return torch.cat(rows), tuple(keys)


def extract(model: Classifier, source: Source, batch_size: int = 64, workers: int = 0) -> NDArray[np.float32]:
    """Return the features of every example of `source` in order: float32 [n, r]."""
    return map_source(model, source, model.features, batch_size, workers)[0].numpy()
