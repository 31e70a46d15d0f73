"""Learning rates as pure functions of the step."""

import math
from typing import Annotated, Literal

from pydantic import Field

from vitlab.config import Settings

Steps = Annotated[int, Field(ge=0)]


class Cosine(Settings):
    """Half a cosine from the base rate to zero after a linear warm-up: fine-tuning, and pre-training on ImageNet."""

    type: Literal["Cosine"] = "Cosine"
    warmup_steps: Steps = 0

    def rate(self, step: int, steps: int, base: float) -> float:
        """Return the learning rate of update `step` (from 0) of `steps`."""
        progress = _progress(step, steps, self.warmup_steps)
        return base * 0.5 * (1.0 + math.cos(math.pi * progress)) * _warmup(step, self.warmup_steps)


class Linear(Settings):
    """A straight line from the base rate to `end` after a linear warm-up: pre-training (table 3; 1e-5 in the paper's code)."""

    type: Literal["Linear"] = "Linear"
    warmup_steps: Steps = 0
    end: Annotated[float, Field(ge=0)] = 1e-5

    def rate(self, step: int, steps: int, base: float) -> float:
        """Return the learning rate of update `step` (from 0) of `steps`."""
        progress = _progress(step, steps, self.warmup_steps)
        return (self.end + (base - self.end) * (1.0 - progress)) * _warmup(step, self.warmup_steps)


class Staircase(Settings):
    """The base rate after a linear warm-up, multiplied by `factor` after each of `boundaries`: BiT's fine-tuning."""

    type: Literal["Staircase"] = "Staircase"
    warmup_steps: Steps = 0
    boundaries: tuple[Steps, ...] = (200, 300, 400)
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1

    def rate(self, step: int, steps: int, base: float) -> float:
        """Return the learning rate of update `step` (from 0); a boundary's own step still has the rate before it."""
        del steps
        return (
            base
            * self.factor ** sum(boundary < step for boundary in self.boundaries)
            * _warmup(step, self.warmup_steps)
        )


Schedule = Cosine | Linear | Staircase


def _progress(step: int, steps: int, warmup: int) -> float:
    return min(1.0, max(0.0, (step - warmup) / max(1.0, steps - warmup)))


def _warmup(step: int, warmup: int) -> float:
    return min(1.0, step / warmup) if warmup else 1.0
