"""Runs on images of several labels, and runs in which classes weigh differently."""

import json
import re

import numpy as np
import pytest
from PIL import Image

import vitlab
from vitlab.data.labels import count_labels, from_flat
from vitlab.errors import DataError, SettingsError
from vitlab.evals.multilabel import MultiLabelPredictions
from vitlab.studies import run
from vitlab.studies.findings import Evaluation
from vitlab.studies.plan import Asked, plan_finetune, plan_pretrain
from vitlab.studies.report import write_report
from vitlab.train.balance import Balanced, PerClass
from vitlab.train.config import TrainSettings
from vitlab.train.masked import MaskedPatches
from vitlab.train.objective import Sigmoid, Softmax
from vitlab.train.watcher import Quiet

SMALL = ("model.width=16", "model.depth=1", "model.num_heads=2", "model.mlp_dim=16", "train.batch_size=8")


@pytest.fixture
def several(make_source):
    def make(count=12):
        source = make_source(count)
        sets = [{index % 3, index // 2 % 3} if index % 4 else set() for index in range(count)]
        flat = [c for each in sets for c in sorted(each)]
        source.labels = from_flat(np.array(flat, np.int64), np.array(list(map(len, sets))))
        return source

    return make


@pytest.fixture
def table(tmp_path):
    """A CSV of 40 images of red, green, both or neither."""
    rng, lines = np.random.default_rng(0), ["path,labels"]
    for index in range(40):
        names = [name for bit, name in enumerate(("red", "green")) if index >> bit & 1]
        pixels = rng.integers(0, 60, (16, 16, 3))
        for name in names:
            pixels[..., ("red", "green").index(name)] += 180
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{index}.png")
        lines.append(f"{index}.png,{'|'.join(names)}")
    (tmp_path / "data.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "data.csv"


def asked(table, *changes, **options):
    return Asked(data=str(table), image_size=16, device="cpu", workers=0, changes=(*SMALL, *changes), **options)


def test_several_labels_choose_the_sigmoid_objective_and_it_is_said(table):
    plan = plan_finetune(asked(table))
    assert plan.settings.train.objective == Sigmoid()
    assert 'train.objective.type: "Softmax" -> "Sigmoid"' in plan.differences
    assert plan_pretrain(asked(table)).settings.train.objective == Sigmoid()
    assert isinstance(plan_pretrain(asked(table, recipe="masked")).settings.train.objective, MaskedPatches)
    plan = plan_finetune(asked(table, "train.objective.label_smoothing=0.1", "train.objective.class_weights=Balanced"))
    assert plan.settings.train.objective == Sigmoid(label_smoothing=0.1, class_weights=Balanced())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("train.objective=Softmax",), "use --set train.objective=Sigmoid"),
        (
            ("train.objective.class_weights=PerClass", 'train.objective.class_weights.weights={"rde": 2}'),
            "no class 'rde'; did you mean 'red'",
        ),
    ],
)
def test_what_does_not_fit_the_labels_is_refused_before_anything_is_made(table, changes, words):
    with pytest.raises(SettingsError, match=re.escape(words)):
        plan_finetune(asked(table, *changes))


class Crash(Quiet):
    """Ends a run after some updates, as a power cut would."""

    def __init__(self, step):
        self.step = step

    def stepped(self, step, result):
        """Raise at the chosen update."""
        if step == self.step:
            raise RuntimeError("power cut")


