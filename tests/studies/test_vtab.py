"""VTAB-1k: one setting for all tasks, tuned on 800 and 200, trained on 1,000; what is missing is said and not averaged over."""

import io
import json
import os
import signal
from dataclasses import replace

import pytest
from rich.console import Console

from tests.data import standins
from vitlab.data.catalog import entries, entry
from vitlab.errors import DataError, RunFolderError, SettingsError
from vitlab.evals.interval import wilson_interval
from vitlab.models.catalog import settings_for
from vitlab.models.classifier import build
from vitlab.studies.cell import Outcome, Studio
from vitlab.studies.plan import Asked
from vitlab.studies.vtab import (
    Scored,
    Setting,
    VtabPlan,
    all_tasks,
    choose_tasks,
    plan_vtab,
    present,
    run_vtab,
    table9,
    usable,
)
from vitlab.studies.vtab_page import as_json, group_means, remarks, table, write_files
from vitlab.train.loop import Interrupted
from vitlab.train.progress import Terminal
from vitlab.weights.save import save

SIZES = {"train800": 8, "val200": 4, "train800val200": 12, "test": 6}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Stand-ins of two tasks in the layout of the archive, of 12 images each, and a model of another head."""
    root = tmp_path_factory.mktemp("vtab")
    for name in ("eurosat", "dspr-orient"):
        standins.vtab(root, entry(f"vtab/{name}").archive, SIZES, classes=entry(f"vtab/{name}").classes)
    small = {"depth": 1, "width": 12, "num_heads": 2, "mlp_dim": 16}
    save(build(settings_for("Ti/4", 5, 8).model_copy(update=small)), root / "weights.safetensors")
    return root


@pytest.fixture(autouse=True)
def data(root, monkeypatch):
    """Let the catalog expect as few images as there are."""
    monkeypatch.setenv("VITLAB_DATA", str(root))
    for name in ("vtab/eurosat", "vtab/dspr-orient"):
        small = {"slices": {}, "examples": SIZES}
        monkeypatch.setitem(entries(), name, entry(name).model_copy(update=small))


@pytest.fixture
def asked(root):
    return Asked(weights=root / "weights.safetensors", image_size=8, steps=3, batch_size=4, workers=0, device="cpu")


@pytest.fixture
def studio():
    return Studio(Console(file=io.StringIO()), lambda _: None)


def made_of(scores, setting=None, count=1000, missing=None):
    """Return what comes out for tasks with these accuracies."""
    outcomes = {
        task: Outcome(metrics={"test/top1": score, "test/loss": 1.0, "test/count": count})
        for task, score in scores.items()
    }
    setting = setting or Setting(lr=0.01, steps=2500)
    plan = {
        "weights": {"path": "w", "sha256": ""},
        "image_size": (8, 8),
        "train": {},
        "changes": (),
        "settings": (setting,),
    }
    return Scored(VtabPlan(**plan), setting, None, outcomes, missing or {})


def test_every_task_is_trained_on_its_thousand_with_the_papers_setting_and_tested_once(asked, studio, root, tmp_path):
    plan = plan_vtab(asked, "eurosat", command="vitlab vtab …")
    assert plan.settings == (Setting(lr=0.01, steps=3),) and plan.train.batch_size == 4
    scored = run_vtab(plan, asked, ["eurosat", "dspr-orient"], tmp_path / "out", studio, resume=False)
    assert {task: outcome.of("count") for task, outcome in scored.tasks.items()} == {"eurosat": 6, "dspr-orient": 6}
    for task, flip in (("eurosat", True), ("dspr-orient", False)):
        config = json.loads((tmp_path / "out" / "tasks" / task / "config.json").read_text())
        assert config["train_data"]["subset"] == "train800val200" and config["evals"]["test"]["subset"] == "test"
        assert (config["augment"]["flip"], config["recipe"], config["train"]["lr"]) == (flip, "vtab", 0.01)
        assert config["model"]["num_classes"] == entry(f"vtab/{task}").classes
    page = write_files(scored, tmp_path / "out").read_text()
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["means"] == {"natural": None, "specialized": None, "structured": None, "all": None}
    assert "no mean of 19 is claimed" in page and "vitlab vtab …" in page


def test_the_papers_setting_is_the_default(asked):
    plan = plan_vtab(replace(asked, steps=None, batch_size=None, image_size=None), "eurosat")
    assert plan.settings == (Setting(lr=0.01, steps=2500),)
    assert plan.train.batch_size == 512 and plan.image_size == (384, 384) and plan.train.schedule.warmup_steps == 250


def test_tuning_takes_the_setting_with_the_best_mean_on_validation_images(asked, studio, tmp_path):
    tried = plan_vtab(asked, "eurosat", (0.1, 0.01), tune=True).settings
    assert list(map(str, tried)) == ["lr-0.01-steps-3", "lr-0.01-steps-12", "lr-0.1-steps-3", "lr-0.1-steps-12"]
    plan = plan_vtab(asked, "eurosat", (0.1,), tune=True)
    scored = run_vtab(plan, asked, ["eurosat", "dspr-orient"], tmp_path / "out", studio, resume=False)
    assert scored.choice.scores[str(scored.setting)] == max(scored.choice.scores.values())
    trial = tmp_path / "out" / "tuning" / "lr-0.1-steps-12" / "eurosat"
    config = json.loads((trial / "config.json").read_text())
    assert [config["train_data"]["subset"], config["evals"]["val"]["subset"]] == ["train800", "val200"]
    assert config["train"]["schedule"]["warmup_steps"] == 1 and not (trial / "model.safetensors").exists()
    chosen = json.loads((tmp_path / "out" / "tasks" / "eurosat" / "config.json").read_text())["train"]
    assert (chosen["lr"], chosen["steps"]) == (scored.setting.lr, scored.setting.steps)
    assert any("chosen" in line for line in remarks(scored))


def test_interrupted_it_goes_on_with_what_is_left_and_tasks_can_be_added(asked, studio, tmp_path, monkeypatch):
    plan, out, steps = plan_vtab(asked, "eurosat"), tmp_path / "out", []
    run_vtab(plan, asked, ["eurosat", "dspr-orient"], tmp_path / "unbroken", studio, resume=False)
    stepped = Terminal.stepped

    def count(self, step, result):
        steps.append(step)
        stepped(self, step, result)
        if len(steps) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Terminal, "stepped", count)
    run_vtab(plan, asked, ["eurosat"], out, studio, resume=False)
    assert steps == [1, 2, 3]
    with pytest.raises(Interrupted):
        run_vtab(plan, asked, ["eurosat", "dspr-orient"], out, studio, resume=True)
    run_vtab(plan, asked, ["eurosat", "dspr-orient"], out, studio, resume=True)
    assert steps == [1, 2, 3, 1, 2, 3]
    for path in ("tasks/eurosat", "tasks/dspr-orient"):
        for name in ("metrics.jsonl", "model.safetensors"):
            assert (out / path / name).read_bytes() == (tmp_path / "unbroken" / path / name).read_bytes()
    with pytest.raises(RunFolderError, match=r"already exists; .*--resume"):
        run_vtab(plan, asked, ["eurosat"], out, studio, resume=False)
    other = plan_vtab(replace(asked, steps=4), "eurosat")
    with pytest.raises(RunFolderError, match=r"another plan \(train.steps: 3 -> 4"):
        run_vtab(other, asked, ["eurosat"], out, studio, resume=True)


def test_what_was_finished_before_stays_in_the_result_whatever_is_asked_for(asked, studio, tmp_path):
    plan, out = plan_vtab(asked, "eurosat"), tmp_path / "out"
    first = run_vtab(plan, asked, ["eurosat"], out, studio, resume=False)
    gone = {"eurosat": "get it", "svhn": "get it too"}
    both = run_vtab(plan, asked, ["dspr-orient"], out, studio, resume=True, missing=gone)
    assert list(both.tasks) == ["eurosat", "dspr-orient"] and both.tasks["eurosat"] == first.tasks["eurosat"]
    assert both.missing == {"svhn": "get it too"}


def test_a_task_that_is_not_whole_is_left_out_before_any_is_trained_or_refused_by_name(tmp_path, monkeypatch):
    more = {"examples": {**SIZES, "test": 7}}
    monkeypatch.setitem(entries(), "vtab/dspr-orient", entry("vtab/dspr-orient").model_copy(update=more))
    both = ["eurosat", "dspr-orient"]
    here, wrong = usable(both, (), tmp_path)
    assert here == ["eurosat"] and "has 6 images, expected 7" in wrong["dspr-orient"]
    for tasks, named in ((both, ["vtab/dspr-orient"]), (both[1:], ())):
        with pytest.raises(DataError, match="has 6 images, expected 7"):
            usable(tasks, named, tmp_path)


def test_what_is_missing_is_said_with_how_to_get_it(root):
    here, missing = present(list(all_tasks()))
    assert here == ["eurosat", "dspr-orient"] and len(missing) == 17
    assert "vitlab data download vtab/svhn" in missing["svhn"]
    with pytest.raises(DataError, match="vtab/svhn: is not in"):
        present(["svhn", "eurosat"], ["svhn"])


def test_without_any_data_it_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("VITLAB_DATA", str(tmp_path / "none"))
    with pytest.raises(DataError, match="has no data of VTAB-1k; `vitlab data list vtab`"):
        present(list(all_tasks()))


def test_tasks_are_chosen_by_name_or_group():
    groups = all_tasks()
    assert [list(groups.values()).count(group) for group in ("natural", "specialized", "structured")] == [7, 4, 8]
    assert choose_tasks([]) == list(groups)
    assert choose_tasks(["svhn", "specialized", "vtab/pets"]) == [
        "pets",
        "svhn",
        "camelyon",
        "eurosat",
        "resisc45",
        "retinopathy",
    ]
    with pytest.raises(SettingsError, match="--tasks: there is no task 'clever-count'; did you mean 'clevr-count'"):
        choose_tasks(["clever-count"])


def test_contradictions_are_refused(asked):
    with pytest.raises(SettingsError, match="--lr: is given 2 times; add --tune"):
        plan_vtab(asked, "eurosat", (0.1, 0.2))
    with pytest.raises(SettingsError, match="give --steps"):
        plan_vtab(replace(asked, changes=("train.steps=9",)), "eurosat")


# The table.


def test_the_papers_table_is_that_of_the_paper(shared):
    lines = (shared / "paper" / "table9_vtab.csv").read_text().splitlines()
    titles = lines[0].split(",")[2:]
    for line, row in zip(lines[1:], table9(), strict=True):
        group, title, *values = line.split(",")
        assert (row["title"], [row[name] for name in titles]) == (title, values)
        assert all_tasks()[row["task"]] == group


@pytest.mark.parametrize(("model", "mean"), [("ViT-H/14 JFT", 77.6), ("ViT-L/16 JFT", 76.3), ("ViT-L/16 I21k", 72.7)])
def test_the_mean_of_the_papers_rows_is_the_papers(model, mean):
    assert round(group_means({row["task"]: float(row[model]) for row in table9()})["all"], 1) == mean


def test_a_mean_is_claimed_only_of_whole_groups():
    tasks = all_tasks()
    scored = made_of({task: 0.5 for task, group in tasks.items() if group != "structured"} | {"dmlab": 0.25})
    means = as_json(scored)["means"]
    assert means == {"natural": 0.5, "specialized": 0.5, "structured": None, "all": None}
    rows = {row[0]: row for row in table(scored)[-4:]}
    assert rows["natural"][2] == "50.0" and rows["structured"][2] == "1 of 8" and rows["all"][2] == "12 of 19"
    assert remarks(scored)[-1] == "12 of 19 tasks: no mean of 19 is claimed"
    whole = made_of(dict.fromkeys(tasks, 0.75))
    assert as_json(whole)["means"]["all"] == 0.75 and len(remarks(whole)) == 1 and len(table(whole)) == 1 + 19 + 4


def test_each_task_has_its_interval():
    scored = made_of({"kitti-dist": 0.8}, count=711)
    low, high = wilson_interval(0.8, 711)
    assert as_json(scored)["tasks"]["kitti-dist"]["top1_interval"] == [low, high]
    assert table(scored)[1][:4] == ["structured", "KITTI-Dist", "80.0", f"{100 * low:.1f}–{100 * high:.1f}"]
