"""World: what the studies of one scale are made of: data to pre-train on and to go to, networks, and the recipes for both.

A study is written once, for any world; the worlds are `world_miniature`, `world_small` and `world_paper`. Pre-training that two
studies have in common is one piece of work, so it is done once for both.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from vitlab.data.open import AnySource
from vitlab.data.source import Source
from vitlab.evals.fewshot import fewshot
from vitlab.models.classifier import AnySettings, Classifier
from vitlab.studies.pictures import identity
from vitlab.studies.recipe import RunSettings
from vitlab.studies.study import Scale
from vitlab.studies.work import Measurement, Result, Training, Untrained

Upstream = Literal["small", "medium", "large"]
"""In the place of ImageNet, ImageNet-21k and JFT-300M."""


@dataclass(frozen=True)
class Task:
    """A data set to go to after pre-training."""

    train: AnySource
    test: AnySource


@dataclass(frozen=True)
class World:
    """What the studies of a scale are made of.

    `words` say what it is run on. `sets` and `tasks` open data when they are called, which may not be here; `titles` name the sets.
    `usual` is the network that studies of one network take, `task` and `shots` what few-shot heads are made for. `pretrain` gives
    the recipe of a network (by its settings and name) on a set, `finetune` that of a network on a task.
    """

    scale: Scale
    words: str
    sets: Mapping[Upstream, Callable[[], AnySource]]
    titles: Mapping[Upstream, str]
    tasks: Mapping[str, Callable[[], Task]]
    networks: Mapping[str, AnySettings]
    usual: str
    task: str
    shots: int
    seeds: tuple[int, ...]
    pretrain: Callable[[AnySettings, str, Upstream], RunSettings]
    finetune: Callable[[AnySettings, str], RunSettings]

    def pretrained(self, network: str | None = None, data: Upstream = "large", seed: int = 0) -> Training:
        """Return the pre-training of a network on a set, as the recipe has it."""
        name = network or self.usual
        return self.variant(f"{name} on {data}", self.networks[name], name, data, seed)

    def variant(
        self,
        name: str,
        model: AnySettings,
        network: str | None = None,
        data: Upstream = "large",
        seed: int = 0,
        **train: Any,
    ) -> Training:
        """Return the pre-training of `model`, which need not be of the world's networks, by the recipe of `network`.

        `train` are changes of its TrainSettings. `name` is what the piece is called, which with the seed must tell it from others;
        one that is no variant is called as `pretrained` calls it, which makes both one piece.
        """
        network = network or self.usual
        if model == self.networks[network] and not train:
            name = f"{network} on {data}"
        settings = self.pretrain(model, network, data)
        changed = settings.train.model_copy(update={"seed": seed, **train})
        return Training(f"{slug(name)}-seed{seed}", settings.model_copy(update={"train": changed}))

    def finetuned(self, start: Training | None, model: AnySettings, task: str, seed: int = 0, **train: Any) -> Training:
        """Return the fine-tuning of `model` on a task, from the weights of `start` or fresh ones; the result has `test/top1`."""
        settings = self.finetune(model, task)
        changed = settings.train.model_copy(update={"seed": seed, **train})
        origin = "scratch" if start is None else start.name
        return Training(f"{slug(task)}-from-{origin}-seed{seed}", settings.model_copy(update={"train": changed}), start)

    def heads(
        self,
        model: Training | Untrained,
        *,
        shots: int | None = None,
        task: str | None = None,
        draws: Sequence[int] = range(3),
    ) -> Measurement:
        """Return the measurement of linear heads on one of the tasks, as `measured_heads`."""
        name = task or self.task
        given = self.tasks[name]()
        return measured_heads(model, name, given.train, given.test, shots or self.shots, draws)


def measured_heads(
    model: Training | Untrained, task: str, train: Source, test: Source, shots: int, draws: Sequence[int] = range(3)
) -> Measurement:
    """Return the measurement of linear heads on a few images a class of `train`: `top1` is the mean over `draws` of them."""
    inputs = {"shots": shots, "draws": list(draws), "train": identity(train), "test": identity(test)}
    trained = model if isinstance(model, Training) else model.training
    kind = "" if isinstance(model, Training) else "untrained-"
    measure = partial(_measure_heads, train=train, test=test, shots=shots, draws=tuple(draws))
    return Measurement(f"{shots}-shot-{slug(task)}-{kind}{trained.name}", measure, (model,), inputs)


def _measure_heads(
    models: Sequence[Classifier], *, train: Source, test: Source, shots: int, draws: Sequence[int]
) -> Result:
    (model,) = models
    found = [fewshot(model, train, test, shots, draw) for draw in draws]
    return {"top1": sum(found) / len(found), "draws": found, "images": len(test)}


def slug(name: str) -> str:
    """Return `name` as the name of a folder."""
    return name.replace("/", "-").replace(" ", "-")
