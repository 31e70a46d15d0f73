import csv

from vitlab.studies import table5
from vitlab.studies.published import read_table
from vitlab.studies.study import Results
from vitlab.studies.work import in_order
from vitlab.studies.world_miniature import MINIATURE

GRID = table5.STUDY.at("miniature").grid


def made_up(small_gains, large_gains):
    """Results where going to the large set adds so much with the cheapest and with the dearest ViT."""
    gains = {"Nano/8 on large": small_gains, "Micro/4 on large": large_gains}
    return {
        label: {"test/top1": 0.5 + gains.get(label.split(",")[0], 0.0) + 0.01 * label.endswith("1")} for label in GRID
    }


def test_the_paper_is_transcribed_without_a_slip(shared):
    with (shared / "paper" / "table5_pretraining_data.csv").open(newline="") as file:
        assert read_table("table5") == list(csv.DictReader(file))


def test_every_vit_is_pre_trained_on_every_set():
    assert len(GRID) == 4 * 3 * 2 * 2
    assert len(in_order(list(GRID.values()))) == len(GRID) + 4 * 3 * 2


def test_large_models_have_to_gain_more_from_the_large_set():
    def told(small_gains, large_gains):
        return table5.sheet(MINIATURE, Results(made_up(small_gains, large_gains))).finding.agrees

    assert told(0.05, 0.2) is True
    assert told(0.2, 0.2) is False
    assert told(-0.2, 0.0) is False


def test_the_sheet_stands_without_some_results():
    results = made_up(0.05, 0.2)
    ours, theirs = table5.sheet(MINIATURE, Results(results)).tables
    assert ours.rows[0] == ["task", "Nano/8", "Nano/4", "Micro/8", "Micro/4"]
    assert ours.rows[-1][0] == "new fractals, after 10,000 fractals of 200 classes"
    assert ours.rows[-1][-1] == "70.5 ± 0.7" and theirs.rows[1][:2] == ["CIFAR-10, after ImageNet", "98.13"]
    part = table5.sheet(MINIATURE, Results(results | {label: None for label in results if "Micro/4" in label}))
    assert part.finding.agrees is None and "9 of 12" in part.finding.words
    assert {row[-1] for row in part.tables[0].rows[1:]} == {""}
