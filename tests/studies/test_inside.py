"""What is measured inside networks, and the studies that draw it."""

import numpy as np
import pytest
import torch

from vitlab.models.classifier import build
from vitlab.studies import figure6, figure7, figure10, figure11, figure14, inside, section45, statements
from vitlab.studies.inside import finetuned, measured_distances, network, pretrained, shown
from vitlab.studies.study import Results
from vitlab.studies.work import Untrained
from vitlab.studies.world_miniature import MINIATURE
from vitlab.studies.world_paper import PAPER
from vitlab.studies.world_small import SMALL

GRID = 4
EVEN = 12.0


def positions(spread, seed=0):
    """Similarities that fall with distance: [4, 4, 4, 4], a little otherwise with every seed."""
    rows, columns = (axis.ravel() for axis in np.indices((GRID, GRID)))
    between = np.hypot(rows[:, None] - rows, columns[:, None] - columns)
    similar = np.exp(-between / spread) + 0.05 * ((rows[:, None] == rows) ^ (columns[:, None] == columns))
    similar += np.random.default_rng(seed).normal(0, 0.001, similar.shape)
    return {"similarity": similar.reshape(GRID, GRID, GRID, GRID).tolist()}


def distances(*layers):
    return {"pixels": [list(heads) for heads in layers], "even": EVEN}


def filters(smooth, seed=0):
    noise = np.random.default_rng(seed).random((28, 4, 4, 3))
    ramp = np.linspace(0, 1, 4)[None, :, None, None] * np.ones((28, 4, 4, 3))
    return {"components": (ramp + 0.1 * noise if smooth else noise).tolist()}


def rollouts(mass, count=128, side=8):
    spread = np.linspace(-0.01, 0.01, count)
    return {
        "maps": np.full((count, side, side), 0.5).tolist(),
        "mass": (mass + spread).tolist(),
        "area": [0.3] * count,
    }


def answers(edition, measure):
    return Results({label: measure(label) for label in edition.grid})


def results_that_agree(label):
    seed = int(label[-1])
    if "filters" in label:
        return filters("untrained" not in label, seed)
    if "positions" in label:
        return positions(2.0, seed)
    if "hybrid" in label:
        return distances((8, 10 + seed), (9, 11), (10, 11), (11, 11))
    if "distances" in label or "plain" in label:
        return distances((4, 10 + 0.1 * seed), (5, 11), (10, 11), (11, 11))
    return rollouts(0.3 if "untrained" in label else 0.5)


def results_that_do_not(label):
    if "filters" in label:
        return filters(False, int(label[-1]) + 2 * ("untrained" in label))
    if "positions" in label:
        return positions(-2.0)
    if "distances" in label or "plain" in label or "hybrid" in label:
        return distances((11, 11), (11, 11), (10, 11), (4, 11))
    return rollouts(0.3)


@pytest.mark.parametrize("study", [figure6, figure7, figure11, section45])
def test_a_sheet_says_whether_its_results_agree(study):
    edition = study.STUDY.at("miniature")
    agreeing = edition.sheet(answers(edition, results_that_agree))
    assert agreeing.finding.agrees is True
    assert edition.sheet(answers(edition, results_that_do_not)).finding.agrees is False
    missing = list(edition.grid)[-1]
    partly = edition.sheet(answers(edition, lambda label: None if label == missing else results_that_agree(label)))
    assert partly.finding.agrees is None and len(partly.figures) == len(agreeing.figures)
    nothing = edition.sheet(answers(edition, lambda label: None))
    assert nothing.finding.agrees is None and not nothing.figures


def test_figure_7_draws_its_three_panels_and_the_line_of_attention_to_all_alike():
    edition = figure7.STUDY.at("miniature")
    drawn = edition.sheet(answers(edition, results_that_agree)).figures
    assert [figure.title.split(":")[0] for figure in drawn] == ["Left", "Centre", "Right"]
    assert "12.0 pixels" in drawn[2].text
    lines = drawn[2].drawing.figure.axes[0].get_lines()
    assert [EVEN, EVEN] in [list(line.get_ydata()) for line in lines]


def test_figure_11_has_a_panel_and_rows_for_each_network():
    edition = figure11.STUDY.at("miniature")
    sheet = edition.sheet(answers(edition, results_that_agree))
    titles = [axes.get_title() for axes in sheet.figures[0].drawing.figure.axes]
    assert titles == ["Micro/4", "R5+Micro/4"]
    assert sheet.tables[0].rows[1] == ["Micro/4", "1", "4.0", "7.0", "10.1", "12.0"]
    assert len(sheet.tables[0].rows) == 1 + 2 * 4


def test_figure_6_shows_an_image_of_each_class_and_figure_14_many():
    for study, count in ((figure6, figure6.FEW), (figure14, 2 * figure14.MANY)):
        edition = study.STUDY.at("miniature")
        sheet = edition.sheet(answers(edition, results_that_agree))
        assert sheet.finding.agrees is True and len(sheet.figures[0].drawing.figure.axes) == count


