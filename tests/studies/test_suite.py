"""The suite: what the data allow is measured once, what they do not is said, and the paper's numbers stand beside."""

import io
import json

import pytest
from rich.console import Console

from tests.data import standins
from vitlab.data.catalog import entries, entry
from vitlab.errors import DataError, RunFolderError, SettingsError
from vitlab.evals.interval import wilson_interval
from vitlab.models.catalog import settings_for
from vitlab.models.classifier import build
from vitlab.studies import suite as module
from vitlab.studies.cell import Studio
from vitlab.studies.plan import Asked
from vitlab.studies.protocol import plan_protocol
from vitlab.studies.suite import Suite, choose_parts, published, run_suite
from vitlab.studies.suite_page import as_json, lines, rows, write_files
from vitlab.weights.save import save

TASKS = {"train800": 8, "val200": 4, "train800val200": 12, "test": 6}
SMALL = {"depth": 1, "width": 12, "num_heads": 2, "mlp_dim": 16}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Stand-ins of CIFAR-10, CIFAR-100 and one task of VTAB-1k, and a model of another head."""
    root = tmp_path_factory.mktemp("suite")
    standins.cifar10(root / entry("cifar10").folder, per_file=8)
    standins.cifar100(root / entry("cifar100").folder, count=300)
    standins.vtab(root, entry("vtab/eurosat").archive, TASKS, classes=entry("vtab/eurosat").classes)
    save(build(settings_for("Ti/4", 5, 8).model_copy(update=SMALL)), root / "weights.safetensors")
    return root


@pytest.fixture(autouse=True)
def data(root, monkeypatch, tmp_path):
    """Let the catalog expect as few images as there are."""
    monkeypatch.setenv("VITLAB_DATA", str(root))
    monkeypatch.setenv("VITLAB_CACHE", str(tmp_path / "cache"))
    small = {"vtab/eurosat": TASKS, "cifar10": {"train": 40, "test": 3}, "cifar100": {"train": 300, "test": 100}}
    for name, examples in small.items():
        monkeypatch.setitem(
            entries(), name, entry(name).model_copy(update={"slices": {}, "order": "exact", "examples": examples})
        )
    cut = {"train800val200": "train[:12]", "test": "test[:6]"}
    examples = {"slices": cut, "examples": small["cifar100"]}
    monkeypatch.setitem(entries(), "vtab/cifar100", entry("vtab/cifar100").model_copy(update=examples))


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Let the protocol have one trial and two runs of each data set."""
    monkeypatch.setattr(
        module, "plan_protocol", lambda asked, command="": plan_protocol(asked, (0.01, 0.03), 2, command)
    )


@pytest.fixture
def asked(root):
    return Asked(
        weights=root / "weights.safetensors", steps=2, changes=("train.batch_size=4",), workers=0, device="cpu"
    )


@pytest.fixture
def studio():
    said = []
    return Studio(Console(file=io.StringIO()), said.append)


def without_vtab(asked, **changes):
    return Asked(**{**vars(asked), **changes})


def test_what_the_data_allow_is_measured_and_the_rest_is_said(asked, studio, tmp_path):
    out = tmp_path / "out"
    found = run_suite(asked, choose_parts([]), out, studio, command="vitlab evaluate …")
    measured = {(result.part, result.data): result for result in found.results}
    assert set(measured) == {
        ("fewshot", "cifar100"),
        ("transfer", "cifar10"),
        ("transfer", "cifar100"),
        ("vtab", "vtab-1k"),
    }
    left = {(each.part, each.data): each for each in found.left}
    assert not any(each.failed for each in found.left), found.left
    assert "head of 5 classes" in left["classify", "imagenet"].reason
    assert "vitlab data download pets" in left["transfer", "pets"].reason
    shots = measured["fewshot", "cifar100"]
    assert [number.name for number in shots.numbers] == ["1 image a class"] and "too few" in shots.remarks[0]
    (number,) = measured["transfer", "cifar10"].numbers
    assert number.runs == 2 and number.deviation is not None and number.images == 3
    assert number.interval == pytest.approx(wilson_interval(number.value, 3))
    tasks = measured["vtab", "vtab-1k"]
    assert [number.name for number in tasks.numbers] == ["CIFAR-100", "EuroSAT"] and len(tasks.remarks) == 17
    page = write_files(found, out).read_text()
    assert "VTAB-1k" in page and "2 steps each" in page and "vitlab evaluate …" in page and "head of 5 classes" in page
    stored = json.loads((out / "result.json").read_text())
    assert stored == json.loads(json.dumps(as_json(found)))
    assert len(rows(found)) == 1 + sum(len(result.numbers) for result in found.results)
    assert sum("left out" in line for line in lines(found)) == len(found.left)


