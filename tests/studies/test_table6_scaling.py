import csv

from vitlab.evals.interval import OverRuns
from vitlab.studies import table6_scaling
from vitlab.studies.figure5 import paper
from vitlab.studies.scaling import Reached
from vitlab.studies.study import Results
from vitlab.studies.table6 import read_accuracies, read_paper, table6
from vitlab.studies.table6_scaling import finding, sheet
from vitlab.studies.world_miniature import MINIATURE


def model(exaflops, top1, family):
    return Reached(family, family, exaflops, OverRuns(top1, 0.01, 2))


def models(gain):
    return [
        model(x, y, family)
        for family in ("ViT", "ResNet", "hybrid")
        for x, y in ((1, 0.5), (2, 0.5 + (gain if family == "hybrid" else 0.2)))
    ]


def test_accuracies_are_transcribed_without_a_slip(shared):
    with (shared / "paper" / "table6_scaling.csv").open(newline="") as file:
        printed = list(csv.DictReader(file))
    for line, row, accuracies in zip(printed, read_paper(), read_accuracies(), strict=True):
        assert (line["model"], int(line["epochs"])) == row[:2]
        assert accuracies == {name: float(line[name]) for name in line if name not in ("model", "epochs", "exaFLOPs")}


def test_the_paper_agrees_with_itself():
    assert finding(paper(["ImageNet"]), table6().rows, complete=True).agrees is True


def test_every_family_has_to_gain_and_the_compute_has_to_be_met():
    counted = table6().rows
    assert finding(models(0.1), counted, complete=True).agrees is True
    assert finding(models(0.005), counted, complete=True).agrees is False
    off = [counted[0]._replace(ratio=1.05), *counted[1:]]
    assert finding(models(0.1), off, complete=True).agrees is False
    unfinished = finding(models(0.1), counted, complete=False)
    assert unfinished.agrees is None and "met within 2.3 %" in unfinished.words


def test_both_tables_stand_with_and_without_results():
    grid = table6_scaling.STUDY.at("miniature").grid
    for results in (dict.fromkeys(grid), {label: {"test/top1": 0.5} for label in grid}):
        ours, theirs = sheet(MINIATURE, Results(results)).tables
        assert len(ours.rows) == 10 and len(theirs.rows) == 19
        assert {len(row) for row in ours.rows} == {6} and {len(row) for row in theirs.rows} == {11}
    assert ours.rows[1][:5] == ["Nano/8", "1,000", "50.0 ± 0.0", "50.0 ± 0.0", "50.0 ± 0.0"]
    assert theirs.rows[1][:3] == ["B/32", "7", "80.73"] and theirs.rows[1][-3] == "55"
    assert [row[-3] for row in theirs.rows if row[-3].endswith("*")] == ["859 *"]
