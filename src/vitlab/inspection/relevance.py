"""Why this class: the patches whose attention raised its logit."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vitlab.inspection.attention import readout
from vitlab.models.vit import ViT
from vitlab.nn.encoder import Block


def relevance(model: ViT, image: Float[Tensor, "1 c h w"], classes: Sequence[int]) -> Float[Tensor, "k rows columns"]:
    """Return how much each patch spoke for each of `classes` in one image, on the grid of patches; no value is below zero.

    Of every layer the attention is multiplied by its gradient for the logit of the class; the mean over heads of what is positive
    is Ā, and the layers are joined as R ← R + ĀR from the identity up (Chefer et al. 2021, "Generic attention-model
    explainability", equations 5 and 6). Shown is what reaches the pooled output that way, the identity itself left out: it is the
    same for all patches. The scale is the model's own: compare patches, not images.

    It goes from the last layer down with one row of R for each class. In memory are the tokens that enter each layer, and the
    attention and gradient of one layer.

    Raises:
        ValueError: the model has no such class.
    """
    count = model.settings.num_classes or 0
    unknown = [number for number in classes if not 0 <= number < count]
    if unknown:
        raise ValueError(f"there is no class {unknown[0]} among {count}")
    with torch.inference_mode(False):
        inputs = _inputs(model.eval(), image)
        tokens = inputs.pop().requires_grad_()
        with torch.enable_grad():
            logits = model.head(model.pool(model.encoder.norm(tokens)))[0]
            slopes = [torch.autograd.grad(logits[number], tokens, retain_graph=True)[0] for number in classes]
        start = readout(model)
        rows = [start.clone() for _ in classes]
        for block in reversed(model.encoder.layers):
            _step_down(block, inputs.pop().requires_grad_(), slopes, rows)
        reached = torch.stack([row - start for row in rows]) if rows else start.new_zeros(0, len(start))
    return reached[:, model.settings.num_prefix :].unflatten(1, tuple(model.settings.grid))


@torch.no_grad()
def _inputs(model: ViT, image: Float[Tensor, "1 c h w"]) -> list[Tensor]:
    """Return the tokens that enter each layer, and those that leave the last: not inference tensors, which have no gradient."""
    tokens = [model.embed(image)]
    for block in model.encoder.layers:
        tokens.append(block(tokens[-1]))
    return tokens


def _step_down(block: Block, below: Tensor, slopes: list[Tensor], rows: list[Tensor]) -> None:
    """Take the gradient of each class, and its row of R, from above `block` to below it."""
    with torch.enable_grad():
        weights, above = block.explicit(below)
    for place, slope in enumerate(slopes):
        by_weight, slopes[place] = torch.autograd.grad(
            above, (weights, below), slope, retain_graph=place + 1 < len(slopes)
        )
        positive = (weights.detach() * by_weight).clamp_(min=0).mean(dim=1)[0]
        rows[place] = rows[place] + rows[place] @ positive
