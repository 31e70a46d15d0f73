import numpy as np

from vitlab.studies import figure4
from vitlab.studies.study import Results
from vitlab.studies.world_miniature import MINIATURE

WINS = {
    "Nano/4": (0.3, 0.5, 0.7),
    "Micro/4": (0.4, 0.6, 0.9),
    "R8x0.5": (0.5, 0.5, 0.5),
    "R8x1": (0.6, 0.6, 0.6),
}


def sheet(top1, drop=()):
    found = {
        figure4._label(network, share, seed): {"top1": value + 0.01 * seed}
        for network, values in top1.items()
        for share, value in zip(figure4.SHARES["miniature"], values, strict=True)
        for seed in MINIATURE.seeds
    }
    grid = figure4.STUDY.at("miniature").grid
    assert found.keys() == grid.keys()
    return figure4.sheet(MINIATURE, Results({label: None if label in drop else found[label] for label in grid}))


def test_subsets_have_all_classes_and_smaller_ones_are_parts_of_larger_ones():
    whole = figure4.pretrained_on(MINIATURE, "Micro/4", 1, 0)
    assert whole.digest == MINIATURE.pretrained("Micro/4", "large", 0).digest
    parts = {}
    for share in (0.1, 0.3):
        training = figure4.pretrained_on(MINIATURE, "Micro/4", share, 0)
        data = training.settings.train_data
        counts = np.bincount(data.labels)
        assert len(counts) == len(data.classes) == 200 and set(counts.tolist()) == {round(50 * share)}
        assert training.settings.train == whole.settings.train and training.settings.model == whole.settings.model
        parts[share] = {data.read(index).key for index in range(len(data))}
    assert parts[0.1] < parts[0.3]


def test_it_agrees_where_both_vits_overtake_their_rivals():
    found = sheet(WINS)
    assert found.finding.agrees is True
    assert "Micro/4 is 20.0 ± 1.0 points behind R8x1" in found.finding.words
    assert found.tables[0].rows[0] == ["network", "1,000 images", "3,000 images", "10,000 images"]
    assert found.tables[0].rows[1] == ["Nano/4", "30.5 ± 0.7", "50.5 ± 0.7", "70.5 ± 0.7"]


def test_it_does_not_agree_where_one_vit_is_ahead_from_the_first_and_cannot_tell_from_a_part():
    assert sheet({**WINS, "Micro/4": (0.8, 0.8, 0.9)}).finding.agrees is False
    assert sheet({**WINS, "Micro/4": (0.4, 0.8, 0.605)}).finding.agrees is None
    gone = {figure4._label("R8x1", 1, seed) for seed in MINIATURE.seeds}
    part = sheet(WINS, gone)
    assert part.finding.agrees is None and part.figures[0].drawing.svg().startswith("<svg")
    assert sheet(WINS, figure4.STUDY.at("miniature").grid).finding.agrees is None