def test_figure_10_asks_whether_trainings_differ_more_than_seeds():
    edition = figure10.STUDY.at("miniature")
    assert len(edition.grid) == 4
    labels = list(edition.grid)

    def found(spreads):
        return Results(
            {
                label: positions(spread, 3 * index)
                for index, (label, spread) in enumerate(zip(labels, spreads, strict=True))
            }
        )

    assert edition.sheet(found((1.0, 2.0, 3.0, 3.0))).finding.agrees is True
    assert edition.sheet(found((2.9, 3.0, 3.1, 1.0))).finding.agrees is False
    assert [
        axes.get_title() for axes in edition.sheet(found((1, 2, 3, 3))).figures[0].drawing.figure.axes[:3]
    ] == labels[:3]
    partly = edition.sheet(Results({label: positions(2.0) if label == labels[0] else None for label in labels}))
    assert partly.finding.agrees is None and len(partly.figures) == 1


def test_the_trainings_of_figure_10_differ_by_the_factors_of_the_paper():
    short, usual, long = (figure10.training(MINIATURE, run).settings.train for run in figure10.RUNS)
    assert long == pretrained(MINIATURE, "plain").settings.train
    assert 2 * short.steps == 2 * usual.steps == long.steps
    assert 2 * short.lr == usual.lr == long.lr
    assert short.optimizer.weight_decay == pytest.approx(0.1 * usual.optimizer.weight_decay)


def test_ink_is_where_digits_are_bright(tmp_path):
    training = finetuned(MINIATURE)
    result = inside.measured_rollouts(MINIATURE, Untrained(training)).measure([Untrained(training).model(tmp_path)])
    maps, rows = np.array(result["maps"]), training.settings.model.grid.rows
    assert maps.shape == (inside.IMAGES, rows, rows) and maps.max(axis=(1, 2)) == pytest.approx(1)
    image = inside.picture(training, shown(MINIATURE.tasks["digits"]().test), 5)
    bright = image.reshape(rows, len(image) // rows, rows, -1, 3).mean(axis=(1, 3, 4))
    ink = bright >= bright.max() / 2
    assert result["area"][5] == pytest.approx(ink.mean(), abs=1e-3)
    assert result["mass"][5] == pytest.approx(maps[5][ink].sum() / maps[5].sum(), abs=2e-3)


def test_only_digits_have_ink():
    edition = figure6.STUDY.at("miniature")
    unmarked = answers(edition, lambda label: {"maps": rollouts(0.5)["maps"]})
    sheet = edition.sheet(unmarked)
    assert sheet.finding.agrees is None and "see for yourself" in sheet.finding.words
    assert not sheet.tables and sheet.figures


def test_distances_are_a_mean_over_random_test_images():
    model = build(network(MINIATURE, "plain").model_copy(update={"num_classes": 3}), 0)
    with torch.no_grad():
        for block in model.encoder.layers:
            block.attention.query.weight.zero_()
    result = measured_distances(MINIATURE, pretrained(MINIATURE, "plain")).measure([model])
    assert np.array(result["pixels"]) == pytest.approx(np.full((4, 4), result["even"]), abs=1e-3)
    source = shown(MINIATURE.tasks["digits"]().test)
    assert len(source) == inside.IMAGES == len(set(source.indices.tolist()))


@pytest.mark.parametrize("world", [SMALL, PAPER])
def test_other_scales_look_into_networks_of_their_world(world):
    for kind, name in inside.NAMES[world.scale].items():
        assert network(world, kind) == world.networks[name]  # one that it has, and a ViT
    assert inside.sight(world) == ("digits" if world is SMALL else "imagenet")


def test_what_is_looked_into_is_what_other_studies_pretrain():
    assert pretrained(MINIATURE, "hybrid", 1).digest == MINIATURE.pretrained("R5+Micro/4", seed=1).digest
    assert finetuned(MINIATURE).start == MINIATURE.pretrained()


def test_a_difference_counts_where_every_seed_has_it_and_it_is_larger_than_their_deviation():
    def judged(*gaps):
        near = [distances((5,), (5 + gap,)) for gap in gaps]
        return statements.deeper_looks_farther(near).agrees

    assert judged(1.0) is True and judged(1.0, 1.5) is True
    assert judged(1.0, -0.1) is False and judged(0.1, 4.0) is False and judged(0.0) is False


def test_neighbours_and_rows_are_told_from_the_rest():
    flat = {"similarity": np.ones((GRID,) * 4).tolist()}
    for statement in (statements.near_is_similar, statements.rows_and_columns_appear):
        assert statement([positions(2.0)]).agrees is True
        assert statement([flat]).agrees is False
        assert statement([positions(2.0), None]).agrees is None
