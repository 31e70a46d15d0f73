"""TrainState: everything that changes during a run, and nothing that a key can recompute.

There is no generator state and no scheduler object: data order, augmentation and dropout follow from (seed, step).
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vitlab.models.classifier import Classifier
from vitlab.ranks import ALONE, Ranks
from vitlab.train import average
from vitlab.train.average import Average
from vitlab.train.balance import Weights
from vitlab.train.config import TrainSettings
from vitlab.train.layers import frozen_names, rate_scales
from vitlab.train.objective import Task, build_task
from vitlab.train.optimizer import build_optimizer
from vitlab.train.precision import Precision, autocast
from vitlab.train.replicas import Learner, replicate
from vitlab.train.sharding import as_stored, is_part, reshard
from vitlab.train.standing import Standing, after, score_of


@dataclass
class TrainState:
    """A model, what it is trained for, the optimizer of both, and the number of updates made.

    `learner` is model and task in one, as the ranks train it, and `precision` that of the steps. `recent` are the losses of the
    last updates, oldest first, and `skipped` is how many updates were left out because they were not finite. `refused` is 1 on the
    device from the first update on whose loss or gradient was not finite. `average` is that of the weights, and `best` the weights
    of the best evaluation by `standing`, both where the settings ask for them.
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
    precision: Precision = "float32"
    average: Average | None = None
    standing: Standing | None = None
    best: Average | None = None

    @classmethod
    def start(
        cls, model: Classifier, settings: TrainSettings, weights: Weights | None = None, ranks: Ranks = ALONE
    ) -> "TrainState":
        """Return the state before the first update; `weights` [k] are how much each class counts in the loss, by default alike.

        Raises:
            SettingsError: the objective needs another kind of model, or it has fewer layers than are to be frozen.
        """
        device = next(model.parameters()).device
        task = build_task(settings.objective, model.settings, weights).to(device)
        names = [name for name, _ in _named(model, task)]
        frozen = frozen_names(names, model.settings, settings.frozen)
        for name, parameter in _named(model, task):
            parameter.requires_grad_(name not in frozen)
        learner = replicate(Learner(model, task), settings, ranks)
        scales = rate_scales(names, model.settings, settings.layer_decay or 1.0)
        optimizer = build_optimizer(settings.optimizer, _named(model, task), scales)
        refused = torch.zeros((), device=device)
        state = cls(model, task, optimizer, learner, ranks, refused, precision=settings.precision)
        if settings.average is not None:
            state.average = average.copy(state.named_parameters())
        if settings.patience is not None:
            state.best = {}
        return state

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.refused.device

    @property
    def sharded(self) -> bool:
        """Whether each rank has a part of every tensor only."""
        return any(is_part(parameter) for parameter in self.model.parameters())

    def parameters(self) -> list[nn.Parameter]:
        """Return what is trained, in the order of `named_parameters`."""
        return [parameter for _, parameter in self.named_parameters() if parameter.requires_grad]

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Return the model's parameters, then those of the task behind "task."."""
        return _named(self.model, self.task)

    @contextmanager
    def evaluated(self) -> Generator[None]:
        """Give the model the weights that are evaluated: the average, where there is one.

        The context is float32, but for a sharded run in bfloat16, whose blocks are brought together in that.
        """
        precision = self.precision if self.sharded else "float32"
        with average.swapped(self.named_parameters(), self.average or {}), autocast(self.device, precision):
            try:
                yield
            finally:
                reshard(self.learner)

    def compare(self, values: Mapping[str, float]) -> None:
        """Note how an evaluation of the weights that the model has now stands, and keep these if there were none better.

        A collective: the first rank decides for all.
        """
        reshard(self.learner)
        standing = self.ranks.tell(vars(after(self.standing, self.step, score_of(values))))
        self.standing = Standing(**standing)
        if self.standing.step == self.step:
            self.best = average.copy(self.named_parameters())

    def settle(self) -> bool:
        """Give the model the weights that the run was for, at its end; return whether they are not those of the last evaluation."""
        final, self.average, self.best = self.best or self.average, None, None
        average.adopt(self.named_parameters(), final or {})
        return self.standing is not None and self.standing.step != self.step

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """Return the optimizer's state as tensors named "<parameter>/<kind>"."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.named_parameters():
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"{name}/{kind}"] = value
        return tensors

    def kept_tensors(self) -> dict[str, Tensor]:
        """Return what else there is of each parameter, as tensors named "<parameter>/<kind>"."""
        kinds = {"average": self.average or {}, "best": self.best or {}}
        return {f"{name}/{kind}": value for kind, values in kinds.items() for name, value in values.items()}

    @torch.no_grad()
    def restore(
        self,
        step: int,
        parameters: Mapping[str, Tensor],
        optimizer: Mapping[str, Tensor],
        recent: Sequence[float] = (),
        skipped: int = 0,
        standing: Standing | None = None,
    ) -> None:
        """Set the state to what `named_parameters`, `optimizer_tensors` and `kept_tensors` were at `step`, each of them whole."""
        best: Average = {}
        for name, parameter in self.named_parameters():
            parameter.copy_(as_stored(parameters[name], parameter))
            prefix = f"{name}/"
            kept = {key.removeprefix(prefix): value for key, value in optimizer.items() if key.startswith(prefix)}
            own = {kind: _as_kept(value, parameter) for kind, value in kept.items()}
            if "best" in own:
                best[name] = own.pop("best")
            averaged = own.pop("average", None)
            if self.average is not None and name in self.average:  # where it was off until now it begins here
                self.average[name] = parameter.detach().float().clone() if averaged is None else averaged
            if own and parameter.requires_grad:  # a moment of 16 bits is widened until the next step
                self.optimizer.state[parameter] = {
                    kind: value.type_as(parameter) if value.shape == parameter.shape else value
                    for kind, value in own.items()
                }
        self.step, self.recent, self.skipped = step, list(recent), skipped
        if self.best is not None:
            self.standing, self.best = standing, best
        self.refused.zero_()

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the model's parameters, and what else there is: the tensors of the optimizer, those kept, and the task's."""
        task = dict(self.task.named_parameters(prefix="task"))
        others = {**self.optimizer_tensors(), **self.kept_tensors(), **task}
        return dict(self.model.named_parameters()), others


def _as_kept(value: Tensor, parameter: nn.Parameter) -> Tensor:
    """Return a copy of what there is for `parameter` besides itself, as it is kept: like it, or a number as it is."""
    return as_stored(value, parameter) if value.shape == parameter.shape else value.to(parameter.device)


def _named(model: Classifier, task: Task) -> Iterator[tuple[str, nn.Parameter]]:
    yield from model.named_parameters()
    yield from task.named_parameters(prefix="task")
