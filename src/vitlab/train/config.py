"""TrainSettings: every number of a training run."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from vitlab.config import Settings
from vitlab.train.layers import Frozen
from vitlab.train.masked import MaskedPatches
from vitlab.train.objective import Objective, Softmax
from vitlab.train.optimizer import SGD, OptimizerSettings
from vitlab.train.precision import Precision
from vitlab.train.schedule import Cosine, Schedule
from vitlab.train.tree import is_power_of_two


class TrainSettings(Settings):
    """How a model is trained; the defaults are the paper's fine-tuning (table 4).

    `batch_size` is the number of images an update, on whatever hardware; `micro_batch_size` splits it into pieces that fit the
    memory, with the same update. `parallel` says whether each rank has the whole model ("data") or a part of every tensor
    ("sharded", for models that do not fit). `exact` gives the same bits on any number of ranks that is a power of two: the pieces,
    a power of two as well, are then added in the order of one tree. `clip_norm` bounds the global norm of the gradient. Intervals
    are in steps; None means only at the end. `skip_nonfinite` updates whose loss or gradient is not finite are left out and
    counted; the next one stops the run, as by default the first does.

    Off by default: `layer_decay` multiplies the learning rate of each layer below the head once more by itself (`rate_scales`), and
    `frozen` layers are not trained at all ("trunk": all but the head; a number: the embedding and so many layers, `layer_of`).
    `average` is what the averaged weights keep of themselves in each step (Polyak; 0.9999 in table 2): they are evaluated, and
    written in the end. `patience` ends the run after so many evaluations in a row without a better one; the weights that are
    written are those of the best.

    `precision` is that of forward and backward passes; the weights are float32 in either. `remat` computes every layer again in
    the backward pass instead of remembering it, with the same numbers: a third more work for a fraction of the memory. `compile`
    has torch.compile write a program for the layers; its numbers differ in the last bits.
    """

    steps: PositiveInt = 500
    batch_size: PositiveInt = 512
    micro_batch_size: PositiveInt | None = None
    parallel: Literal["data", "sharded"] = "data"
    exact: bool = False
    lr: PositiveFloat = 0.003
    optimizer: Annotated[OptimizerSettings, Field(discriminator="type")] = SGD()
    schedule: Annotated[Schedule, Field(discriminator="type")] = Cosine()
    clip_norm: PositiveFloat | None = 1.0
    objective: Annotated[Objective, Field(discriminator="type")] = Softmax()
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    frozen: Frozen | None = None
    average: Annotated[float, Field(gt=0, lt=1)] | None = None
    patience: PositiveInt | None = None
    precision: Precision = "float32"
    remat: bool = False
    compile: bool = False
    seed: Annotated[int, Field(ge=0)] = 0
    eval_every: PositiveInt | None = None
    checkpoint_every: PositiveInt | None = None
    log_every: PositiveInt = 10
    skip_nonfinite: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _divides(self) -> "TrainSettings":
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError(f"a batch of {self.batch_size} does not divide into pieces of {self.micro_batch_size}")
        if self.exact and not is_power_of_two(self.pieces):
            raise ValueError(
                f"exact needs a power of two of pieces, not {self.pieces}; choose another micro_batch_size"
            )
        if self.exact and self.parallel == "sharded":
            raise ValueError("an exact run has the whole model on each rank: leave out --exact, or --sharded")
        mixes = not isinstance(self.objective, MaskedPatches) and (self.objective.mixup or self.objective.cutmix)
        if mixes and (self.micro_batch_size or self.batch_size) == 1:
            raise ValueError("pieces of one image have no other to be mixed with; use a larger micro_batch_size")
        if self.patience is not None and self.eval_every is None:
            raise ValueError("patience counts evaluations, and there is none before the end; set eval_every")
        return self

    @property
    def pieces(self) -> int:
        """How many micro-batches make one update."""
        return self.batch_size // (self.micro_batch_size or self.batch_size)

    def rate(self, step: int) -> float:
        """Return the learning rate of update `step`, from 0."""
        return self.schedule.rate(step, self.steps, self.lr)
