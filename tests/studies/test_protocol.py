"""Transfer by the paper's protocol: held out, tried, trained on everything, tested; whatever interrupts it."""

import io
import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from vitlab.data.decoded import Decoded
from vitlab.errors import DataError, NonFiniteError, RunFolderError, SettingsError
from vitlab.models.catalog import settings_for
from vitlab.models.classifier import build
from vitlab.studies import cell
from vitlab.studies.cell import Outcome, Studio
from vitlab.studies.plan import Asked
from vitlab.studies.protocol import _best, plan_protocol, read_protocol, run_protocol
from vitlab.studies.protocol_page import as_json, lines, markdown, write_files
from vitlab.studies.recipe import recipes
from vitlab.studies.record import read_record
from vitlab.studies.verify import is_verified, verify
from vitlab.train.loop import Interrupted
from vitlab.train.progress import Terminal
from vitlab.weights.save import save

RATES = (0.01, 0.1)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A transfer of six steps to pictures in PNG files: 12 of each of three colours to train on, and three to test."""
    root = tmp_path_factory.mktemp("protocol")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 3)):
        for channel, name in enumerate(("red", "green", "blue")):
            (root / "data" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 200, (10, 12, 3)).astype(np.uint8)
                pixels[..., channel] += 55
                Image.fromarray(pixels).save(root / "data" / split / name / f"{number}.png")
    model = build(
        settings_for("Ti/4", 5, 8).model_copy(update={"depth": 1, "width": 12, "num_heads": 2, "mlp_dim": 16})
    )
    save(model, root / "weights.safetensors")
    small = {"steps": 6, "batch_size": 8, "workers": 0, "device": "cpu", "checkpoint_every": 2}
    return Asked(data=str(root / "data"), weights=root / "weights.safetensors", **small)


@pytest.fixture
def studio():
    return Studio(Console(file=io.StringIO()), lambda _: None)


def everything(folder):
    """Return the logs and models below a folder, by path."""
    wanted = ("metrics.jsonl", "outcome.json", "config.json", "model.safetensors")
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.name in wanted}


def test_the_whole(asked, studio, tmp_path):
    _, protocol = plan_protocol(asked, RATES, seeds=2, command="vitlab finetune …")
    found = run_protocol(protocol, tmp_path / "out", studio)
    assert list(found.trials) == ["lr-0.01", "lr-0.1"] and found.chosen in found.trials and list(found.finals) == [0, 1]
    page, result = write_files(found, tmp_path / "out"), json.loads((tmp_path / "out" / "result.json").read_text())
    scores = [outcome.of("top1") for outcome in found.finals.values()]
    assert result["scores"] == scores and result["images"] == 9 and result["command"] == "vitlab finetune …"
    assert result["mean"] == pytest.approx(np.mean(scores)) and result["deviation"] == pytest.approx(
        np.std(scores, ddof=1)
    )
    assert found.chosen in page.read_text() and "vitlab finetune …" in page.read_text()
    trial, final = tmp_path / "out" / "trials" / "lr-0.1", tmp_path / "out" / "seeds" / "1"
    assert not list((tmp_path / "out").rglob("step-*")) and not (trial / "model.safetensors").exists()
    assert (final / "model.safetensors").exists()
    for folder in (trial, final):  # each is a run like any other
        assert is_verified(list(verify(folder))) and read_record(folder).state == "finished"
    rate, seed = (json.loads((folder / "config.json").read_text())["train"] for folder in (trial, final))
    assert (rate["lr"], seed["seed"], seed["lr"]) == (0.1, 1, protocol.candidates[found.chosen].train.lr)


def test_what_is_held_out_is_a_share_of_every_class_and_trained_on_in_the_end(asked):
    _, protocol = plan_protocol(asked, RATES)
    fit, dev = protocol.held_out()
    assert protocol.share == 0.1 and np.bincount(dev.labels).tolist() == [1, 1, 1] and len(fit) == 33
    keys = [{source.read(index).key for index in range(len(source))} for source in (fit, dev)]
    assert not keys[0] & keys[1] and len(keys[0] | keys[1]) == 36
    final = protocol.final(protocol.settings, 2)
    assert len(final.train_data) == 36 and list(final.evals) == ["test"]
    assert [len(source) for source in protocol.trial(final).evals.values()] == [3]


def test_runs_share_the_decoded_images_and_see_what_runs_by_themselves_do(asked, studio, tmp_path, monkeypatch):
    _, protocol = plan_protocol(asked, RATES, seeds=1)
    kinds = []
    start = cell.run.start
    monkeypatch.setattr(cell.run, "start", lambda *a, given, **k: kinds.append(given) or start(*a, given=given, **k))
    run_protocol(protocol, tmp_path / "shared", studio)
    roots = {id(given.train.source if hasattr(given.train.source, "_examples") else given.train) for given in kinds}
    assert len(kinds) == 3 and len(roots) == 1 and isinstance(kinds[-1].train, Decoded)
    monkeypatch.setattr(cell, "decode_once", lambda source, spec: source)
    run_protocol(protocol, tmp_path / "alone", Studio(studio.console, studio.say))
    assert everything(tmp_path / "shared") == everything(tmp_path / "alone")


class Killed(Exception):  # noqa: N818
    """Stands for the end of the process."""


@pytest.mark.parametrize(("how", "after"), [("signal", 3), ("kill", 3), ("kill", 6), ("kill", 10), ("kill", 14)])
def test_an_interruption_anywhere_ends_in_the_same(asked, tmp_path, monkeypatch, how, after, unbroken):
    """At a step of the first trial, at its last, in the second trial, in the run on everything."""
    _, protocol = plan_protocol(asked, RATES, seeds=1)
    steps = []
    stepped = Terminal.stepped

    def count(self, step, result):
        steps.append(step)
        stepped(self, step, result)
        if len(steps) == after:
            if how == "kill":
                raise Killed
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Terminal, "stepped", count)
    fresh = lambda: Studio(Console(file=io.StringIO()), lambda _: None)  # noqa: E731
    with pytest.raises(Killed if how == "kill" else Interrupted):
        run_protocol(protocol, tmp_path / "out", fresh())
    run_protocol(read_protocol(tmp_path / "out"), tmp_path / "out", fresh(), resume=True)
    assert everything(tmp_path / "out") == unbroken
    made = len(steps)
    run_protocol(protocol, tmp_path / "out", fresh(), resume=True)
    assert len(steps) == made  # nothing that is finished is run again


@pytest.fixture(scope="module")
def unbroken(asked, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "out"
    run_protocol(plan_protocol(asked, RATES, seeds=1)[1], out, Studio(Console(file=io.StringIO()), lambda _: None))
    return everything(out)


def test_another_plan_or_somebody_elses_folder_is_refused(asked, studio, tmp_path):
    _, protocol = plan_protocol(asked, (0.01,), seeds=1)
    run_protocol(protocol, tmp_path / "out", studio)
    with pytest.raises(RunFolderError, match=r"already exists; .*--resume"):
        run_protocol(protocol, tmp_path / "out", studio)
    for other, words in (
        (plan_protocol(asked, (0.02,), seeds=1)[1], r"lrs: \[0\.01\] -> \[0\.02\]"),
        (plan_protocol(replace(asked, steps=7), (0.01,), seeds=1)[1], "settings.train.steps: 6 -> 7"),
        (plan_protocol(asked, (0.01,), seeds=2)[1], r"seeds: \[0\] -> \[0, 1\]"),
    ):
        with pytest.raises(RunFolderError, match=words):
            run_protocol(other, tmp_path / "out", studio, resume=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(RunFolderError, match=r"already exists, without protocol\.json"):
        run_protocol(protocol, tmp_path / "mine", studio)


def test_workers_and_device_may_be_others_when_it_goes_on(asked, studio, tmp_path):
    run_protocol(plan_protocol(asked, (0.01,), seeds=1)[1], tmp_path / "out", studio)
    other = plan_protocol(replace(asked, workers=1, tensorboard=True), (0.01,), seeds=1, command="another")[1]
    assert run_protocol(other, tmp_path / "out", studio, resume=True).finals


def test_one_rate_needs_no_trial(asked, studio, tmp_path):
    found = run_protocol(plan_protocol(asked, (0.01,), seeds=1)[1], tmp_path / "out", studio)
    assert not found.trials and not (tmp_path / "out" / "trials").exists() and found.chosen == "lr-0.01"
    assert as_json(found)["deviation"] is None and "±" not in lines(found)[-1] and "Trials" not in markdown(found)


def test_a_rate_that_diverges_has_lost(asked, studio, tmp_path):
    _, protocol = plan_protocol(replace(asked, changes=("train.clip_norm=null",)), (0.01, 1e30), seeds=1)
    found = run_protocol(protocol, tmp_path / "out", studio)
    assert found.chosen == "lr-0.01" and found.trials["lr-1e+30"].diverged.startswith("diverged at ")
    assert "diverged at " in markdown(found)
    with pytest.raises(NonFiniteError, match="no trial ended"):
        run_protocol(
            plan_protocol(replace(asked, changes=("train.clip_norm=null",)), (1e29, 1e30))[1], tmp_path / "b", studio
        )


def test_a_run_on_everything_that_diverges_says_what_can_be_done(asked, studio, tmp_path):
    _, protocol = plan_protocol(replace(asked, changes=("train.clip_norm=null",)), (1e30,), seeds=1)
    with pytest.raises(NonFiniteError, match=r"seeds/0: step \d.*in another --out$"):
        run_protocol(protocol, tmp_path / "out", studio)


def test_of_equal_trials_the_one_with_the_lower_loss_wins(tmp_path):
    def outcome(top1, loss):
        return Outcome(metrics={"dev/top1": top1, "dev/loss": loss})

    assert _best({"a": outcome(0.5, 1.0), "b": outcome(0.6, 2.0), "c": outcome(0.6, 1.5)}, tmp_path) == "c"
    assert _best({"a": outcome(0.5, 1.0), "b": outcome(0.5, 1.0)}, tmp_path) == "a"


def test_several_labels_are_judged_by_mean_average_precision():
    several = Outcome(metrics={"dev/top1": 0.9, "dev/map": 0.4, "dev/loss": 1.0})
    assert several.score == 0.4 and several.words() == "mAP 40.00 %"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"changes": ("train.lr=1",)}, "--set train.lr: is what the protocol varies; give --lr"),
        ({"changes": ("train.seed = 1",)}, "give --seed"),
        ({"changes": ("train.patience=1",), "eval_every": 1}, "would choose the weights by the test images"),
        ({"recipe": "pets"}, "a warm-up of 100 steps is not shorter"),
        ({"recipe": "petz"}, "did you mean 'pets'"),
    ],
)
def test_what_contradicts_the_protocol_is_refused(asked, change, words):
    with pytest.raises(SettingsError, match=words.replace("[", r"\[")):
        plan_protocol(replace(asked, **change))


def test_what_is_no_rate_is_refused(asked):
    with pytest.raises(SettingsError, match=r"train\.lr"):
        plan_protocol(asked, (0.0, 0.1))


def test_classes_of_one_image_leave_nothing_to_hold_out(asked, tmp_path):
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (9, 9)).save(tmp_path / split / name / "a.png")
    with pytest.raises(DataError, match="none can be held out; give one --lr"):
        plan_protocol(replace(asked, data=str(tmp_path)), RATES)


def test_the_papers_shares_and_grids():
    """10 % of Pets and Flowers, 2 % of CIFAR, 1 % of ImageNet; averaged weights at 512 pixels alone (table 2)."""
    shares = {
        name: recipes()[name].dev for name in ("pets", "flowers", "cifar10", "cifar100", "imagenet", "imagenet-512")
    }
    assert list(shares.values()) == [0.1, 0.1, 0.02, 0.02, 0.01, 0.01]
    averaged = {name for name, recipe in recipes().items() if recipe.verb == "finetune" and recipe.train.average}
    assert averaged == {"imagenet-512"} and recipes()["imagenet-512"].train.average == 0.9999


def test_without_a_grid_or_weights_the_recipes_own_rate_is_the_one(asked):
    _, protocol = plan_protocol(replace(asked, weights=None, model="Mini/4", image_size=8))
    assert protocol.settings.recipe == "scratch" and list(protocol.candidates) == ["lr-0.001"]


def test_resnets_try_the_rule_of_bit_too(asked, tmp_path):
    save(build(settings_for("BiT-R50x1", 3, 32)), tmp_path / "bit.safetensors")
    _, protocol = plan_protocol(replace(asked, weights=tmp_path / "bit.safetensors", steps=50))
    assert list(protocol.candidates) == ["lr-0.001", "lr-0.003", "lr-0.01", "lr-0.03", "bit"]
    assert protocol.candidates["bit"].train.schedule.type == "Staircase"
    assert len(plan_protocol(replace(asked, weights=tmp_path / "bit.safetensors"), RATES)[1].candidates) == 2
