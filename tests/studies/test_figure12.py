from dataclasses import replace

from vitlab.studies import figure12, world_miniature
from vitlab.studies.figure12 import finding, nearest, point_of, sheet, timed, timing
from vitlab.studies.study import Results
from vitlab.studies.world_miniature import MINIATURE


def made_up(vit=(100.0, 64), resnet=(100.0, 32)):
    return {
        name: {
            "device": "a CPU",
            "points": [
                {"image_size": [side, side], "mode": mode, "images_per_second": rate, "largest_batch": batch}
                for side in (16, 32, 64)
                for mode in ("inference", "training")
            ],
        }
        for name in timed(MINIATURE)
        for rate, batch in [resnet if name.startswith("R") else vit]
    }


def test_a_network_is_really_timed_at_the_sizes_that_it_can_have():
    tiny = world_miniature.vit(2, width=16, depth=1, num_heads=1, mlp_dim=16)
    world = replace(MINIATURE, networks={"tiny": tiny})
    piece = timing(world, "tiny")
    found = piece.measure.func([], settings=tiny, sizes=(2, 8), seconds=0.02)  # a patch has 4 pixels
    assert [(point["image_size"], point["mode"]) for point in found["points"]] == [
        ([8, 8], "inference"),
        ([8, 8], "training"),
    ]
    point = point_of(found, 8, "inference")
    assert point["images_per_second"] > 0 and point["largest_batch"] >= point["batch_size"] >= 1
    assert point_of(found, 2, "inference") is None and point_of(None, 8, "inference") is None


def test_a_resnet_is_compared_with_the_vit_nearest_in_compute():
    assert [nearest(MINIATURE, name) for name in ("R8x0.5", "R8x1")] == ["Nano/4", "Micro/4"]


def test_vits_have_to_be_about_as_fast_and_to_fit_more():
    assert finding(MINIATURE, Results(made_up())).agrees is True
    assert finding(MINIATURE, Results(made_up(vit=(40.0, 64)))).agrees is False
    assert finding(MINIATURE, Results(made_up(resnet=(100.0, 64)))).agrees is False
    assert finding(MINIATURE, Results(made_up(vit=(None, 64)))).agrees is None
    assert finding(MINIATURE, Results(made_up() | {"R8x1": None})).agrees is None


def test_the_sheet_stands_with_and_without_results():
    whole = sheet(MINIATURE, Results(made_up()))
    assert len(whole.figures) == 1 and whole.tables[0].rows[1][1] == "100 / 64"
    none = sheet(MINIATURE, Results(dict.fromkeys(figure12.STUDY.at("miniature").grid)))
    assert none.figures == [] and none.finding.agrees is None
