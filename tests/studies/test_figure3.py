import csv

import pytest

from vitlab.studies import figure3
from vitlab.studies.study import Results
from vitlab.studies.world_miniature import MINIATURE

WINS = {
    ("Micro/4", "small"): 0.5,
    ("Micro/4", "medium"): 0.6,
    ("Micro/4", "large"): 0.8,
    ("R8x1", "small"): 0.6,
    ("R8x1", "medium"): 0.65,
    ("R8x1", "large"): 0.7,
}


def results(top1, drop=()):
    """Return accuracies by network and set, 0.4 where there is none, that vary by a point over seeds."""
    found = {}
    for label in figure3.STUDY.at("miniature").grid:
        network, _, rest = label.partition(" on ")
        data, seed = rest.split(",")[0], int(label[-1])
        value = top1.get((network, data), 0.4) + 0.01 * seed
        found[label] = None if any(word in label for word in drop) else {"test/top1": value}
    return Results(found)


def sheet(*given):
    return figure3.sheet(MINIATURE, results(*given))


def test_every_network_is_fine_tuned_after_every_set():
    grid = figure3.STUDY.at("miniature").grid
    assert len(grid) == 4 * 3 * len(MINIATURE.tasks) * len(MINIATURE.seeds)
    starts = {piece.start.digest for piece in grid.values()}
    assert len(starts) == 4 * 3 * len(MINIATURE.seeds)
    assert MINIATURE.pretrained("Micro/4", "small", 1).digest in starts


def test_it_agrees_where_the_larger_vit_overtakes_the_resnet():
    whole = sheet(WINS)
    assert whole.finding.agrees is True
    assert "Micro/4 is 10.0 ± 1.0 points behind R8x1" in whole.finding.words
    assert "10.0 ± 1.0 points ahead after the large one" in whole.finding.words
    row = next(row for row in whole.tables[0].rows if row[0] == "Micro/4")
    assert row[1:] == ["50.5 ± 0.7", "60.5 ± 0.7", "80.5 ± 0.7"]


def test_it_does_not_agree_where_the_resnet_stays_ahead_and_cannot_tell_from_a_part():
    assert sheet({**WINS, ("R8x1", "large"): 0.9}).finding.agrees is False
    assert sheet({**WINS, ("R8x1", "large"): 0.795}).finding.agrees is None
    part = sheet(WINS, ["R8x1 on large"])
    assert part.finding.agrees is None and "Not both of Micro/4 and R8x1" in part.finding.words
    assert part.figures[0].drawing.svg().startswith("<svg")
    assert sheet(WINS, ["on"]).finding.agrees is None


def test_the_papers_points_are_those_of_table_5(shared):
    with (shared / "paper" / "table5_pretraining_data.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["transfer"] == "ImageNet"]
    found = figure3.paper()
    assert found["ViT-H/14"] == {"medium": 85.13, "large": 88.04}
    assert len(rows) == 3
    for row in rows:
        data = next(data for data, title in figure3.SETS.items() if title == row["pretraining"])
        for network in ("ViT-B/16", "ViT-B/32", "ViT-L/16", "ViT-L/32"):
            assert found[network][data] == pytest.approx(float(row[network]))
