"""Class token and pooling, scaling, SGD and Adam, axial attention: their grids, and what their findings say of results."""

import csv

import pytest

from vitlab.cost.flops import cost
from vitlab.nn.pooling import ClassToken, Mean
from vitlab.studies import ablation, figure8, figure9, figure13, table7
from vitlab.studies.study import Results
from vitlab.studies.work import Training, in_order
from vitlab.studies.world_miniature import MINIATURE
from vitlab.train.optimizer import SGD, Adam


def heads(top1):
    return {"top1": top1}


def by_seed(top1, label):
    """Return the result of linear heads, a point better or worse by the seed in the label."""
    return heads(top1 + (0.01 if label.endswith("seed 0") else -0.01))


def trained(grid):
    return [piece for piece in in_order(list(grid.values())) if isinstance(piece, Training)]


@pytest.mark.parametrize("study", [figure8, figure9, figure13, table7])
def test_without_results_a_sheet_can_tell_nothing(study):
    edition = study.STUDY.at("miniature")
    sheet = edition.sheet(Results(dict.fromkeys(edition.grid)))
    assert sheet.finding.agrees is None
    assert all(len(row) == len(table.rows[0]) for table in sheet.tables for row in table.rows)


def test_what_a_training_computes_is_its_macs_by_its_images():
    training = MINIATURE.pretrained()
    macs = cost(training.settings.model).macs
    assert ablation.exaflops(training) == pytest.approx(6 * macs * 64 * 1000 / 1e18)


def pooled(token, mean):
    """Return the finding where these are the accuracies at the three rates."""
    values = [top1 for each in (*token, *mean) for top1 in (each, each)]
    grid = figure9.STUDY.at("miniature").grid
    results = {label: by_seed(top1, label) for label, top1 in zip(grid, values, strict=True)}
    return figure9.sheet(MINIATURE, Results(results))


def test_pooling_is_compared_at_the_same_rates_and_shares_the_usual_training():
    found = trained(figure9.STUDY.at("miniature").grid)
    pools = [training.settings.model.pool for training in found]
    assert pools == [ClassToken()] * 6 + [Mean()] * 6
    assert [training.settings.train.lr for training in found] == pytest.approx(
        2 * [rate for rate in (0.375 * 3e-3, 3e-3, 8e-3) for _ in MINIATURE.seeds]
    )
    assert found[2:4] == [MINIATURE.pretrained(seed=seed) for seed in MINIATURE.seeds]


def test_average_pooling_needs_another_rate():
    sheet = pooled((0.4, 0.5, 0.4), (0.5, 0.3, 0.2))
    assert (
        sheet.finding.agrees is True
        and "At the rate of the class token, average pooling is 20.0 points" in sheet.finding.words
    )
    assert pooled((0.4, 0.5, 0.4), (0.4, 0.5, 0.4)).finding.agrees is False  # at the same rate
    assert pooled((0.4, 0.5, 0.4), (0.3, 0.2, 0.1)).finding.agrees is False  # it is worse at any
    assert pooled((0.4, 0.5, 0.4), (0.502, 0.5, 0.4)).finding.agrees is False  # within the deviation
    assert len(sheet.figures) == 1


def test_the_base_is_scaled_along_each_axis():
    base = figure8.BASES["miniature"]
    along = {
        axis: [figure8.training(MINIATURE, dimensions) for dimensions in each]
        for axis, each in figure8.sizes(MINIATURE).items()
    }
    sizes = {
        axis: [(s.depth, s.width, s.num_heads, s.mlp_dim, s.stem.cell.height) for s in (t.settings.model for t in each)]
        for axis, each in along.items()
    }
    assert sizes["base"] == [tuple(base.values())]
    assert [size[0] for size in sizes["depth"]] == [4, 8, 16]
    assert [size[1:3] for size in sizes["width"]] == [(64, 4), (96, 6)]
    assert [size[4] for size in sizes["patch size"]] == [4, 2]
    assert sizes["all"] == [(4, 64, 4, 128, 4)]
    names = [training.name for each in along.values() for training in each]
    assert len(set(names)) == len(names)


