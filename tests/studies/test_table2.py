import csv
from functools import cache

from vitlab.studies import table2
from vitlab.studies.published import read_table
from vitlab.studies.study import Results
from vitlab.studies.table2 import LARGEST, PUBLIC, RESNET, SMALLER, compared
from vitlab.studies.work import in_order
from vitlab.studies.world_miniature import MINIATURE

POINT = {"image_size": [16, 16], "mode": "training", "images_per_second": 384.0, "largest_batch": 64}


@cache
def grid():
    return table2.STUDY.at("miniature").grid


def made_up(**top1):
    results: dict[str, dict] = {label: {"device": "a CPU", "points": [POINT]} for label in grid()}
    for column, model in compared(MINIATURE).items():
        for label in model.grid():
            results[label] = {"test/top1": top1[column] + 0.01 * int(label[-1])}
    return results


def told(largest, smaller, resnet):
    values = {LARGEST: largest, SMALLER: smaller, PUBLIC: 0.5, RESNET: resnet}
    return table2.sheet(MINIATURE, Results(made_up(**values)))


def test_the_paper_is_transcribed_without_a_slip(shared):
    with (shared / "paper" / "table2_sota.csv").open(newline="") as file:
        assert read_table("table2") == list(csv.DictReader(file))


def test_each_column_has_its_like_and_three_fine_tunings_of_one_start():
    assert {column: (model.network, model.data) for column, model in compared(MINIATURE).items()} == {
        LARGEST: ("Micro/4", "large"),
        SMALLER: ("Micro/8", "large"),
        PUBLIC: ("Micro/8", "medium"),
        RESNET: ("R8x1", "large"),
    }
    assert len(grid()) == 4 * 2 * 3 + 3 and len(in_order(list(grid().values()))) == len(grid()) + 4


def test_the_best_vit_has_to_be_ahead_and_the_cheaper_one_not_behind():
    assert told(0.8, 0.7, 0.7).finding.agrees is True
    assert told(0.7, 0.7, 0.7).finding.agrees is False
    assert told(0.8, 0.6, 0.7).finding.agrees is False


def test_the_sheet_has_costs_and_stands_without_some_results():
    ours, theirs = told(0.8, 0.7, 0.7).tables
    assert ours.rows[1] == ["digits", "81.0 ± 1.0", "71.0 ± 1.0", "51.0 ± 1.0", "71.0 ± 1.0"]
    named = {row[0]: row[1:] for row in ours.rows}
    assert named["time to pre-train"] == ["3 min"] * 4  # 1,000 batches of 64 at 384 images a second
    assert float(named["teraFLOPs"][0]) > float(named["teraFLOPs"][1])
    assert theirs.rows[-1][-1] == "12300"
    part = table2.sheet(MINIATURE, Results(dict.fromkeys(grid())))
    assert part.finding.agrees is None and "0 of 4" in part.finding.words
