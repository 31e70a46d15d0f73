import fcntl
import json

import pytest
from PIL import Image

from vitlab.config import to_json
from vitlab.errors import RunFolderError, SettingsError
from vitlab.models.catalog import settings_for
from vitlab.studies.comparison import as_json, find_runs, notes, save_curves, tables
from vitlab.studies.record import differing, read_record


def write_lines(path, events):
    path.write_text("".join(json.dumps(event) + "\n" for event in events))


@pytest.fixture
def make_run(tmp_path):
    """Return a function that makes the folder of a run as training leaves it, at any point of it."""

    def make(name="a", model="Mini/4", finished=True, checkpoints=(5, 10), lr=0.1, steps=10, **config):
        path = tmp_path / "runs" / name
        (path / "checkpoints").mkdir(parents=True)
        (path / "LOCK").touch()
        settings = {
            "recipe": "scratch", "model": to_json(settings_for(model, 10, 32)), "train_data": {"type": "Digits"},
            "train": {"lr": lr, "steps": steps, "optimizer": {"type": "SGD"}},
        }  # fmt: skip
        (path / "config.json").write_text(json.dumps(settings | config))
        for step in checkpoints:
            (path / "checkpoints" / f"step-{step:06d}").mkdir()
        if finished:
            (path / "model.safetensors").touch()
        values = [("train/loss", 2.0, 1.0), ("train/lr", lr, 0.0), ("test/top1", 0.7, 0.6), ("test/loss", 0.9, 1.1)]
        rows = [(at, name, pair[index]) for index, at in enumerate((5, 10)) for name, *pair in values]
        write_lines(path / "metrics.jsonl", [{"step": s, "images": 8 * s, "name": n, "value": v} for s, n, v in rows])
        timing = [("images_per_second", 80.0), ("utilisation", 0.5), ("data_wait", 0.1), ("seconds", 30.0)]
        rows = [(step, f"train/{name}", value) for step in (5, 10) for name, value in timing]
        write_lines(
            path / "timing.jsonl", [{"step": s, "time": 1e9 + s, "name": n, "value": v} for s, n, v in rows]
        )  # fmt: skip
        return path

    return make


def test_a_record_says_what_a_run_is_how_it_went_and_how_fast(make_run):
    record = read_record(make_run())
    assert (record.state, record.step, record.steps) == ("finished", 10, 10)
    assert (record.recipe, record.model, record.data) == ("scratch", "Mini/4 at 32×32", "Digits")
    assert record.last["test/top1"] == 0.6 and record.best == {"test/top1": 0.7, "test/loss": 0.9}
    assert record.chosen == "test/top1"
    assert record.typical("train/images_per_second") == 80 and record.seconds == 60
    assert record.started == 1e9 + 5 and record.ended == 1e9 + 10
    assert record.curve("train/loss") == ([5, 10], [2.0, 1.0])


def test_the_state_is_told_by_lock_model_and_checkpoints(make_run):
    assert read_record(make_run("done")).state == "finished"
    assert read_record(make_run("stopped", finished=False)).state == "resumable"
    begun = make_run("begun", finished=False, checkpoints=())
    assert read_record(begun).state == "interrupted"
    with (begun / "LOCK").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert read_record(begun).state == "running"
    assert read_record(begun).state == "interrupted"


@pytest.mark.parametrize(
    ("name", "words"),
    [("S/16", "S/16 at 32×32"), ("BiT-R50x1", "50 layers"), ("R50+B/32", "width 768, depth 12")],
)
def test_a_model_has_its_name_or_its_dimensions(make_run, name, words):
    assert words in read_record(make_run(model=name)).model


def test_a_run_of_another_version_is_listed_by_what_can_be_understood(make_run):
    record = read_record(make_run(model="Mini/4", train_data=7, train=[1], recipe=None, novelty={"a": 1}))
    assert (record.data, record.steps) == ("?", None)
    unknown = read_record(make_run("unknown", weights=None))
    assert unknown.model == "Mini/4 at 32×32"
    config = json.loads((unknown.path / "config.json").read_text())
    (unknown.path / "config.json").write_text(json.dumps(config | {"model": {"type": "Mixer", "width": 3}}))
    assert read_record(unknown.path).model == "Mixer"


