from dataclasses import replace

import pytest

from vitlab.evals.interval import OverRuns
from vitlab.studies import figure5
from vitlab.studies.figure5 import AVERAGED, finding, frontier, leads, paper
from vitlab.studies.scaling import Reached, scaling_set
from vitlab.studies.study import Results
from vitlab.studies.transfer import FAMILIES, FLOPS, Transfer, Unit, family_of, networks_of, unit_for
from vitlab.studies.work import in_order
from vitlab.studies.world_miniature import MINIATURE

EXA = Unit("exaFLOPs", 1)


def model(exaflops, top1, family="ViT", std=0.01):
    return Reached(f"{family} of {exaflops}", family, exaflops, OverRuns(top1, std, 2))


def made_up(**top1):
    """Results of the miniature in which every run of a family reaches the same."""
    grid, result = figure5.STUDY.at("miniature").grid, dict[str, dict[str, float]]()
    for label in grid:
        family = family_of(MINIATURE.networks[label.split(" on ")[0]])
        result[label] = {"test/top1": top1[family] + (0.001 if label.endswith("1") else 0)}
    return result


def test_the_rule_finds_in_the_paper_what_the_paper_found():
    models = paper(AVERAGED)
    assert len(models) == 18
    assert [sum(model.family == family for model in models) for family in FAMILIES] == [6, 7, 5]
    found = finding(models, 18, EXA)
    assert found.agrees is True
    assert "ViTs are 1.1 points ahead of them" in found.words
    assert "0.9 points ahead of ViTs at 106 exaFLOPs, and 0.1 points behind them at 1,668" in found.words


def test_a_lead_is_taken_at_the_same_compute():
    others = [model(1, 0.5), model(100, 0.7), model(50, 0.4)]
    assert [each.exaflops for each in frontier(others)] == [1, 100]
    assert leads([model(10, 0.65)], others) == [(10, pytest.approx(0.05))]
    assert leads([model(1000, 0.6), model(0.5, 0.9)], others) == [(1000, pytest.approx(-0.1))]


def test_what_would_contradict_the_paper_does():
    vits = [model(1, 0.5), model(100, 0.7)]
    resnets = [model(x, y - 0.1, "ResNet") for x, y in ((1, 0.5), (100, 0.7))]
    hybrids = [model(1, 0.6, "hybrid"), model(100, 0.7, "hybrid")]
    assert finding([*vits, *resnets, *hybrids], 6, EXA).agrees is True
    better = [model(x, y + 0.1, "ResNet") for x, y in ((1, 0.5), (100, 0.7))]
    assert finding([*vits, *better, *hybrids], 6, EXA).agrees is False
    ahead = [model(1, 0.6, "hybrid"), model(100, 0.8, "hybrid")]
    assert finding([*vits, *resnets, *ahead], 6, EXA).agrees is False
    noisy = [each._replace(top1=replace(each.top1, std=0.5)) for each in [*vits, *resnets, *hybrids]]
    assert finding(noisy, 6, EXA).agrees is False
    assert finding([*vits, *resnets], 6, EXA).agrees is None


def test_families_that_share_no_compute_are_not_compared():
    vits = [model(100, 0.7), model(200, 0.7)]
    cheap = [model(1, 0.5, "ResNet"), model(1, 0.6, "hybrid")]
    assert finding([*vits, *cheap], 4, EXA).agrees is None


def test_the_miniature_has_every_network_once_a_seed():
    grid = figure5.STUDY.at("miniature").grid
    assert len(grid) == len(MINIATURE.networks) * len(MINIATURE.tasks) * len(MINIATURE.seeds)
    pieces = in_order(list(grid.values()))
    assert len(pieces) == len(grid) + len(MINIATURE.networks) * len(MINIATURE.seeds)
    assert MINIATURE.pretrained("R8x1", seed=1).digest in {piece.digest for piece in pieces}


def test_the_sheet_shows_all_families_some_or_none():
    results = made_up(ViT=0.7, ResNet=0.5, hybrid=0.7)
    whole = figure5.sheet(MINIATURE, Results(results))
    assert whole.finding.agrees is False  # hybrids are not ahead where compute is small
    assert [figure.title for figure in whole.figures] == ["Accuracy against compute", "The paper's figure"]
    assert len(whole.tables[0].rows) == 1 + len(MINIATURE.networks)
    costs = [float(row[2].replace(",", "")) for row in whole.tables[0].rows[1:]]
    assert whole.tables[0].rows[0][2] == "teraFLOPs" and costs == sorted(costs)
    part = figure5.sheet(MINIATURE, Results(results | {label: None for label in results if "R8x1" in label}))
    assert part.finding.agrees is None and len(part.tables[0].rows) == len(MINIATURE.networks)
    none = figure5.sheet(MINIATURE, Results(dict.fromkeys(results)))
    assert none.finding.agrees is None and len(none.figures) == 1


def test_networks_are_of_their_family_and_ordered_by_cost():
    assert networks_of(MINIATURE, "ViT") == ["Nano/8", "Nano/4", "Micro/8", "Micro/4"]
    assert networks_of(MINIATURE, "ResNet") == ["R8x0.5", "R14x0.5", "R8x1"]
    assert networks_of(MINIATURE, "hybrid") == ["R5+Nano/4", "R5+Micro/4"]
    assert [model.network for model in scaling_set(MINIATURE)][:4] == networks_of(MINIATURE, "ViT")


def test_compute_grows_with_the_length_and_has_a_unit_to_be_read_in():
    once, twice = (Transfer(MINIATURE, "Nano/8", length=length) for length in (1, 2))
    assert twice.exaflops == pytest.approx(2 * once.exaflops)
    assert twice.pretraining(0).settings.train.steps == 2 * once.pretraining(0).settings.train.steps
    assert twice.name != once.name and not set(twice.grid()) & set(once.grid())
    assert unit_for([3e-4, 2e-3]).name == "petaFLOPs" and unit_for([1e-20]).name == list(FLOPS)[-1]
    assert Unit("petaFLOPs", 1e-3).shown(1.2) == "1,200" and EXA.shown(0.1234) == "0.123"


def test_runs_from_one_start_share_their_pre_training():
    same = Transfer(MINIATURE, "Nano/8", seeds=(0, 1, 2), start=0)
    own = Transfer(MINIATURE, "Nano/8", seeds=(0, 1, 2))
    tasks = len(MINIATURE.tasks)
    assert len(in_order(list(same.grid().values()))) == 1 + 3 * tasks
    assert len(in_order(list(own.grid().values()))) == 3 + 3 * tasks


def test_the_average_is_over_seeds_that_have_every_task():
    both = Transfer(MINIATURE, "Nano/8", seeds=(0, 1))
    values = dict(zip(both.grid(), (0.2, 0.4, 0.6, 0.8), strict=True))  # digits and new fractals, two seeds each
    results = {label: {"test/top1": value} for label, value in values.items()}
    average = both.average(Results(results))
    assert average.mean == pytest.approx(0.5) and average.runs == 2
    cut = both.average(Results(results | {next(iter(results)): None}))
    assert cut.mean == pytest.approx(0.6) and cut.runs == 1
    assert both.average(Results(dict.fromkeys(results))) is None