@pytest.mark.slow
def test_what_is_finished_is_not_measured_again_and_the_rest_is(asked, studio, tmp_path, monkeypatch):
    out, measures = tmp_path / "out", dict(module.MEASURES)
    monkeypatch.setitem(module.PARTS, "transfer", ("cifar10",))

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setitem(module.MEASURES, "transfer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_suite(asked, ["fewshot", "transfer"], out, studio)
    monkeypatch.setitem(module.MEASURES, "transfer", measures["transfer"])
    monkeypatch.setitem(module.MEASURES, "fewshot", interrupted)  # finished before: it must not be called
    with pytest.raises(RunFolderError, match="already exists"):
        run_suite(asked, ["fewshot", "transfer"], out, studio)
    after = run_suite(asked, ["fewshot", "transfer"], out, studio, resume=True)
    monkeypatch.setitem(module.MEASURES, "fewshot", measures["fewshot"])
    unbroken = run_suite(asked, ["fewshot", "transfer"], tmp_path / "other", studio)
    assert after.results == unbroken.results and len(after.results) == 2


def test_what_other_parts_gave_before_stays_on_the_page(asked, studio, tmp_path, monkeypatch):
    out = tmp_path / "out"
    first = run_suite(asked, ["vtab"], out, studio)
    seen = []
    found = run_suite(asked, ["fewshot"], out, studio, resume=True, seen=seen.append)
    assert [result.part for result in found.results] == ["fewshot", "vtab"] and found.results[1] == first.results[0]
    assert [[result.part for result in each.results] for each in seen[:1]] == [["vtab"]]  # and at no time was it gone
    assert "EuroSAT" in write_files(found, out).read_text()
    made = []
    monkeypatch.setitem(module.MEASURES, "vtab", lambda _, data: made.append(data) or first.results[0])
    run_suite(asked, ["vtab"], out, studio, resume=True)
    assert made == ["vtab-1k"]  # tasks that are missing may have come


@pytest.mark.parametrize("change", ["train.foo=1", "train.lr=0.1"])
def test_a_setting_that_is_none_is_refused_before_anything_is_made(asked, studio, tmp_path, change):
    with pytest.raises(SettingsError, match=change.partition("=")[0].rpartition(".")[2]):
        run_suite(without_vtab(asked, changes=(change,)), ["fewshot"], tmp_path / "out", studio)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_would_be_taken_for_a_data_set_is_refused(asked, studio, tmp_path, monkeypatch):
    (tmp_path / "pets").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="would be taken for 'pets' of the catalog"):
        run_suite(asked, ["fewshot"], tmp_path / "out", studio)
    assert not (tmp_path / "out").exists()


def test_a_measurement_that_fails_is_said_and_the_others_go_on(asked, studio, tmp_path, monkeypatch):
    def refused(*_):
        raise DataError("cifar100", "is broken")

    monkeypatch.setitem(module.MEASURES, "fewshot", refused)
    found = run_suite(asked, ["fewshot", "vtab"], tmp_path / "out", studio)
    assert [(each.data, each.reason) for each in found.left if each.failed] == [("cifar100", "cifar100: is broken")]
    assert [result.part for result in found.results] == ["vtab"]
    assert "failed: cifar100: is broken" in write_files(found, tmp_path / "out").read_text()


def test_another_plan_and_an_unknown_part_are_refused(asked, studio, tmp_path):
    run_suite(asked, ["classify"], tmp_path / "out", studio)
    with pytest.raises(RunFolderError, match="steps: 2 -> 3"):
        run_suite(without_vtab(asked, steps=3), ["classify"], tmp_path / "out", studio, resume=True)
    with pytest.raises(SettingsError, match=r"no part 'fewshots'.*fewshot"):
        choose_parts(["fewshots"])


def test_the_papers_numbers_are_those_of_the_same_network_else_of_its_largest():
    base = published("CIFAR-10", settings_for("B/16", 10, 384))
    assert {row.model for row in base} >= {"jft/B16", "imagenet21k/B16"} and {"jft/H14"}.isdisjoint(
        row.model for row in base
    )
    assert {row.model for row in published("CIFAR-10", settings_for("Mini/4", 10, 32))} == {"jft/H14"}
    assert [row.percent for row in published("ObjectNet", settings_for("Mini/4", 10, 32))] == [61.7]


def test_a_model_with_imagenets_head_is_measured_as_it_is(asked, studio, tmp_path, monkeypatch, root):
    seen = []
    monkeypatch.setattr(module, "_lacking", lambda *_: "")
    monkeypatch.setattr(
        module, "evaluate_model", lambda weights, data, reading, **_: seen.append((data, reading.resize)) or evaluated()
    )
    found = run_suite(asked, ["classify"], tmp_path / "out", studio)
    assert isinstance(found, Suite) and seen == [("imagenet", None), ("imagenet-real", None), ("objectnet", 9)]
    names = [number.name for number in found.results[0].numbers]
    assert names == ["top-1", "top-5", "calibration error (ECE)"]
    assert found.results[0].numbers[0].value == 0.5 and found.results[0].numbers[1].value == 1


def evaluated():
    import numpy as np

    from vitlab.evals.classify import Predictions

    class Found:
        predictions = Predictions(
            np.array([[0.9, 0.1], [0.8, 0.2]], np.float32), np.array([0, 1]), ("a", "b"), ("x", "y")
        )

    return Found()
