"""Which layer already knows the answer: the model's own head on the tokens after every layer."""

import torch
from jaxtyping import Float
from torch import Tensor

from vitlab.models.vit import ViT


@torch.inference_mode()
def logit_lens(model: ViT, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "layers b k"]:
    """Return the logits that final norm, pooling and head make of the tokens before the first layer and after each one.

    The first row is of the embedded patches, the last one is the model's answer (nostalgebraist 2020, "logit lens"). A head was
    trained on the last layer alone: below it, believe which class leads sooner than how far.

    Raises:
        ValueError: the model has no head.
    """
    if not model.settings.num_classes:
        raise ValueError("a model without a head has no answer in any layer")
    tokens = model.eval().embed(images)
    read = [_answer(model, tokens)]
    for block in model.encoder.blocks:
        tokens = block(tokens)
        read.append(_answer(model, tokens))
    return torch.stack(read)


def _answer(model: ViT, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k"]:
    return model.head(model.pool(model.encoder.norm(tokens)))


def settled_at(logits: Float[Tensor, "layers k"]) -> int:
    """Return the first layer from which on the class that leads in the last one leads in all; 0 is before the first layer."""
    leaders = logits.argmax(dim=1)
    other = (leaders != leaders[-1]).nonzero()
    return int(other.max()) + 1 if len(other) else 0
