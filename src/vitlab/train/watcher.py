"""Watchers: whoever follows a run. What they do changes nothing in it."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from vitlab.train.step import StepResult


@runtime_checkable
class Watcher(Protocol):
    """Somebody who follows a run; nothing that a watcher does changes it."""

    def started(self, step: int, steps: int, batch_size: int) -> None:
        """Training goes from `step` to `steps`."""
        ...

    def waited(self, seconds: float) -> None:
        """The images of the next update took so long to come."""
        ...

    def stepped(self, step: int, result: StepResult) -> None:
        """Update number `step` was made."""
        ...

    def logged(self, step: int, values: Mapping[str, float]) -> None:
        """What the log says of training up to `step`: loss, gradient norm, learning rate; then how fast it went."""
        ...

    def noted(self, step: int, name: str, value: float) -> None:
        """Update `step` stood out: its loss was a spike, or it was left out; its images are in the run folder."""
        ...

    def evaluated(self, step: int, values: Mapping[str, float]) -> None:
        """The model was evaluated after `step` updates."""
        ...

    def saved(self, step: int, seconds: float) -> None:
        """A checkpoint was written; training stood still for so long."""
        ...

    def close(self) -> None:
        """Training ended, one way or the other."""
        ...


class Quiet:
    """Watches without a word."""

    def started(self, step: int, steps: int, batch_size: int) -> None:
        """Do nothing."""

    def waited(self, seconds: float) -> None:
        """Do nothing."""

    def stepped(self, step: int, result: StepResult) -> None:
        """Do nothing."""

    def logged(self, step: int, values: Mapping[str, float]) -> None:
        """Do nothing."""

    def noted(self, step: int, name: str, value: float) -> None:
        """Do nothing."""

    def evaluated(self, step: int, values: Mapping[str, float]) -> None:
        """Do nothing."""

    def saved(self, step: int, seconds: float) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Several:
    """Several watchers as one; each is told in turn."""

    def __init__(self, *watchers: Watcher) -> None:
        self._watchers = watchers

    def started(self, step: int, steps: int, batch_size: int) -> None:
        """Tell each."""
        for watcher in self._watchers:
            watcher.started(step, steps, batch_size)

    def waited(self, seconds: float) -> None:
        """Tell each."""
        for watcher in self._watchers:
            watcher.waited(seconds)

    def stepped(self, step: int, result: StepResult) -> None:
        """Tell each."""
        for watcher in self._watchers:
            watcher.stepped(step, result)

    def logged(self, step: int, values: Mapping[str, float]) -> None:
        """Tell each."""
        for watcher in self._watchers:
            watcher.logged(step, values)

    def noted(self, step: int, name: str, value: float) -> None:
        """Tell each."""
        for watcher in self._watchers:
            watcher.noted(step, name, value)

    def evaluated(self, step: int, values: Mapping[str, float]) -> None:
        """Tell each."""
        for watcher in self._watchers:
            watcher.evaluated(step, values)

    def saved(self, step: int, seconds: float) -> None:
        """Tell each."""
        for watcher in self._watchers:
            watcher.saved(step, seconds)

    def close(self) -> None:
        """Tell each."""
        for watcher in self._watchers:
            watcher.close()