def scaled(**gains):
    """Return the sheet where the largest of each axis gains so much over the base."""
    along = figure8.sizes(MINIATURE)
    ends = {"-".join(map(str, along[axis.replace("_", " ")][-1].values())): gain for axis, gain in gains.items()}
    grid = figure8.STUDY.at("miniature").grid
    top1 = {label: 0.3 + ends.get(label.partition(", ")[0], 0) for label in grid}
    return figure8.sheet(MINIATURE, Results({label: by_seed(top1[label], label) for label in grid}))


def test_depth_helps_most_and_width_least():
    paper = {"depth": 0.4, "width": 0.01, "MLP_width": 0.1, "patch_size": 0.2, "all": 0.3}
    sheet = scaled(**paper)
    assert sheet.finding.agrees is True and len(sheet.figures) == 1
    assert scaled(**paper | {"width": 0.5}).finding.agrees is False
    assert scaled(**paper | {"patch_size": 0.005}).finding.agrees is False


def test_table_7_is_transcribed_without_a_slip(shared):
    with (shared / "paper" / "table7_sgd_vs_adam.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row.pop("dataset"): {name: float(value) for name, value in row.items()} for row in rows} == table7.paper()
    for column in table7.paper()["Average"]:
        each = [row[column] for name, row in table7.paper().items() if name != "Average"]
        assert sum(each) / 5 == pytest.approx(table7.paper()["Average"][column], abs=0.011)


def test_either_optimizer_has_two_rates():
    found = [training for training in trained(table7.STUDY.at("miniature").grid) if training.start is None]
    assert [type(t.settings.train.optimizer) for t in found] == 2 * [Adam, Adam, SGD, SGD]
    assert [t.settings.train.lr for t in found] == pytest.approx(2 * [3e-3, 9e-3, 0.3, 1.0])
    assert found[0] == MINIATURE.pretrained("R8x0.5")


def by_optimizer(adam, sgd):
    def tuned(label):
        top1 = adam if "Adam" in label else sgd
        return {"test/top1": top1 if "rate 1" in label else 0.1, "test/count": 1000}

    grid = table7.STUDY.at("miniature").grid
    return table7.sheet(MINIATURE, Results({label: tuned(label) for label in grid}))


def test_the_better_rate_of_each_optimizer_is_compared():
    sheet = by_optimizer(0.8, 0.7)
    assert sheet.finding.agrees is True and "R8x0.5 +10.0 points, better on 2 of 2 tasks" in sheet.finding.words
    assert sheet.tables[0].rows[-2:] == [
        ["average", "80.0", "70.0", "80.0", "70.0"],
        ["rate of pre-training", "0.009", "1", "0.009", "1"],
    ]
    assert by_optimizer(0.7, 0.8).finding.agrees is False
    assert by_optimizer(0.8, 0.799).finding.agrees is None


def axial(gain, slower):
    """Return the sheet where axial ViTs gain so much and AxialResNet is so much slower than its ResNet."""

    def result(label):
        name, kind, *_ = label.split(", ")
        is_axial, is_resnet = name.startswith("Axial"), "R8" in name
        if kind == "heads":
            return by_seed(0.5 + gain * is_axial, label)
        return {"images_per_second": 1000 / (slower if is_axial and is_resnet else 1), "on": "a test"}

    grid = figure13.STUDY.at("miniature").grid
    return figure13.sheet(MINIATURE, Results({label: result(label) for label in grid}))


def test_axial_attention_is_better_dearer_and_slow_in_a_resnet():
    sheet = axial(0.1, 5.0)
    assert sheet.finding.agrees is True and len(sheet.figures) == 2
    assert axial(0.005, 5.0).finding.agrees is False
    assert axial(0.1, 1.0).finding.agrees is False


def test_the_speed_of_a_network_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(figure13, "SECONDS", 0.05)
    piece = figure13.STUDY.at("miniature").grid["Axial-Micro/8, speed"]
    found = piece.measure([model.model(tmp_path) for model in piece.models])
    assert found["images_per_second"] > 0
