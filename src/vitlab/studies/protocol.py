"""The paper's protocol for transfer (table 4, appendix B.1.1): choose the rate on images held out, retrain on all, test.

A part of the training images is held out; a trial with each rate of the recipe's grid is trained on the rest and judged on it.
With the best rate the model is trained on all of them, with several seeds, and evaluated on the test images, once each. Every
training is an ordinary run folder. What is finished is not run again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import cast

from vitlab.config import Settings, override, parse, read_json
from vitlab.data.catalog import entries
from vitlab.data.decoded import Decoded
from vitlab.data.open import AnySource
from vitlab.data.source import Source, Subset
from vitlab.errors import DataError, NonFiniteError, RunFolderError, SettingsError
from vitlab.models.resnet import ResNetSettings
from vitlab.studies.cell import Outcome, Studio, carry_out, divided_as_before, keep_plan
from vitlab.studies.plan import Asked, Plan, plan_finetune
from vitlab.studies.recipe import RunSettings, recipes
from vitlab.studies.run import Given

PLAN = "protocol.json"
BIT = "bit"
"""The recipe that ResNets try besides the grid (appendix B.1.1), and what the trial is called."""
SHARES = ((10_000, 0.10), (500_000, 0.02), (None, 0.01))
"""What is held out of other data than the paper's: as of its data sets of that size, below so many images."""
DEV = "dev"


class Protocol(Settings):
    """The plan: `settings` are those of the recipe, with the first rate and seed, on all training images; `rule` is BiT's.

    `share` of every class is held out for the trials. `command` began it.
    """

    settings: RunSettings
    lrs: tuple[float, ...]
    rule: RunSettings | None = None
    share: float
    seeds: tuple[int, ...]
    command: str = ""

    @property
    def candidates(self) -> dict[str, RunSettings]:
        """What is tried, by name, lowest rate first."""
        found = {f"lr-{lr:g}": _trained(self.settings, lr=lr) for lr in self.lrs}
        return found if self.rule is None else {**found, BIT: self.rule}

    @property
    def train(self) -> AnySource:
        """All training images."""
        return cast(AnySource, self.settings.train_data)

    def held_out(self) -> tuple[AnySource, AnySource]:
        """Return what the trials are trained on, and what they are judged on.

        The paper takes the last images in the order of TensorFlow Datasets, which not all data have: here it is as large a share
        of every class, chosen by seed 0.
        """
        return self.train.split(self.share, seed=0)

    def trial(self, settings: RunSettings) -> RunSettings:
        """Return the settings of a trial."""
        fit, dev = self.held_out()
        return settings.model_copy(update={"train_data": fit, "evals": {DEV: dev}})

    def final(self, settings: RunSettings, seed: int) -> RunSettings:
        """Return the settings of a run on everything."""
        return _trained(settings, seed=seed)


@dataclass(frozen=True)
class Found:
    """What came out: the trials by name, the name of the best, and the runs on everything by seed."""

    protocol: Protocol
    trials: Mapping[str, Outcome]
    chosen: str
    finals: Mapping[int, Outcome]


def plan_protocol(asked: Asked, lrs: Sequence[float] = (), seeds: int = 3, command: str = "") -> tuple[Plan, Protocol]:
    """Return the plan of the run that `asked` alone would be, and that of the protocol, with the recipe's rates or `lrs`.

    Without `asked.recipe` it is the one that was made for the data where there is one, else `transfer`; ResNets then try
    BiT-HyperRule too, as the paper's did.

    Raises:
        RequestError: the data, weights, model or settings cannot be used, or contradict each other or the protocol.
    """
    _refuse_chosen(asked)
    recipe = asked.recipe or (_recipe_for(asked.data) if asked.weights is not None else None)
    planned = plan_finetune(replace(asked, recipe=recipe, lr=None))
    settings = _tested_once(planned, asked)
    grid = tuple(sorted(set(lrs))) or planned.recipe.lrs or (settings.train.lr,)
    for lr in grid:
        override(settings, [f"train.lr={lr}"])  # refuses what is no rate
    settings = _trained(settings, lr=grid[0])
    rule = None
    if isinstance(settings.model, ResNetSettings) and not (asked.recipe or lrs):
        rule = _tested_once(plan_finetune(replace(asked, recipe=BIT, lr=None)), asked)
    share = planned.recipe.dev or _share_of(len(planned.train))
    first = settings.train.seed
    protocol = Protocol(
        settings=settings,
        lrs=grid,
        rule=rule,
        share=share,
        seeds=tuple(range(first, first + seeds)),
        command=command,
    )
    if len(protocol.candidates) > 1 and not len(protocol.held_out()[1]):
        raise DataError(str(planned.train), "no class has two images, so that none can be held out", "give one --lr")
    return planned, protocol


def is_protocol(out: Path) -> bool:
    """Return whether a protocol was begun in the folder `out`."""
    return (out / PLAN).exists()


