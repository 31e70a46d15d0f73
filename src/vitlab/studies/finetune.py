"""Fine-tuning from Python: a model, a source, evaluators; the same run folder as from the command line."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from vitlab.data.digits import Digits
from vitlab.data.labels import is_multi_label
from vitlab.data.open import AnySource
from vitlab.data.source import Source
from vitlab.data.transforms import Augment
from vitlab.errors import DataError
from vitlab.evals.classify import Accuracy
from vitlab.models.classifier import Classifier, head_of
from vitlab.studies import run
from vitlab.studies.recipe import InProgram, Origin, RunSettings, micro_batch_for, transfer
from vitlab.studies.run import Given, RunResult
from vitlab.train.config import TrainSettings
from vitlab.train.objective import Sigmoid, Softmax
from vitlab.train.progress import Terminal


def finetune(
    model: Classifier,
    train: Source,
    evals: Sequence[Accuracy] = (),
    *,
    out: str | Path,
    steps: int = 500,
    lr: float = 0.003,
    settings: TrainSettings | None = None,
) -> RunResult:
    """Fine-tune `model` on `train` by the paper's recipe (table 4) into the new run folder `out`; `model` itself is trained.

    Its head must have one output a class: `vitlab.load(..., num_classes=len(train.classes))`. `settings` replaces the recipe
    (`steps` and `lr` are then its own). Where images have several labels the recipe's loss is `Sigmoid`. Digits are not flipped.

    Raises:
        RequestError: the folder exists, or the data do not fit the model.
        Interrupted: Ctrl-C; the folder holds a checkpoint, see `resume`.
    """
    if model.settings.num_classes != len(train.classes):
        raise DataError(
            str(train),
            f"has {len(train.classes)} classes, {head_of(model)}",
            f"load or build the model with num_classes={len(train.classes)}",
        )
    objective = Sigmoid() if is_multi_label(train.labels) else Softmax()
    chosen = settings or transfer(steps).model_copy(update={"lr": lr, "objective": objective})
    micro = chosen.micro_batch_size or micro_batch_for(model.settings, chosen)
    model.classes = train.classes
    given = _given(model, train, evals)
    planned = RunSettings(
        recipe="transfer",
        model=model.settings,
        weights=Origin(path="a model in Python", sha256=_fingerprint(model)),
        train_data=_described(train),
        evals={name: _described(source) for name, source in given.evals.items()},
        image_spec=model.image_spec,
        augment=Augment(flip=not isinstance(train, Digits)),
        train=chosen.model_copy(update={"micro_batch_size": micro}),
        device=str(next(model.parameters()).device),
    )
    return run.start(planned, Path(out), Terminal(Console(stderr=True)), print, given=given)


def resume(out: str | Path, model: Classifier, train: Source, evals: Sequence[Accuracy] = ()) -> RunResult:
    """Continue the run that `finetune` began in `out`, given the same data and a model of the same settings (its values are read).

    Raises:
        RunFolderError: there is no run.
        Interrupted: Ctrl-C again.
    """
    model.classes = train.classes
    return run.resume(Path(out), Terminal(Console(stderr=True)), print, given=_given(model, train, evals))


def _given(model: Classifier, train: Source, evals: Sequence[Accuracy]) -> Given:
    names = ["test"] if len(evals) == 1 else [f"test{index + 1}" for index in range(len(evals))]
    return Given(model, train, {name: accuracy.source for name, accuracy in zip(names, evals, strict=True)})


def _described(source: Source) -> AnySource | InProgram:
    """Return the source itself where it is settings too, else what can be said of it."""
    return source if isinstance(source, AnySource) else InProgram(description=str(source), examples=len(source))


def _fingerprint(model: Classifier) -> str:
    """Return the SHA-256 over the names and values of every parameter."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
