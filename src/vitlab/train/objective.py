"""What training minimises."""

from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from vitlab.config import Settings


class Softmax(Settings):
    """Softmax cross-entropy, the mean over the batch: fine-tuning (section 3.2)."""

    type: Literal["Softmax"] = "Softmax"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

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


Objective = Softmax | Sigmoid
