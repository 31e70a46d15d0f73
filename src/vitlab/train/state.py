"""TrainState: everything that changes during a run, and nothing that a key can recompute.

There is no generator state and no scheduler object: data order, augmentation and dropout follow from (seed, step).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from vitlab.models.classifier import Classifier
from vitlab.ranks import ALONE, Ranks
from vitlab.train.balance import Weights
from vitlab.train.config import TrainSettings
from vitlab.train.objective import Task, build_task
from vitlab.train.optimizer import build_optimizer
from vitlab.train.replicas import Learner, as_stored, replicate, whole


@dataclass
class TrainState:
    """A model, what it is trained for, the optimizer of both, and the number of updates made.

    `learner` is model and task in one, as the ranks train it. `recent` are the losses of the last updates, oldest first, and
    `skipped` is how many updates were left out because they were not finite.
    `refused` is 1 on the device from the first update on whose loss or gradient was not finite.
    """

    model: Classifier
    task: Task
    optimizer: torch.optim.Optimizer
    learner: nn.Module
    ranks: Ranks
    refused: Tensor
    step: int = 0
    recent: list[float] = field(default_factory=list[float])
    skipped: int = 0

    @classmethod
    def start(
        cls, model: Classifier, settings: TrainSettings, weights: Weights | None = None, ranks: Ranks = ALONE
    ) -> "TrainState":
        """Return the state before the first update; `weights` [k] are how much each class counts in the loss, by default alike.

        Raises:
            SettingsError: the objective needs another kind of model.
        """
        device = next(model.parameters()).device
        task = build_task(settings.objective, model.settings, weights).to(device)
        learner = replicate(Learner(model, task), settings, ranks)
        optimizer = build_optimizer(settings.optimizer, _named(model, task))
        return cls(model, task, optimizer, learner, ranks, refused=torch.zeros((), device=device))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.refused.device

    @property
    def sharded(self) -> bool:
        """Whether each rank has a part of every tensor only."""
        return any(isinstance(parameter, DTensor) for parameter in self.model.parameters())

    def parameters(self) -> list[nn.Parameter]:
        """Return what is trained, in the order of `named_parameters`."""
        return [parameter for _, parameter in self.named_parameters() if parameter.requires_grad]

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Return the model's parameters, then those of the task behind "task."."""
        return _named(self.model, self.task)

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """Return the optimizer's state as tensors named "<parameter>/<kind>"."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.named_parameters():
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"{name}/{kind}"] = value
        return tensors

    @torch.no_grad()
    def restore(
        self,
        step: int,
        parameters: Mapping[str, Tensor],
        optimizer: Mapping[str, Tensor],
        recent: Sequence[float] = (),
        skipped: int = 0,
    ) -> None:
        """Set the state to what `named_parameters` and `optimizer_tensors` were at `step`, each of them whole."""
        for name, parameter in self.named_parameters():
            parameter.copy_(as_stored(parameters[name], parameter))
            prefix = f"{name}/"
            kept = {key.removeprefix(prefix): value for key, value in optimizer.items() if key.startswith(prefix)}
            if kept:
                self.optimizer.state[parameter] = {
                    kind: as_stored(value, parameter) if value.shape == parameter.shape else value.to(parameter.device)
                    for kind, value in kept.items()
                }
        self.step, self.recent, self.skipped = step, list(recent), skipped
        self.refused.zero_()

    def files(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return copies in memory of the model's parameters, and of what the optimizer and the task have: each tensor whole.

        A collective: every rank has to call it where parameters are sharded.
        """
        task = dict(self.task.named_parameters(prefix="task"))
        model = {name: whole(parameter) for name, parameter in self.model.named_parameters()}
        return model, {name: whole(tensor) for name, tensor in {**self.optimizer_tensors(), **task}.items()}


def _named(model: Classifier, task: Task) -> Iterator[tuple[str, nn.Parameter]]:
    yield from model.named_parameters()
    yield from task.named_parameters(prefix="task")
