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


def attention_by_layer(model: ViT, images: Float[Tensor, "b c h w"]) -> Iterator[Float[Tensor, "b m n n"]]:
    """Yield the attention probabilities of each layer in turn, one layer in memory at a time; rows are queries."""
    with torch.inference_mode():
        tokens = model.eval().embed(images)
    for block in model.encoder.layers:
        with torch.inference_mode():
            weights = block.attention_weights(tokens)
        yield weights
        del weights  # whoever reads this does so too, or two layers are there at once
        with torch.inference_mode():
            tokens = block(tokens)


def readout(model: ViT) -> Float[Tensor, " n"]:
    """Return how much of each token the output is made of: the pooled token alone, or every patch alike; the sum is 1.

    With attention pooling every patch counts alike too: how its query weighs them is not a matter of the layers below.
    """
    settings = model.settings
    share = torch.zeros(settings.num_tokens, device=next(model.parameters()).device)
    match settings.pool:
        case ClassToken():
            share[0] = 1
        case FirstPatch():
            share[settings.num_prefix] = 1
        case Mean() | AttentionPool():
            share[settings.num_prefix :] = 1 / settings.grid.cells
    return share


@torch.inference_mode()
def attention_from(
    model: ViT, images: Float[Tensor, "b c h w"], patch: tuple[int, int] | None = None
) -> Float[Tensor, "b l m rows columns"]:
    """Return how much each patch is attended to from one `patch` (row and column of the grid), in every layer and head.

    By default it is the output that looks: the class token where it is pooled, else the mean over the tokens that are (see
    `readout`). What goes to class token and registers is left out, so that a map adds up to at most 1.

    Raises:
        ValueError: there is no such patch.
    """
    settings = model.settings
    query = readout(model)
    if patch is not None:
        row, column = patch
        if not (0 <= row < settings.grid.rows and 0 <= column < settings.grid.columns):
            raise ValueError(f"there is no patch {row}, {column} on a grid of {settings.grid}")
        query = torch.zeros_like(query)
        query[settings.num_prefix + row * settings.grid.columns + column] = 1
    maps = [query @ weights for weights in attention_by_layer(model, images)]
    return torch.stack(maps, dim=1)[..., settings.num_prefix :].unflatten(3, tuple(settings.grid))


@torch.inference_mode()
def rollout(model: ViT, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b rows columns"]:
    """Return how much each patch reaches the pooled output through all layers, on the grid of patches, normalised to a peak of 1.

    Heads are averaged, the identity is added for the residual connection, rows are normalised, and the layers are multiplied from
    the first up (Abnar & Zuidema 2020; appendix D.8). Shown is the row of the token that is pooled, else the mean over patches.
    """
    joint: Tensor | None = None
    for weights in attention_by_layer(model, images):
        layer = weights.mean(dim=1)
        del weights
        layer = layer + torch.eye(layer.shape[-1], device=layer.device)
        layer = layer / layer.sum(dim=-1, keepdim=True)
        joint = layer if joint is None else layer @ joint
    if joint is None:
        raise ValueError("a model without layers has no attention")
    reached = (readout(model) @ joint)[:, model.settings.num_prefix :]
    reached = reached / reached.amax(dim=1, keepdim=True)
    return reached.unflatten(1, tuple(model.settings.grid))
