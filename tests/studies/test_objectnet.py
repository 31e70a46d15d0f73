from pathlib import Path

from vitlab.data.digits import Digits
from vitlab.studies import objectnet
from vitlab.studies.pictures import SHIFTS, shifted
from vitlab.studies.study import Results
from vitlab.studies.work import Training, Untrained
from vitlab.studies.world_miniature import MINIATURE, vit

START = {"pre-trained": 0.2, "from scratch": 0.0}


def sheet(own, others, drop=()):
    found = {}
    for label in objectnet.STUDY.at("miniature").grid:
        start, _, seed = label.partition(", seed ")
        top1 = {objectnet.OWN: own} | dict.fromkeys(SHIFTS, others)
        found[label] = (
            None
            if label in drop
            else {
                f"{name} top{k}": value + START[start] + 0.01 * int(seed)
                for name, value in top1.items()
                for k in (1, 5)
            }
        )
    return objectnet.sheet(MINIATURE, Results(found))


def test_models_with_and_without_pre_training_are_evaluated():
    grid = objectnet.STUDY.at("miniature").grid
    starts = [piece.models[0].start for piece in grid.values()]
    assert len(grid) == 4 and starts.count(None) == 2
    assert {start.digest for start in starts if start} == {MINIATURE.pretrained(seed=seed).digest for seed in (0, 1)}


def test_every_kind_of_images_is_judged_by_the_models_own_classes():
    _, test = Digits().split(0.2)
    settings = MINIATURE.finetune(vit(width=16, mlp_dim=16, depth=1, num_heads=1), "digits")
    model = Untrained(Training("base-seed0", settings)).model(Path())
    model.classes = test.classes
    sources = {objectnet.OWN: test, "inverted": shifted(test, "inverted")}
    whole = objectnet._measure([model], sources=sources, middle=None)
    assert set(whole) == {f"{name} top{k}" for name in sources for k in (1, 5)}
    assert 0 <= whole["inverted top1"] <= whole["inverted top5"] <= 1
    usual = model.image_spec
    middle = objectnet._measure([model], sources=sources, middle=480 / 512)
    assert middle[f"{objectnet.OWN} top1"] == whole[f"{objectnet.OWN} top1"] and usual.fit.type == "Squash"


def test_it_agrees_where_every_shift_costs_accuracy():
    found = sheet(0.7, 0.4)
    assert found.finding.agrees is True
    assert "moved 60.5 ± 0.7 % (the one from scratch 40.5 ± 0.7 %)" in found.finding.words
    assert found.tables[0].rows[1] == ["own test images", "90.5 ± 0.7", "90.5 ± 0.7", "70.5 ± 0.7", "70.5 ± 0.7"]
    assert found.tables[1].rows[2] == ["ObjectNet", "61.7", "82.1"]
    assert sheet(0.7, 0.7).finding.agrees is False
    assert sheet(0.7, 0.4, drop=["pre-trained, seed 0", "pre-trained, seed 1"]).finding.agrees is None
