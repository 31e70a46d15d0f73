"""One update: normalise, forward, loss, backward, clip, apply."""

import math
from dataclasses import dataclass

import torch

from vitlab.data.batch import Batch
from vitlab.errors import NonFiniteError
from vitlab.nn.seed import keyed_seed
from vitlab.train.config import TrainSettings
from vitlab.train.optimizer import clip_by_global_norm
from vitlab.train.state import TrainState


@dataclass(frozen=True)
class StepResult:
    """The loss and the gradient's norm before clipping, both from before the update, and the rate it used."""

    loss: float
    grad_norm: float
    lr: float


def train_step(state: TrainState, batch: Batch, settings: TrainSettings) -> StepResult:
    """Make one update of `state` with `batch`, in micro-batches where the settings ask for them.

    Raises:
        NonFiniteError: the loss or the gradient is not finite; the weights are those before this step.
    """
    model = state.model.train()
    device = next(model.parameters()).device
    batch = batch.to(device)
    total = torch.zeros((), device=device)
    state.optimizer.zero_grad(set_to_none=True)
    size = settings.batch_size // settings.pieces
    for piece in range(settings.pieces):
        rows = slice(piece * size, (piece + 1) * size)
        torch.manual_seed(keyed_seed(settings.seed, "dropout", state.step, piece))
        loss = state.task(model, batch.images[rows], batch.labels[rows]).sum() / settings.batch_size
        loss.backward()
        total += loss.detach()
    norm = _clip(state, settings, batch, total)
    lr = settings.rate(state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    state.optimizer.step()
    state.step += 1
    return StepResult(float(total), norm, lr)


def _clip(state: TrainState, settings: TrainSettings, batch: Batch, loss: torch.Tensor) -> float:
    """Clip the gradients and return their norm from before; stop before a bad update is made."""
    norm = float(clip_by_global_norm((parameter for _, parameter in state.named_parameters()), settings.clip_norm))
    if not (math.isfinite(norm) and math.isfinite(float(loss))):
        shown = ", ".join(batch.keys[:5]) + (" …" if len(batch.keys) > 5 else "")
        raise NonFiniteError(
            f"step {state.step}",
            f"loss {float(loss)}, gradient norm {norm}; the batch holds {shown}",
            "resume with a lower --lr, or look at these images",
        )
    return norm