def read_protocol(out: Path) -> Protocol:
    """Return the plan of the protocol that was begun in `out`.

    Raises:
        RunFolderError: there is none.
    """
    if not is_protocol(out):
        raise RunFolderError(out, f"holds no protocol (it has no {PLAN})", "start it without --resume, or name DATA")
    return parse(Protocol, read_json(out / PLAN), out / PLAN)


def run_protocol(protocol: Protocol, out: Path, studio: Studio, *, resume: bool = False) -> Found:
    """Carry out what is left of the protocol in the folder `out`, and return what came out.

    Raises:
        RunFolderError: the folder holds another plan or something else, or exists and is not to be resumed.
        NonFiniteError: no trial ended with finite numbers.
        Interrupted: it was asked to stop; with `resume` it goes on.
    """
    protocol = _divided_as(keep_plan(out / PLAN, protocol, resume), protocol)
    candidates = protocol.candidates
    trials: dict[str, Outcome] = {}
    for number, (name, settings) in enumerate(candidates.items() if len(candidates) > 1 else (), 1):
        studio.say(f"trial    {number} of {len(candidates)}, {name}")
        folder, made = out / "trials" / name, protocol.trial(settings)
        trials[name] = carry_out(made, folder, studio, _trial_data(protocol, made, studio), trial=True)
        studio.say(f"         {DEV} {trials[name].words()}")
    chosen = _best(trials, out) if trials else next(iter(candidates))
    finals: dict[int, Outcome] = {}
    for number, seed in enumerate(protocol.seeds, 1):
        studio.say(f"final    {number} of {len(protocol.seeds)}, {chosen}, seed {seed}")
        made = protocol.final(candidates[chosen], seed)
        finals[seed] = carry_out(made, out / "seeds" / str(seed), studio, studio.given(made))
        studio.say(f"         {next(iter(made.evals))} {finals[seed].words()}")
    return Found(protocol, trials, chosen, finals)


def _refuse_chosen(asked: Asked) -> None:
    """Refuse settings that the protocol sets itself."""
    for name, remedy in {"train.lr": "give --lr, once a rate", "train.seed": "give --seed, the first of them"}.items():
        if any(change.partition("=")[0].strip() == name for change in asked.changes):
            raise SettingsError(f"--set {name}", "is what the protocol varies", remedy)


def _recipe_for(data: str | None) -> str:
    """Return the recipe that was made for a data set of the catalog, the first of several; else the one for any."""
    if data is None or data not in entries() or Path(data).exists():
        return "transfer"
    fitting = (each for each in recipes().values() if each.verb == "finetune" and each.data)
    return next((each.name for each in fitting if fnmatch(data, each.data)), "transfer")


def _tested_once(planned: Plan, asked: Asked) -> RunSettings:
    """Return the settings of a plan with its test images alone to evaluate on, in the end unless it was asked for otherwise."""
    settings, evals = planned.settings, planned.evals
    if not evals:
        raise DataError(str(planned.train), "has nothing to test on", "give --eval-data")
    if settings.train.patience is not None:
        what = "would choose the weights by the test images"
        raise SettingsError("--set train.patience", what, "leave it out of the protocol")
    name = "test" if "test" in evals else list(evals)[-1]
    train = settings.train.model_copy(update={"eval_every": asked.eval_every})
    return settings.model_copy(update={"evals": {name: evals[name]}, "train": train})


def _share_of(images: int) -> float:
    return next(share for below, share in SHARES if below is None or images < below)


def _divided_as(stored: Protocol, asked: Protocol) -> Protocol:
    rule = stored.rule and asked.rule and divided_as_before(asked.rule, stored.rule)
    settings = divided_as_before(asked.settings, stored.settings)
    return asked.model_copy(update={"settings": settings, "rule": rule, "command": stored.command})


def _trained(settings: RunSettings, **changes: float) -> RunSettings:
    """Return `settings` with other training; what is known of its data stays known."""
    return settings.model_copy(update={"train": settings.train.model_copy(update=changes)})


def _trial_data(protocol: Protocol, settings: RunSettings, studio: Studio) -> Given | None:
    """Return the parts of the decoded training images that a trial takes, None where it reads its data as usual."""
    whole = studio.decoded(protocol.train, settings.image_spec)
    if not isinstance(whole, Decoded):
        return None
    fit, dev = (_part_of(whole, source) for source in protocol.held_out())
    return Given(None, fit, {DEV: dev})


def _part_of(whole: Decoded, source: AnySource) -> Source:
    assert source.part is not None  # it is one side of what was held out
    return Subset(whole, source.part.alone.indices(whole.labels))


def _best(trials: Mapping[str, Outcome], out: Path) -> str:
    """Return the trial with the highest score; of equal ones that with the lower loss, then the lower rate."""
    whole = {name: trial for name, trial in trials.items() if not trial.diverged}
    if not whole:
        raise NonFiniteError(out, "no trial ended with finite numbers", "give lower rates: --lr, in another --out")
    return max(whole, key=lambda name: (whole[name].score, -whole[name].of("loss")))
