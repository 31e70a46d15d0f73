"""Every option of docs/options.md, with every kind of model: it trains, and a run that was cut off ends as one that was not."""

import re
from pathlib import Path

import pytest

from tests.contract.examples import SMALL, SQUARE
from vitlab.config import difference, override
from vitlab.data.preprocess import ImageSpec
from vitlab.errors import SettingsError
from vitlab.models.classifier import build
from vitlab.models.resnet import ResNetSettings
from vitlab.models.vit import ViTSettings
from vitlab.nn.patches import Patches
from vitlab.nn.stem import ResNetStem
from vitlab.studies import run
from vitlab.studies.recipe import InProgram, RunSettings
from vitlab.studies.run import Given
from vitlab.train.config import TrainSettings
from vitlab.train.optimizer import SGD, Adam
from vitlab.train.progress import Quiet

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


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ROWS)
def test_a_run_with_an_option_that_was_cut_off_ends_as_one_that_was_not(make_run, tmp_path, name, model):
    if name in OF_VITS_ALONE and model == "ResNet":
        with pytest.raises(SettingsError, match="no setting"):
            make_run(model, [ROWS[name]])
        return

    def make():
        return make_run(model, [ROWS[name]])

    _, settings, given = make()
    whole = run.start(settings, tmp_path / "whole", Quiet(), say, given=given)
    assert whole.metrics["train/loss"] < 20
    resumed = cut_off(settings, make, tmp_path / "cut")
    assert bits(tmp_path / "whole") == bits(tmp_path / "cut")
    assert resumed.metrics == whole.metrics


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ROWS)
def test_an_option_makes_a_difference(make_run, tmp_path, name, model):
    if name in OF_VITS_ALONE and model == "ResNet":
        pytest.skip("ResNets have no such option")
    weights = {}
    for changes in ((), (ROWS[name],)):
        _, settings, given = make_run(model, changes, steps=2)
        out = tmp_path / str(len(changes))
        run.start(settings, out, Quiet(), say, given=given)
        weights[changes] = list(bits(out).values())
    assert (weights[()] == weights[ROWS[name],]) == (name == "early stopping"), "two steps are too few to stop"


@pytest.mark.parametrize("optimizer", [SGD(), Adam()])
def test_all_options_go_together(make_run, tmp_path, optimizer):
    changes = [change for change in ROWS.values() if change != "train.frozen=trunk"]

    def make():
        return make_run(changes=changes, optimizer=optimizer)

    _, settings, given = make()
    whole = run.start(settings, tmp_path / "whole", Quiet(), say, given=given)
    resumed = cut_off(settings, make(), tmp_path / "cut")
    assert bits(tmp_path / "whole") == bits(tmp_path / "cut")
    assert resumed.metrics == whole.metrics
