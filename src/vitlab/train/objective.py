"""What training minimises."""

from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int64, UInt8
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from vitlab.config import Settings
from vitlab.models.classifier import AnySettings, Classifier
from vitlab.train.masked import MaskedPatches, MaskedTask


class Softmax(Settings):
    """Softmax cross-entropy, the mean over the batch: fine-tuning (section 3.2).

    With `mixup` α each micro-batch is mixed with itself in another order, by one share λ from Beta(α, α), and so is its loss
    (Zhang et al. 2018; 0.1 in BiT's recipe for larger data sets).
    """

    type: Literal["Softmax"] = "Softmax"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mixup: Annotated[float, Field(ge=0)] = 0.0

    def losses(self, logits: Float[Tensor, "b k"], labels: Int64[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Return the loss of every example."""
        return functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing, reduction="none")


class Sigmoid(Settings):
    """Sigmoid cross-entropy, summed over classes, the mean over the batch: the paper's pre-training.

    Begin with a head bias of -10 for thousands of classes, or the first steps only learn that most classes are absent.
    """

    type: Literal["Sigmoid"] = "Sigmoid"
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0

    def losses(self, logits: Float[Tensor, "b k"], labels: Int64[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Return the loss of every example; a smoothing of s makes the targets 1 - s and s."""
        targets = torch.full_like(logits, self.label_smoothing)
        targets.scatter_(1, labels[:, None], 1.0 - self.label_smoothing)
        return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=1)


Objective = Softmax | Sigmoid | MaskedPatches


class Supervised(nn.Module):
    """The loss of a model on labelled images; it has no parameters of its own."""

    def __init__(self, objective: Softmax | Sigmoid) -> None:
        super().__init__()
        self.objective = objective

    def forward(
        self, model: Classifier, images: UInt8[Tensor, "b c h w"], labels: Int64[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        """Return the loss of every image."""
        values = model.image_spec.normalise(images)
        alpha = self.objective.mixup if isinstance(self.objective, Softmax) else 0.0
        if not alpha:
            return self.objective.losses(model(values), labels)
        share = torch.distributions.Beta(alpha, alpha).sample().to(values.device)
        order = torch.randperm(values.shape[0], device=values.device)
        logits = model(share * values + (1 - share) * values[order])
        ours, others = self.objective.losses(logits, labels), self.objective.losses(logits, labels[order])
        return share * ours + (1 - share) * others


def check_objective(objective: Objective, settings: AnySettings) -> None:
    """Refuse an objective that models of `settings` cannot be trained with.

    Raises:
        SettingsError: the objective needs another kind of model.
    """
    with torch.device("meta"):
        build_task(objective, settings)


Task = Supervised | MaskedTask
"""What is minimised: a module from a model, uint8 images [b, c, h, w] and labels [b] to losses [b], with parameters of its own."""


def build_task(objective: Objective, settings: AnySettings) -> Task:
    """Return the task of `objective` for models of `settings`.

    Raises:
        SettingsError: the objective needs another kind of model.
    """
    return MaskedTask(objective, settings) if isinstance(objective, MaskedPatches) else Supervised(objective)
