"""What a model looks at: attention weights of each layer, and their rollout (figures 6 and 14)."""

from collections.abc import Iterator
from typing import TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor

from vitlab.models.classifier import Classifier
from vitlab.models.vit import Global, ViT
from vitlab.nn.pooling import AttentionPool, ClassToken, FirstPatch, Mean


def attends_globally(model: Classifier) -> TypeGuard[ViT]:
    """Return whether each layer of `model` has attention from every token to every token, which rollout multiplies."""
    return isinstance(model, ViT) and isinstance(model.settings.attention, Global)


@torch.inference_mode()
def attention_by_layer(model: ViT, images: Float[Tensor, "b c h w"]) -> Iterator[Float[Tensor, "b m n n"]]:
    """Yield the attention probabilities of each layer in turn, one layer in memory at a time; rows are queries."""
    model.eval()
    tokens = model.embed(images)
    for block in model.encoder.layers:
        yield block.attention_weights(tokens)
        tokens = block(tokens)


@torch.inference_mode()
def rollout(model: ViT, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b rows columns"]:
    """Return how much each patch reaches the pooled output through all layers, on the grid of patches, normalised to a peak of 1.

    Heads are averaged, the identity is added for the residual connection, rows are normalised, and the layers are multiplied from
    the first up (Abnar & Zuidema 2020; appendix D.8). Shown is the row of the token that is pooled, else the mean over patches.
    """
    joint: Tensor | None = None
    for weights in attention_by_layer(model, images):
        layer = weights.mean(dim=1)
        layer = layer + torch.eye(layer.shape[-1], device=layer.device)
        layer = layer / layer.sum(dim=-1, keepdim=True)
        joint = layer if joint is None else layer @ joint
    if joint is None:
        raise ValueError("a model without layers has no attention")
    prefix = model.settings.num_prefix
    match model.settings.pool:
        case ClassToken():
            rows = joint[:, 0]
        case FirstPatch():
            rows = joint[:, prefix]
        case Mean() | AttentionPool():
            rows = joint[:, prefix:].mean(dim=1)
    reached = rows[:, prefix:]
    reached = reached / reached.amax(dim=1, keepdim=True)
    return reached.unflatten(1, tuple(model.settings.grid))
