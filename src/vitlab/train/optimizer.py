"""Optimizers: Adam with decoupled weight decay, SGD with momentum; clipping by the global norm."""

from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from vitlab.config import Settings

Fraction = Annotated[float, Field(ge=0, lt=1)]
Decay = Annotated[float, Field(ge=0)]


class Adam(Settings):
    """Adam whose weight decay is decoupled and multiplied by the scheduled learning rate (AdamW): pre-training.

    `decay` says what decays: the matrices ("kernels") or everything, biases, norms, class token and positions included ("all").
    The paper's optimizer decayed everything; its authors' later code decays kernels, and so do we.
    """

    type: Literal["Adam"] = "Adam"
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Decay = 0.1
    decay: Literal["kernels", "all"] = "kernels"


class SGD(Settings):
    """SGD with momentum: fine-tuning (appendix B.1.1), where weight decay is zero."""

    type: Literal["SGD"] = "SGD"
    momentum: Fraction = 0.9
    weight_decay: Decay = 0.0
    decay: Literal["kernels", "all"] = "kernels"


OptimizerSettings = Adam | SGD


def build_optimizer(
    settings: OptimizerSettings, parameters: Iterable[tuple[str, nn.Parameter]]
) -> torch.optim.Optimizer:
    """Return the optimizer of `settings` over named `parameters`; the step sets its learning rate."""
    named = list(parameters)
    decayed = [p for name, p in named if settings.decay == "all" or _is_kernel(name, p)]
    chosen = {id(parameter) for parameter in decayed}
    others = [parameter for _, parameter in named if id(parameter) not in chosen]
    groups = [
        {"params": members, "weight_decay": decay}
        for members, decay in ((decayed, settings.weight_decay), (others, 0.0))
        if members
    ]
    match settings:
        case Adam():
            return torch.optim.AdamW(
                groups, lr=0.0, betas=(settings.beta1, settings.beta2), eps=settings.eps, fused=True
            )
        case SGD():
            optimizer = torch.optim.SGD(groups, lr=0.0, momentum=settings.momentum, fused=True)
            for _, parameter in named if settings.momentum else ():
                # torch makes it in the first update, of whatever the memory holds where that update is refused
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            return optimizer


@torch.no_grad()
def clip_by_global_norm(parameters: Iterable[nn.Parameter], limit: float | None) -> Float[Tensor, ""]:
    """Scale all gradients so that their joint norm is at most `limit`, and return the norm that they had.

    The factor is exactly limit / norm, as in the paper's code; torch's own function adds 1e-6 to the norm.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if limit is not None:
        factor = torch.where(norm < limit, torch.ones_like(norm), limit / norm)
        for gradient in gradients:
            gradient.mul_(factor)
    return norm


def _is_kernel(name: str, parameter: Tensor) -> bool:
    return parameter.ndim >= 2 and name.endswith(".weight")