def test_the_runs_below_a_folder_are_listed_by_name_and_a_broken_one_has_its_line(make_run, tmp_path):
    for name in ("b", "a", "deep/er/c"):
        make_run(name)
    root = tmp_path / "runs"
    (root / "no run").mkdir()
    (root / ".hidden").mkdir()
    (root / ".hidden" / "config.json").write_text("{}")
    for name, text in (("half", '{"recipe'), ("list", "[]"), ("bytes", "\udcff")):
        (root / name).mkdir()
        (root / name / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    (root / "begun").mkdir()
    (root / "begun" / "LOCK").touch()
    found = find_runs([root])
    ((heading, *rows),) = tables(found, [root])
    assert [row[0] for row in rows] == ["a", "b", "begun", "bytes", "deep/er/c", "half", "list"]
    assert heading[:4] == ["run", "state", "steps", "result"]
    assert rows[0][:7] == ["a", "finished", "10/10", "test/top1 60.0 %", "70.0 %", "80", "50 %"]
    words = {row[0]: row[1] for row in rows if len(row) == 2}
    assert set(words) == {"begun", "bytes", "half", "list"}
    assert "its start was cut short" in words["begun"] and "not JSON" in words["half"]
    assert [each["state"] for each in map(as_json, found)].count("unreadable") == 4
    json.dumps([as_json(run) for run in found])


def test_damaged_lines_are_counted_and_the_others_used(make_run):
    path = make_run()
    with (path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 11}\nnull\n\xff\xfe\n{"step": 12, "name": "test/top1", "value": 0.9}\n{"step": 13, "na')
    record = read_record(path)
    assert record.last["test/top1"] == 0.9 and record.step == 12
    assert notes([record]) == [f"{path}: metrics.jsonl: 3 of 12 lines are damaged"]


def test_a_run_that_has_logged_nothing_yet_is_listed(make_run, tmp_path):
    path = make_run(finished=False, checkpoints=())
    (path / "metrics.jsonl").unlink()
    (path / "timing.jsonl").unlink()
    ((_, row),) = tables(find_runs([tmp_path / "runs"]), [tmp_path / "runs"])
    assert row[:4] == ["a", "interrupted", "0/10", ""]
    with pytest.raises(SettingsError, match="no run has logged anything yet"):
        save_curves(find_runs([path]), tmp_path / "curves.png")


def test_two_runs_are_compared_in_what_differs_and_in_their_last_figures(make_run):
    paths = [make_run("a"), make_run("b", lr=0.2, extra={"x": [1, 2]})]
    settings, figures = tables(find_runs(paths), paths)
    assert settings == [
        ["settings that differ", "a", "b"],
        ["train.lr", "0.1", "0.2"],
        ["extra.x", "-", "[1, 2]"],
    ]
    assert ["test/top1", "60.0 %", "60.0 %"] in figures and ["train/images_per_second", "80", "80"] in figures
    assert differing([read_record(paths[0])] * 2) == {}


def test_runs_of_one_name_in_two_places_are_told_apart(make_run):
    paths = [make_run("x/same"), make_run("y/same")]
    (heading, *_) = tables(find_runs(paths), paths)[-1]
    assert heading == ["figures", "x/same", "y/same"]


def test_one_run_alone_is_shown_with_its_figures(make_run):
    path = make_run()
    (figures,) = tables(find_runs([path]), [path])
    assert figures[0] == ["figures", "a"] and ["state", "finished"] in figures


def test_a_step_that_was_made_again_is_drawn_once_with_its_last_value(make_run):
    path = make_run()
    with (path / "timing.jsonl").open("a") as file:
        file.write('{"step": 10, "name": "train/images_per_second", "value": 99}\n')
    assert read_record(path).curve("train/images_per_second") == ([5, 10], [80.0, 99.0])


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_curves_are_drawn_into_a_new_file(make_run, tmp_path, kind):
    out = tmp_path / f"curves.{kind}"
    assert save_curves(find_runs([make_run("a"), make_run("b")]), out) == out
    assert [path.name for path in tmp_path.glob("*curves*")] == [out.name]
    if kind == "png":
        with Image.open(out) as image:
            assert image.size[0] > 1000 and len(image.convert("RGB").getcolors(1 << 20)) > 50


def test_no_file_is_written_over_and_no_kind_guessed(make_run, tmp_path):
    found = find_runs([make_run()])
    (tmp_path / "mine.png").write_text("mine")
    for name, words in (("mine.png", "already exists"), ("curves", "no kind of picture"), ("a.jpg", "no kind"),
                        ("no/where.png", "cannot be written")):  # fmt: skip
        with pytest.raises(SettingsError, match=words):
            save_curves(found, tmp_path / name)
    assert (tmp_path / "mine.png").read_text() == "mine"


def test_what_is_no_run_is_refused_by_name(make_run, tmp_path):
    run = make_run()
    with pytest.raises(RunFolderError, match="nowhere: is no folder"):
        find_runs([tmp_path / "nowhere"])
    with pytest.raises(RunFolderError, match="is not a run"):
        find_runs([run, tmp_path])