def test_a_weighted_run_ends_with_the_same_bits_when_it_was_cut_and_resumed(table, tmp_path):
    options = {"steps": 6, "checkpoint_every": 2}
    settings = plan_finetune(asked(table, "train.objective.class_weights=Balanced", **options)).settings
    said = []
    whole = run.start(settings, tmp_path / "whole", Quiet(), said.append)
    with pytest.raises(RuntimeError, match="power cut"):
        run.start(settings, tmp_path / "cut", Crash(5), said.append)
    cut = run.resume(tmp_path / "cut", Quiet(), said.append)
    assert (cut.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()
    weights = json.loads((whole.path / "class_weights.json").read_text())
    train = plan_finetune(asked(table)).train
    counts = count_labels(train.labels, 2)
    assert weights == pytest.approx(dict(zip(train.classes, counts.sum() / (2 * counts), strict=True)))
    assert [line for line in said if line.startswith("weights")] == [
        said[said.index("resuming at step 4 of 6") - 1]
    ] * 3
    assert vitlab.load(whole.path).probabilities == "sigmoid"


def test_weights_change_a_run_and_no_weights_leave_no_file(table, tmp_path):
    plain = run.start(plan_finetune(asked(table, steps=2)).settings, tmp_path / "plain", Quiet(), print)
    change = ("train.objective.class_weights=PerClass", 'train.objective.class_weights.weights={"red": 3}')
    weighed = run.start(plan_finetune(asked(table, *change, steps=2)).settings, tmp_path / "weighed", Quiet(), print)
    assert plain.metrics["train/loss"] != weighed.metrics["train/loss"]
    assert not (plain.path / "class_weights.json").exists()
    assert json.loads((weighed.path / "class_weights.json").read_text()) == {"green": 1.0, "red": 3.0}


def test_finetune_from_python(make_model, several, tmp_path):
    source = several()
    result = vitlab.finetune(
        make_model(classes=source.classes), source, [vitlab.Accuracy(several(5))], steps=2, out=tmp_path / "run"
    )
    assert isinstance(result.predictions["test"], MultiLabelPredictions)
    assert 0 <= result.metrics["test/map"] <= 1 and vitlab.load(result.path).probabilities == "sigmoid"
    settings = TrainSettings(steps=1, batch_size=4, objective=Softmax())
    with pytest.raises(SettingsError, match="objective=Sigmoid"):
        vitlab.finetune(make_model(), source, settings=settings, out=tmp_path / "other")
    weights = TrainSettings(steps=1, batch_size=4, objective=Sigmoid(class_weights=PerClass(weights={"owl": 2})))
    with pytest.raises(SettingsError, match="no class 'owl'"):
        vitlab.finetune(make_model(), source, settings=weights, out=tmp_path / "other")
    unlabelled = several(1)
    with pytest.raises(DataError, match="no image with a label"):
        vitlab.finetune(make_model(), source, [vitlab.Accuracy(unlabelled)], steps=1, out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_model_of_several_labels_that_learns_one_class_an_image_says_so(make_model, make_source, tmp_path):
    model = make_model(classes=("ant", "bee", "cat"))
    model.probabilities = "sigmoid"
    vitlab.finetune(model, make_source(), steps=1, out=tmp_path / "run")
    assert vitlab.load(tmp_path / "run").probabilities == "softmax"


def test_the_report_says_what_was_found(make_model, several, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "environment.json").write_text(json.dumps({"torch": "2", "device": "cpu", "threads": 2}))
    values = [("test/loss", 1.5), ("test/map", 0.5), ("test/top1", 0.25)]
    lines = [json.dumps({"step": 2, "images": 8, "name": name, "value": value}) for name, value in values]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    source, shares = several(4), [[0.1, 0.2, 0.3], [0.9, 0.8, 0.1], [0.9, 0.7, 0.95], [0.3, 0.6, 0.2]]
    # labels: none; ant, bee; bee, cat; ant, bee
    keys = tuple(source.read(index).key for index in range(4))
    predictions = MultiLabelPredictions(np.array(shares, np.float32), source.labels, keys, source.classes)
    page = write_report(tmp_path, make_model(), Evaluation("test", source, predictions), [], "vitlab").read_text()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert f"mean average precision is {100 * predictions.metrics()['map']:.1f} %" in text
    assert "83.3 % of the 6 that the model names are right" in text and "6 labels it names 83.3 %" in text
    assert "right on 3 of 3 images with a label: 100.0 %" in text
    gallery = text[text.index("Worst mistakes") :]
    assert "ant (90.0 %) is bee, cat" in gallery and "no ant (70.0 %) is ant, bee" in gallery
    assert gallery.index("image-2") < gallery.index("image-3") and "image-1" not in gallery
