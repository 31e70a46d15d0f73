"""Every option of docs/options.md, with every kind of model: it trains, and a run that was cut off ends as one that was not."""

import json
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.contract.examples import SMALL, SQUARE
from vitlab.config import difference, override
from vitlab.data.loader import TrainBatches
from vitlab.data.preprocess import ImageSpec
from vitlab.errors import SettingsError
from vitlab.models.classifier import build
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import ViTSettings
from vitlab.nn.patches import Patches
from vitlab.nn.stem import ResNetStem
from vitlab.studies import run
from vitlab.studies.plan import Asked, plan_finetune
from vitlab.studies.recipe import InProgram, RunSettings
from vitlab.studies.run import Given
from vitlab.train.config import TrainSettings
from vitlab.train.objective import weights_for
from vitlab.train.optimizer import SGD, Adam
from vitlab.train.progress import Quiet
from vitlab.train.sharding import gathered
from vitlab.train.state import TrainState
from vitlab.train.step import train_step
from vitlab.weights.save import save

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "options.md").read_text()
ROWS = dict(re.findall(r"^\| ([^|]+?) \| `([^`]+=[^`]+)` \|", PAGE, re.MULTILINE))
FITTING = {"train.frozen=6": "train.frozen=1"}
"""What an example of the page is in so small a model."""
MODELS = {
    "ViT": ViTSettings(**SMALL[ViTSettings] | {"image_size": SQUARE, "stem": Patches(patch_size=(8, 8))}),
    "hybrid": ViTSettings(
        **SMALL[ViTSettings] | {"image_size": SQUARE, "stem": ResNetStem(depths=(1, 1), root_width=32)}
    ),
    "ResNet": ResNetSettings(**SMALL[ResNetSettings] | {"image_size": SQUARE}),
}
CLASSES = ("ant", "bee", "cat", "dog", "elk")
OF_VITS_ALONE = {"stochastic depth"}
"""What ResNets refuse."""


class Killed(Exception):  # noqa: N818
    """A run ended without a word."""


class KilledAt(Quiet):
    def __init__(self, step):
        self.step = step

    def stepped(self, step, result):
        if step == self.step:
            raise Killed


@pytest.fixture
def make_run(make_source, tmp_path):
    """Return settings of four steps with one option, and what a program hands over for them."""

    def make(model="ViT", changes=(), **training):
        settings = MODELS[model]
        source = make_source(12, 32, CLASSES)
        plain = {"steps": 4, "batch_size": 8, "micro_batch_size": 4, "lr": 0.05, "log_every": 1, "seed": 3}
        plain |= {"eval_every": 1, "checkpoint_every": 2, "optimizer": SGD()}
        described = InProgram(description="memory", examples=12)
        base = RunSettings(
            recipe="here",
            model=settings,
            train_data=described,
            evals={"test": described},
            image_spec=ImageSpec(height=32, width=32),
            train=TrainSettings(**plain | training),
        )
        changed = override(base, [FITTING.get(change, change) for change in changes])
        given = Given(build(changed.model, seed=1, classes=CLASSES), source, {"test": source})
        return base, changed, given

    return make


def say(_):
    pass


def bits(out):
    """Return the bytes of everything that a finished run has learnt."""
    newest = sorted((out / "checkpoints").glob("step-*"))[-1]
    files = [out / "model.safetensors", *sorted(newest.glob("*.safetensors"))]
    return {str(file.relative_to(out)): file.read_bytes() for file in files}


def cut_off(settings, make, out, step=3):
    """Train until after `step` updates, then go on; return what came out."""
    with pytest.raises(Killed):
        run.start(settings, out, KilledAt(step), say, given=make()[2])
    return run.resume(out, Quiet(), say, given=make()[2])


def test_the_page_names_every_option():
    assert len(ROWS) == 13
    assert "| " + " | ".join(["option", "`--set`", "default", "source", "when to use it"]) + " |" in PAGE


@pytest.mark.parametrize("name", ROWS)
def test_an_option_is_off_until_it_is_asked_for(make_run, name):
    base, changed, _ = make_run(changes=[ROWS[name]])
    assert difference(base, changed), "what the page says is not the default"


def fresh(settings, given):
    weights = weights_for(settings.train.objective, given.train.classes, given.train.labels)
    return TrainState.start(given.model, settings.train, weights)


def trained(settings, given, steps, state=None):
    """Return a state after `steps` updates, of which `state` has made some already."""
    train = settings.train
    state = state or fresh(settings, given)
    size = train.batch_size // train.pieces
    batches = TrainBatches(given.train, given.train.labels, settings.image_spec, settings.augment, size, train.seed)
    while state.step < steps:
        first = state.step * train.pieces
        train_step(state, [batches[first + piece] for piece in range(train.pieces)], train).read(state)
    return state


