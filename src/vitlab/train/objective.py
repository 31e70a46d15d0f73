"""What training minimises."""

from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from vitlab.config import Settings
from vitlab.data.labels import NONE, Labels, count_labels, is_multi_label
from vitlab.errors import SettingsError
from vitlab.models.classifier import AnySettings, Classifier
from vitlab.train.balance import ClassWeights, Equal, Weights, weigh
from vitlab.train.masked import MaskedPatches, MaskedTask
from vitlab.train.mixing import mix

Alpha = Annotated[float, Field(ge=0)]
"""The parameter of a Beta distribution: at 0 nothing is mixed, near it hardly anything, at 1 every share is as likely."""


class Softmax(Settings):
    """Softmax cross-entropy, the mean over the batch: fine-tuning (section 3.2).

    With `mixup` or `cutmix` α each micro-batch is mixed with itself in another order, by one share λ from Beta(α, α), and so is its
    loss, see `mix` (mixup is 0.1 in BiT's recipe for larger data sets, 0.2 to 0.8 in AugReg's; CutMix's authors use 1).

    `class_weights` w make the loss -Σ_c w_c q_c log p_c, q being the smoothed target, and scale w so that its mean over the
    training images is 1. The mean over a batch is then that of the weighted mean Σ w l / Σ w over all of them; a batch divided by
    its own Σ w would depend on what else is in it, and on the pieces it is computed in.
    """

    type: Literal["Softmax"] = "Softmax"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mixup: Alpha = 0.0
    cutmix: Alpha = 0.0
    class_weights: Annotated[ClassWeights, Field(discriminator="type")] = Equal()

    def losses(
        self, logits: Float[Tensor, "b k"], labels: Int64[Tensor, " b"], weights: Float[Tensor, " k"] | None = None
    ) -> Float[Tensor, " b"]:
        """Return the loss of every example."""
        smoothing = self.label_smoothing
        return functional.cross_entropy(logits, labels, weights, label_smoothing=smoothing, reduction="none")


class Sigmoid(Settings):
    """Sigmoid cross-entropy, summed over classes, the mean over the batch: the paper's pre-training, on images with any labels.

    Begin with a head bias of -10 for thousands of classes, or the first steps only learn that most classes are absent. `mixup` and
    `cutmix` are as in `Softmax`; for this loss mixed targets and mixed losses are the same.

    `class_weights` w make the loss -Σ_c (w_c t_c log p_c + (1 - t_c) log(1 - p_c)), t being the smoothed target: an image's own
    classes weigh more or less against those it does not show (`pos_weight` of torch). They are used as they are.
    """

    type: Literal["Sigmoid"] = "Sigmoid"
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    mixup: Alpha = 0.0
    cutmix: Alpha = 0.0
    class_weights: Annotated[ClassWeights, Field(discriminator="type")] = Equal()

    def losses(
        self, logits: Float[Tensor, "b k"], labels: Int64[Tensor, "b *m"], weights: Float[Tensor, " k"] | None = None
    ) -> Float[Tensor, " b"]:
        """Return the loss of every example; a smoothing of s makes the targets 1 - s and s."""
        b, k = logits.shape
        places = labels.reshape(b, -1)
        targets = logits.new_full((b, k + 1), self.label_smoothing)  # the last column takes what pads the labels
        targets.scatter_(1, torch.where(places == NONE, k, places), 1.0 - self.label_smoothing)
        each = functional.binary_cross_entropy_with_logits(
            logits, targets[:, :k].contiguous(), reduction="none", pos_weight=weights
        )
        return each.sum(dim=1)


Objective = Softmax | Sigmoid | MaskedPatches


class Supervised(nn.Module):
    """The loss of a model on labelled images; it has no parameters of its own. `weights` [k] are those of `weights_for`."""

    def __init__(self, objective: Softmax | Sigmoid, weights: Weights | None = None) -> None:
        super().__init__()
        self.objective = objective
        self.weights: Tensor | None
        self.register_buffer("weights", None if weights is None else torch.tensor(weights, dtype=torch.float32))

    def forward(
        self, model: Classifier, images: UInt8[Tensor, "b c h w"], labels: Int64[Tensor, "b *m"]
    ) -> Float[Tensor, " b"]:
        """Return the loss of every image."""
        values = model.image_spec.normalise(images)
        if not (self.objective.mixup or self.objective.cutmix):
            return self.objective.losses(model(values), labels, self.weights)
        mixed = mix(values, self.objective.mixup, self.objective.cutmix)
        logits = model(mixed.images)
        ours = self.objective.losses(logits, labels, self.weights)
        others = self.objective.losses(logits, labels[mixed.partner], self.weights)
        return mixed.share * ours + (1 - mixed.share) * others


def check_objective(objective: Objective, settings: AnySettings) -> None:
    """Refuse an objective that models of `settings` cannot be trained with.

    Raises:
        SettingsError: the objective needs another kind of model.
    """
    with torch.device("meta"):
        build_task(objective, settings)


def weights_for(objective: Objective, classes: tuple[str, ...], labels: Labels) -> Weights | None:
    """Return the weight of every class in the loss on training images with `labels`: float64 [k], None where all are equal.

    Raises:
        SettingsError: the objective is for one label an image and these have several, or a weight is for no class of theirs.
    """
    if isinstance(objective, MaskedPatches):
        return None
    if isinstance(objective, Softmax) and is_multi_label(labels):
        what = "Softmax is for one class an image, and the data may have several labels an image, or none"
        raise SettingsError("train.objective", what, "use --set train.objective=Sigmoid")
    counts = count_labels(labels, len(classes))
    weights = weigh(objective.class_weights, classes, counts)
    if weights is None or isinstance(objective, Sigmoid):
        return weights
    return weights / np.average(weights, weights=counts)


Task = Supervised | MaskedTask
"""What is minimised: a module from a model, uint8 images [b, c, h, w] and labels [b] (or [b, m]) to losses [b]; it may have
parameters of its own."""


def build_task(objective: Objective, settings: AnySettings, weights: Weights | None = None) -> Task:
    """Return the task of `objective` for models of `settings`; `weights` [k] are those of `weights_for`.

    Raises:
        SettingsError: the objective needs another kind of model.
    """
    return MaskedTask(objective, settings) if isinstance(objective, MaskedPatches) else Supervised(objective, weights)
