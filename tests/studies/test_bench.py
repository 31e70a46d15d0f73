"""The bench of VTAB's groups, and the two studies that show it."""

from pathlib import Path

import pytest

from vitlab.data.digits import Digits
from vitlab.studies import bench, figure2, table9
from vitlab.studies.bench import CONTESTS, Entry
from vitlab.studies.pictures import structured
from vitlab.studies.study import Results
from vitlab.studies.vtab import all_tasks
from vitlab.studies.work import Training, Untrained
from vitlab.studies.world import Task, measured_heads
from vitlab.studies.world_miniature import MINIATURE, fractals, pretraining, vit
from vitlab.studies.world_paper import PAPER

LARGE, RESNET, MEDIUM = Entry("Micro/4", "large"), Entry("R8x1", "large"), Entry("Micro/4", "medium")


def results(top1, drop=()):
    found = {}
    for entry in CONTESTS["miniature"].entries():
        for task, group in bench.tasks_of(MINIATURE).items():
            for seed in MINIATURE.seeds:
                value = top1[entry].get(group, 0.5) + 0.01 * seed
                found[bench._label(entry, task, seed)] = None if task in drop else {"top1": value}
    return Results(found)


def test_every_entry_has_every_task_and_digits_are_shared_with_other_studies():
    grid = table9.STUDY.at("miniature").grid
    assert (
        grid.keys()
        == figure2.STUDY.at("miniature").grid.keys()
        == results({LARGE: {}, RESNET: {}, MEDIUM: {}}).by_label.keys()
    )
    digits = grid[bench._label(LARGE, "digits", 0)]
    assert digits.digest == MINIATURE.heads(MINIATURE.pretrained("Micro/4", "large", 0)).digest
    assert len({piece.digest for piece in grid.values()}) == len(grid) == 3 * 5 * 2
    assert set(bench.tasks_of(MINIATURE).values()) == set(bench.GROUPS)


def test_a_task_of_pictures_is_measured():
    settings = pretraining(vit(width=16, mlp_dim=16, depth=1, num_heads=1), fractals(3, 5), steps=4)
    sides = (structured("number of digits", side) for side in ("train", "test"))
    piece = measured_heads(
        Untrained(Training("base-seed0", settings)), "number of digits", *sides, shots=20, draws=(0, 1)
    )
    found = piece.measure([model.model(Path()) for model in piece.models])
    assert found["images"] == 500 and len(found["draws"]) == 2
    assert 0.3 < found["top1"] <= 1  # how light the image is tells it, even to a network that has learned nothing


def test_at_the_papers_scale_it_is_vtab_as_the_paper_runs_it(monkeypatch):
    train, test = Digits().split(0.5)
    asked = []
    monkeypatch.setattr(bench, "named_task", lambda name: asked.append(name) or Task(train, test))
    start = MINIATURE.pretrained()
    piece = bench._finetuned(PAPER, start, Entry("L/16", "large"), "dspr-loc")
    settings = piece.settings
    assert asked == ["vtab/dspr-loc"] and piece.start is start
    assert (settings.train.steps, settings.train.lr, settings.train.batch_size) == (2500, 0.01, 512)
    assert settings.model.image_size.height == 384 and settings.model.num_classes == 10
    assert bench.tasks_of(PAPER) == all_tasks()


def test_figure_2_compares_the_groups_of_which_the_paper_speaks():
    ahead = {"natural": 0.7, "specialized": 0.4, "structured": 0.7}
    sheet = figure2.sheet(MINIATURE, results({LARGE: ahead, RESNET: {}, MEDIUM: {}}))
    assert sheet.finding.agrees is True and "20.0 ± 1.0 points ahead on natural tasks" in sheet.finding.words
    assert sheet.tables[0].rows[0] == ["", "all (5)", "natural (1)", "specialized (1)", "structured (3)"]
    assert sheet.tables[0].rows[1][1:] == ["64.5 ± 0.7", "70.5 ± 0.7", "40.5 ± 0.7", "70.5 ± 0.7"]

    def told(**groups):
        return figure2.sheet(MINIATURE, results({LARGE: ahead | groups, RESNET: {}, MEDIUM: {}})).finding.agrees

    assert told(structured=0.3) is False
    assert told(structured=0.505) is None


@pytest.mark.parametrize(("value", "expected"), [(0.7, True), (0.3, False), (0.505, None)])
def test_table_9_compares_the_sets(value, expected):
    groups = dict.fromkeys(bench.GROUPS, value)
    sheet = table9.sheet(MINIATURE, results({LARGE: groups, RESNET: {}, MEDIUM: {}}))
    assert sheet.finding.agrees is expected
    assert sheet.tables[0].rows[-4][:3] == ["mean", "", f"{100 * value + 0.5:.1f} ± 0.7"]


def test_table_9_counts_the_tasks_on_which_the_larger_set_is_better():
    groups = {"natural": 0.9, "specialized": 0.9, "structured": 0.4}
    sheet = table9.sheet(MINIATURE, results({LARGE: groups, RESNET: {}, MEDIUM: {}}))
    assert "it is better on 2 of them" in sheet.finding.words


def test_a_part_of_the_tasks_is_no_mean():
    given = results({LARGE: {}, RESNET: {}, MEDIUM: {}}, drop=["number of digits"])
    for study in (figure2, table9):
        sheet = study.sheet(MINIATURE, given)
        assert sheet.finding.agrees is None
        assert all(figure.drawing.svg().startswith("<svg") for figure in sheet.figures)
    assert bench.by_group(MINIATURE, given, LARGE)["structured"] is None
    assert bench.by_group(MINIATURE, given, LARGE)["natural"] is not None


def test_what_is_said_of_the_papers_table_is_in_it():
    rows = {row[0]: row[2:] for row in table9._published().rows}
    assert rows["mean"] == ["77.6", "76.3", "72.7"] and len(rows) == 1 + 19 + 4
    better = [row for row in table9._published().rows[1:20] if float(row[3]) > float(row[4])]
    assert len(better) == 16 and "on 16 of them" in table9.STUDY.found
