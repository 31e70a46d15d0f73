"""What the input layers learned: the principal components of the patch filters, and the similarity of positions (figure 7)."""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vitlab.models.classifier import Classifier
from vitlab.models.vit import ViT
from vitlab.nn.grid import Grid
from vitlab.nn.patches import Patches, to_images


@torch.no_grad()
def filter_components(model: Classifier, count: int = 28) -> NDArray[np.float32]:
    """Return the first principal components of the patch filters (figure 7, left): [count, height, width, 3].

    The filters are the rows of the patch projection, centred; fewer components come back where there are fewer dimensions.

    Raises:
        ValueError: the model has no filters that read patches of an image.
    """
    if not isinstance(model, ViT):
        raise ValueError("a ResNet has no filters of patches")
    if not isinstance(model.settings.stem, Patches):
        raise ValueError("the filters of a hybrid read a feature map and cannot be shown as colours")
    weight = model.stem.projection.weight.float().cpu()
    components = torch.linalg.svd(weight - weight.mean(dim=0), full_matrices=False).Vh[:count]
    images = to_images(components[:, None], Grid(1, 1), model.settings.stem.patch_size)
    return images.permute(0, 2, 3, 1).numpy()


@torch.no_grad()
def position_similarity(model: Classifier) -> Float[Tensor, "h w h w"]:
    """Return the cosine similarity of every position embedding with every other, class token left out (figure 7, centre).

    Entry [r, c] is the map of similarities to the patch in row r and column c.

    Raises:
        ValueError: the model has no position embeddings.
    """
    if not isinstance(model, ViT):
        raise ValueError("a ResNet has no positions")
    added = model.position
    if added is None:
        raise ValueError(
            f"a model with position {model.settings.position.type} has no table of positions after its stem"
        )
    table = added.rows_of()[0, added.prefix :].float().cpu()
    unit = functional.normalize(table, dim=1)
    grid = model.settings.grid
    return (unit @ unit.T).reshape(*grid, *grid)
