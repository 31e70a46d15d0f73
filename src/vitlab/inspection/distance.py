"""How far the heads of each layer look, in pixels (figures 7, right, and 11)."""

import torch
from jaxtyping import Float
from torch import Tensor

from vitlab.inspection.attention import attention_by_layer
from vitlab.models.vit import ViT
from vitlab.nn.grid import Grid, Size


def patch_distances(grid: Grid, cell: Size) -> Float[Tensor, "n n"]:
    """Return the distance between any two patches in pixels, from middle to middle; `cell` is the size of one."""
    y = torch.arange(grid.rows).repeat_interleave(grid.columns) * float(cell.height)
    x = torch.arange(grid.columns).repeat(grid.rows) * float(cell.width)
    return torch.hypot(y[:, None] - y, x[:, None] - x)


@torch.inference_mode()
def attention_distance(model: ViT, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b l m"]:
    """Return the mean attention distance of every layer and head, in pixels of the image that the model sees.

    It is the distance from a patch to the patches it attends to, weighted by attention, and the mean of that over patches. Class
    token and registers are left out, as queries and as keys, and what goes to them is not shared out among the patches: as in the
    author's code. The paper averages 128 images. Even attention on 14×14 patches of 16 pixels is 116.49 pixels.
    """
    settings = model.settings
    distances = patch_distances(settings.grid, settings.stem.cell).to(images.device)
    prefix, layers = settings.num_prefix, list[Tensor]()
    for weights in attention_by_layer(model, images):
        layers.append(torch.einsum("bmqk,qk->bm", weights[:, :, prefix:, prefix:], distances) / settings.grid.cells)
        del weights
    return torch.stack(layers, dim=1)


def even_distance(model: ViT) -> float:
    """Return the attention distance of a head that attends to every token alike, in pixels."""
    settings = model.settings
    return float(patch_distances(settings.grid, settings.stem.cell).mean()) * settings.grid.cells / settings.num_tokens