def restored(settings, given, old):
    """Return a fresh state with what `old` writes into files."""
    model, others = (
        safetensors.torch.load(safetensors.torch.save(tensors)) for tensors in map(gathered, old.tensors())
    )
    state = fresh(settings, given)
    state.restore(old.step, model, others)
    return state


def values_of(state):
    return {
        f"{number} {name}": tensor
        for number, part in enumerate(map(gathered, state.tensors()))
        for name, tensor in part.items()
    }


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture
def without(make_run, kept={}):  # noqa: B006  (once for all tests)
    """What training without any option comes to, by the name of the model."""
    for model in MODELS if not kept else ():
        base, _, given = make_run(model)
        kept[model] = values_of(trained(base, given, 2))
    return kept


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ROWS)
def test_training_with_an_option_is_other_training_and_goes_on_exactly(make_run, without, name, model):
    if name in OF_VITS_ALONE and model == "ResNet":
        with pytest.raises(SettingsError, match="no setting"):
            make_run(model, [ROWS[name]])
        return

    def make():
        return make_run(model, [ROWS[name]])

    _, settings, given = make()
    whole = values_of(trained(settings, given, 2))
    assert all(bool(value.isfinite().all()) for value in whole.values())
    half = restored(settings, make()[2], trained(settings, make()[2], 1))
    assert same(values_of(trained(settings, given, 2, half)), whole)
    assert same(without[model], whole) == (name == "early stopping"), "which waits for evaluations"


@pytest.mark.parametrize("on_first", [False, True])
@pytest.mark.parametrize("name", ROWS)
def test_an_option_may_be_switched_on_or_off_where_a_run_goes_on(make_run, name, on_first):
    changes = [(), (ROWS[name],)]
    _, before, given = make_run(changes=changes[on_first])
    old = trained(before, given, 1)
    _, after, given = make_run(changes=changes[not on_first])
    state = restored(after, given, old)
    if state.average is not None:
        assert all(torch.equal(state.average[key], value) for key, value in state.model.named_parameters())
    found = values_of(trained(after, given, 2, state))
    assert all(bool(value.isfinite().all()) for value in found.values())
    _, _, given = make_run(changes=changes[not on_first])
    assert found.keys() == values_of(trained(after, given, 2)).keys(), "nothing of before is dragged along"


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ROWS)
def test_a_run_with_an_option_that_was_cut_off_ends_as_one_that_was_not(make_run, tmp_path, name, model):
    if name in OF_VITS_ALONE and model == "ResNet":
        pytest.skip("ResNets have no such option")

    def make():
        return make_run(model, [ROWS[name]])

    _, settings, given = make()
    whole = run.start(settings, tmp_path / "whole", Quiet(), say, given=given)
    resumed = cut_off(settings, make, tmp_path / "cut")
    assert bits(tmp_path / "whole") == bits(tmp_path / "cut")
    assert resumed.metrics == whole.metrics


@pytest.mark.parametrize("optimizer", [SGD(), Adam()])
def test_all_options_go_together(make_run, tmp_path, optimizer):
    changes = [change for change in ROWS.values() if change != "train.frozen=trunk"]

    def make():
        return make_run(changes=changes, optimizer=optimizer)

    _, settings, given = make()
    whole = run.start(settings, tmp_path / "whole", Quiet(), say, given=given)
    resumed = cut_off(settings, make, tmp_path / "cut")
    assert bits(tmp_path / "whole") == bits(tmp_path / "cut")
    assert resumed.metrics == whole.metrics


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("train.frozen=3", "3 layers are more than the 2 of the model; use 2 or fewer, or trunk"),
        ("train.patience=2", "there is nothing to evaluate on; give --eval-data"),
    ],
)
def test_what_the_model_or_the_data_have_nothing_for_is_refused_before_there_is_a_folder(
    make_run, tmp_path, change, said
):
    _, settings, given = make_run(changes=[change])
    blind = Given(given.model, given.train, {})
    with pytest.raises(SettingsError, match=said):
        run.start(settings.model_copy(update={"evals": {}}), tmp_path / "run", Quiet(), say, given=blind)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("model", ["ViT", "hybrid"])
def test_weights_are_fine_tuned_with_stochastic_depth(tmp_path, model):
    weights = tmp_path / "weights.safetensors"
    save(build(MODELS[model], seed=1, classes=CLASSES), weights)
    changes = ("model.stochastic_depth=0.1", "train.objective.mixup=0.2")
    asked = Asked(data="digits", weights=weights, steps=1, batch_size=4, workers=0, device="cpu", changes=changes)
    done = run.start(plan_finetune(asked).settings, tmp_path / "run", Quiet(), say)
    assert [block.branch1.drop_rate for block in done.model.encoder.blocks] == [0.0, 0.1]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"]["stochastic_depth"] == 0.1
