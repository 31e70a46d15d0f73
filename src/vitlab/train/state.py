"""TrainState: everything that changes during a run, and nothing that a key can recompute.

There is no generator state and no scheduler object: data order, augmentation and dropout follow from (seed, step).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitlab.models.classifier import Classifier
from vitlab.train.balance import Weights
from vitlab.train.config import TrainSettings
from vitlab.train.objective import Task, build_task
from vitlab.train.optimizer import build_optimizer


@dataclass
class TrainState:
    """A model, what it is trained for, the optimizer of both, and the number of updates made."""

    model: Classifier
    task: Task
    optimizer: torch.optim.Optimizer
    step: int = 0

    @classmethod
    def start(cls, model: Classifier, settings: TrainSettings, weights: Weights | None = None) -> "TrainState":
        """Return the state before the first update; `weights` [k] are how much each class counts in the loss, by default alike.

        Raises:
            SettingsError: the objective needs another kind of model.
        """
        task = build_task(settings.objective, model.settings, weights).to(next(model.parameters()).device)
        return cls(model, task, build_optimizer(settings.optimizer, _named(model, task)))

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
    def restore(self, step: int, parameters: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> None:
        """Set the state to what `named_parameters` and `optimizer_tensors` were at `step`."""
        for name, parameter in self.named_parameters():
            parameter.copy_(parameters[name])
            prefix = f"{name}/"
            kept = {key.removeprefix(prefix): value for key, value in optimizer.items() if key.startswith(prefix)}
            if kept:
                self.optimizer.state[parameter] = {
                    kind: value.to(parameter.device, copy=True) for kind, value in kept.items()
                }
        self.step = step


def _named(model: Classifier, task: Task) -> Iterator[tuple[str, nn.Parameter]]:
    yield from model.named_parameters()
    yield from task.named_parameters(prefix="task")
