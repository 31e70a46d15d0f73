"""TrainState: everything that changes during a run, and nothing that a key can recompute.

There is no generator state and no scheduler object: data order, augmentation and dropout follow from (seed, step).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vitlab.models.classifier import Classifier
from vitlab.train.config import TrainSettings
from vitlab.train.optimizer import build_optimizer


@dataclass
class TrainState:
    """A model, its optimizer, and the number of updates made."""

    model: Classifier
    optimizer: torch.optim.Optimizer
    step: int = 0

    @classmethod
    def start(cls, model: Classifier, settings: TrainSettings) -> "TrainState":
        """Return the state before the first update."""
        return cls(model, build_optimizer(settings.optimizer, model))

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """Return the optimizer's state as tensors named "<parameter>/<kind>"."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.model.named_parameters():
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"{name}/{kind}"] = value
        return tensors

    @torch.no_grad()
    def restore(self, step: int, parameters: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> None:
        """Set the state to what `model.named_parameters` and `optimizer_tensors` were at `step`."""
        for name, parameter in self.model.named_parameters():
            parameter.copy_(parameters[name])
            prefix = f"{name}/"
            kept = {key.removeprefix(prefix): value for key, value in optimizer.items() if key.startswith(prefix)}
            if kept:
                self.optimizer.state[parameter] = {
                    kind: value.to(parameter.device, copy=True) for kind, value in kept.items()
                }
        self.step = step
