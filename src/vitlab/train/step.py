"""One update: normalise, forward, loss, backward, bring together, clip, apply. Nothing in it waits for the device."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vitlab.data.batch import Batch
from vitlab.errors import NonFiniteError
from vitlab.nn.seed import keyed_seed
from vitlab.ranks import Ranks
from vitlab.train import average
from vitlab.train.config import TrainSettings
from vitlab.train.optimizer import clip_by_global_norm
from vitlab.train.precision import autocast
from vitlab.train.replicas import last_piece
from vitlab.train.state import TrainState
from vitlab.train.tree import TreeSum


@dataclass(frozen=True)
class StepResult:
    """The loss and the gradient's norm before clipping, both from before the update, and the rate it used."""

    loss: float
    grad_norm: float
    lr: float


@dataclass(frozen=True)
class Update:
    """Update `step` (from 0) as the device was asked for it: its numbers are known when somebody reads them.

    `numbers` are the loss, the gradient's norm, and how many ranks were asked to stop, on their way to the host, where they are
    once `sent` has happened; `losses` are those of this rank's pieces, whose examples are `keys`.
    """

    step: int
    lr: float
    numbers: Tensor = field(repr=False)
    losses: Tensor = field(repr=False)
    keys: tuple[tuple[str, ...], ...] = field(repr=False)
    sent: torch.cuda.Event | None = field(default=None, repr=False)

    def read(self, state: TrainState) -> StepResult:
        """Return the numbers, waiting for the device to have made this update, but not those after it.

        Raises:
            NonFiniteError: the loss or the gradient is not finite; `state` is as it was before this update.
        """
        loss, norm, _ = self._arrived().tolist()
        if not bool(self.numbers[:2].isfinite().all()):
            state.step = self.step
            state.refused.zero_()
            raise self._refused(state.ranks, loss, norm)
        return StepResult(loss, norm, self.lr)

    @property
    def stop_requests(self) -> int:
        """How many ranks had been asked to stop."""
        return int(self._arrived()[2])

    def _arrived(self) -> Tensor:
        if self.sent is not None:
            self.sent.synchronize()
        return self.numbers

    def _refused(self, ranks: Ranks, loss: float, norm: float) -> NonFiniteError:
        finite = self.losses.isfinite().tolist()
        suspects = [name for keys, good in zip(self.keys, finite, strict=True) for name in keys if not good]
        names = [name for rank in ranks.words(suspects) for name in rank]
        if not names:  # a gradient alone: no piece can be told from the others
            names = [name for rank in ranks.words([name for keys in self.keys for name in keys]) for name in rank]
        shown = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
        what = f"loss {loss}, gradient norm {norm}; the batch holds {shown}"
        return NonFiniteError(f"step {self.step}", what, "resume with a lower --lr, or look at these images")


def train_step(state: TrainState, pieces: Iterable[Batch], settings: TrainSettings, stop: bool = False) -> Update:
    """Make one update of `state` with this rank's `pieces` of the batch; `stop` tells the other ranks of a request to stop.

    An update whose loss or gradient is not finite changes nothing, and neither does any after it: the device knows before
    anybody can read it.
    """
    learner, ranks = state.learner.train(), state.ranks
    own = ranks.share(settings.pieces)
    state.optimizer.zero_grad(set_to_none=True)
    losses, keys, tree = list[Tensor](), list[tuple[str, ...]](), TreeSum()
    for piece, loaded in zip(own, pieces, strict=True):
        torch.manual_seed(keyed_seed(settings.seed, "dropout", state.step, piece))
        batch = loaded.to(state.device)
        # the mean over the ranks is what brings gradients together, so that each has to give `world` times its part
        scale = 1.0 if settings.exact else float(ranks.world)
        with last_piece(learner, last=piece == own[-1]):
            with autocast(state.device, settings.precision):
                loss = learner(batch.images, batch.labels).sum() / settings.batch_size
            (loss * scale if scale != 1.0 else loss).backward()
        losses.append(loss.detach())
        keys.append(batch.keys)
        if settings.exact:
            tree.add([losses[-1].clone(), *_take_gradients(state)])
    if settings.exact:
        total, *gradients = tree.total(ranks)
        for parameter, gradient in zip(state.parameters(), gradients, strict=True):
            parameter.grad = gradient
        asked = ranks.sum(torch.full((), float(stop), device=state.device))
    else:
        total, asked = ranks.sum(
            torch.stack([sum(losses[1:], losses[0]), losses[0].new_full((), float(stop))])
        ).unbind()
    norm = clip_by_global_norm(state.parameters(), settings.clip_norm)
    numbers = torch.stack([total, norm, asked])
    lr = _apply(state, settings, numbers)
    update = Update(
        state.step, lr, numbers.to("cpu", non_blocking=True), torch.stack(losses), tuple(keys), _mark(numbers)
    )
    state.step += 1
    return update


def _mark(tensor: Tensor) -> torch.cuda.Event | None:
    """Return what happens when a GPU has done all that it was asked to; None where `tensor` is on no GPU."""
    if not tensor.is_cuda:
        return None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(tensor.device))
    return event


def _take_gradients(state: TrainState) -> list[Tensor]:
    """Return the gradient of every parameter, zero where a piece gave none, and leave none behind."""
    taken = [torch.zeros_like(each) if each.grad is None else each.grad for each in state.parameters()]
    state.optimizer.zero_grad(set_to_none=True)
    return taken


def _apply(state: TrainState, settings: TrainSettings, numbers: Tensor) -> float:
    """Make the update unless a number is not finite, and return the learning rate."""
    lr = settings.rate(state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
    state.refused = torch.maximum(state.refused, 1.0 - numbers[:2].isfinite().all().float())
    state.optimizer.found_inf = state.refused  # pyright: ignore[reportAttributeAccessIssue]  (what a gradient scaler sets)
    state.optimizer.step()
    if state.average is not None and settings.average is not None:
        kept = average.decay_at(state.step, settings.average)
        average.update(state.average, state.named_parameters(), kept, skip=state.refused)
    return lr
