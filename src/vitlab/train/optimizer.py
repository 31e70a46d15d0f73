"""Optimizers: Adam with decoupled weight decay, SGD with momentum; clipping by the global norm."""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.optim.sgd import sgd

from vitlab.config import Settings
from vitlab.train.sharding import own_part, whole

Fraction = Annotated[float, Field(ge=0, lt=1)]
Decay = Annotated[float, Field(ge=0)]


class Adam(Settings):
    """Adam whose weight decay is decoupled and multiplied by the scheduled learning rate (AdamW): pre-training.

    `decay` says what decays: the matrices ("kernels") or everything, biases, norms, class token and positions included ("all").
    The paper's optimizer decayed everything; its authors' later code decays kernels, and so do we.

    With `moment_dtype` "bfloat16" the mean of the gradients is rounded to 16 bits from one step to the next, as in big_vision
    (`mu_dtype`): two bytes less a parameter while gradients are computed. The second moment needs its precision and stays.
    """

    type: Literal["Adam"] = "Adam"
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Decay = 0.1
    decay: Literal["kernels", "all"] = "kernels"
    moment_dtype: Literal["float32", "bfloat16"] = "float32"


class SGD(Settings):
    """SGD with momentum: fine-tuning (appendix B.1.1), where weight decay is zero.

    With `moment_dtype` "bfloat16" the momentum is rounded to 16 bits from one step to the next, as in the paper's code, which also
    rounds the factor, to 0.8984375.
    """

    type: Literal["SGD"] = "SGD"
    momentum: Fraction = 0.9
    weight_decay: Decay = 0.0
    decay: Literal["kernels", "all"] = "kernels"
    moment_dtype: Literal["float32", "bfloat16"] = "float32"


OptimizerSettings = Adam | SGD


def build_optimizer(
    settings: OptimizerSettings,
    parameters: Iterable[tuple[str, nn.Parameter]],
    scales: Mapping[str, float] | None = None,
) -> torch.optim.Optimizer:
    """Return the optimizer of `settings` over those of the named parameters that need a gradient.

    The step sets the learning rate of each group: the schedule's, times the group's "lr_scale", which is that of `scales` for the
    names of its parameters, by default 1.
    """
    groups = _groups(settings, parameters, scales or {})
    match settings:
        case Adam():
            optimizer: torch.optim.Optimizer = torch.optim.AdamW(
                groups, lr=0.0, betas=(settings.beta1, settings.beta2), eps=settings.eps, fused=True
            )
        case SGD():
            optimizer = _FusedSGD(groups, lr=0.0, momentum=settings.momentum, fused=True)
            for group in optimizer.param_groups if settings.momentum else ():
                for parameter in group["params"]:
                    # torch makes it in the first update, of whatever the memory holds where that update is refused
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    if settings.moment_dtype == "bfloat16":
        _round_between_steps(optimizer, "exp_avg" if isinstance(settings, Adam) else "momentum_buffer")
    return optimizer


class _FusedSGD(torch.optim.SGD):
    """torch's fused SGD, given of sharded parameters the part that this rank has: its kernel knows no DTensor."""

    @torch.no_grad()
    def step(self, *_: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  (no closure)
        """Make one update of every parameter that has a gradient."""
        for group in self.param_groups:
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            momenta = [self.state[parameter].get("momentum_buffer") for parameter in trained]
            sgd(
                [own_part(parameter) for parameter in trained],
                [own_part(parameter.grad) for parameter in trained],
                [momentum if momentum is None else own_part(momentum) for momentum in momenta],
                **{
                    name: group[name]
                    for name in ("weight_decay", "momentum", "lr", "dampening", "nesterov", "maximize")
                },
                fused=True,
                found_inf=getattr(self, "found_inf", None),
            )


def _groups(
    settings: OptimizerSettings, parameters: Iterable[tuple[str, nn.Parameter]], scales: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return parameter groups of one rate and one decay each, those with the highest rate first, of each what decays first."""
    members: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in parameters:
        if parameter.requires_grad:
            decays = settings.decay == "all" or _is_kernel(name, parameter)
            members.setdefault((scales.get(name, 1.0), decays), []).append(parameter)
    return [
        {"params": members[key], "weight_decay": settings.weight_decay if key[1] else 0.0, "lr_scale": key[0]}
        for key in sorted(members, reverse=True)
    ]


def _round_between_steps(optimizer: torch.optim.Optimizer, kind: str) -> None:
    """Keep the state called `kind` in bfloat16 between the steps of `optimizer`; within a step it is what it always was."""

    def hook(dtype: torch.dtype | None) -> Callable[..., None]:
        def cast(*_: object) -> None:
            for parameter, state in optimizer.state.items():
                if state.get(kind) is not None:  # SGD has no momentum before its first step
                    state[kind] = state[kind].to(dtype or parameter.dtype)

        return cast

    optimizer.register_step_pre_hook(hook(None))
    optimizer.register_step_post_hook(hook(torch.bfloat16))


@torch.no_grad()
def clip_by_global_norm(parameters: Iterable[nn.Parameter], limit: float | None) -> Float[Tensor, ""]:
    """Scale all gradients so that their joint norm is at most `limit`, and return the norm that they had.

    The factor is exactly limit / norm, as in the paper's code; torch's own function adds 1e-6 to the norm.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = whole(nn.utils.get_total_norm(gradients))
    if limit is not None and gradients:
        factor = torch.where(norm < limit, torch.ones_like(norm), limit / norm)
        parts = [own_part(gradient) for gradient in gradients]
        torch._foreach_mul_(parts, factor)  # pyright: ignore  (as torch's own clipping does)
    return norm


def _is_kernel(name: str, parameter: Tensor) -> bool:
    return parameter.ndim >= 2 and name.endswith(".weight")
