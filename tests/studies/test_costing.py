"""What a model, its training and a budget cost: a name, a file, a run."""

import pytest

from vitlab.cost.flops import cost
from vitlab.errors import SettingsError, VitlabError
from vitlab.models.catalog import settings_for
from vitlab.models.classifier import build
from vitlab.studies.affordable import affordable, answer, pretraining_data
from vitlab.studies.costing import Asked, costed, count, duration, figure, megabytes, parse_budget, settings_of
from vitlab.studies.table6 import Table6
from vitlab.weights.save import save

SMALL = {"model": "Mini/8", "num_classes": 7, "image_size": 32}


def test_a_name_by_its_parts():
    found = costed(Asked(**SMALL))
    (rows,) = found.tables()
    assert [row[0] for row in rows[1:]] == [part.name for part in found.cost.parts] + ["in all"]
    assert rows[-1][1] == f"{found.cost.parameters:,}" and rows[-1][2] == rows[-1][4] == "100.0 %"
    assert found.cost == cost("Mini/8", 7, 32)
    text = "\n".join(found.lines())
    assert "Mini/8: width 128" in text and "7 classes" in text and "exaFLOPs" not in text


def test_a_file_of_weights_is_read_without_its_weights(tmp_path):
    save(build(settings_for("Mini/8", 7, 32)), tmp_path / "model.safetensors")
    found = costed(Asked(model=str(tmp_path / "model.safetensors")))
    assert (found.cost, found.training) == (cost("Mini/8", 7, 32), None)
    larger = costed(Asked(model=str(tmp_path / "model.safetensors"), image_size=64, num_classes=10))
    assert larger.cost == cost("Mini/8", 10, 64)


def test_a_broken_file_is_refused_by_name(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(VitlabError) as caught:
        costed(Asked(model=str(tmp_path / "model.safetensors")))
    assert "model.safetensors" in str(caught.value) and caught.value.exit_code == 2


def test_a_training_on_devices():
    asked = Asked(**SMALL, train_images=1e6, epochs=10, budget="4xA100 2h")
    found = costed(asked)
    exaflops = cost("Mini/8", 7, 32, 1e6, 10).exaflops
    assert found.training.exaflops == exaflops
    json = found.as_json()
    assert json["device_hours"] == pytest.approx(exaflops * 1e18 / (0.4 * 312e12) / 3600)
    assert json["hours"] == pytest.approx(json["device_hours"] / 4)
    text = "\n".join(found.lines())
    assert "on 4 × A100, at 40 % of 312 TFLOP/s" in text and "it fits" in text
    faster = costed(Asked(**SMALL, train_images=1e6, epochs=10, rate=100.0)).as_json()
    assert faster["device_hours"] == pytest.approx(exaflops * 1e18 / 100e12 / 3600)


def test_a_budget_and_images_give_epochs():
    found = answer(Asked(**SMALL, train_images=1e6, budget="4xA100 2h"))
    epochs = found.epochs["Mini/8"]["1M images"]
    assert cost("Mini/8", 7, 32, 1e6, epochs).exaflops == pytest.approx(found.budget.exaflops)
    assert found.recipes == []  # none is published for it


def test_recipes_cost_what_table_6_says():
    by_name = {row.recipe: row for row in affordable(parse_budget("8xH200 24h"), settings_for("B/16"))}
    assert by_name["jft/B16"].exaflops == pytest.approx(223.7, rel=0.001)
    masked, small = by_name["jft/B16-masked"], by_name["imagenet/B16"]
    assert masked.epochs == pytest.approx(13.5, abs=0.02) and small.images == 1_281_167
    assert small.exaflops == pytest.approx(cost("B/16", 1000, None, 1_281_167, 300).exaflops, rel=0.001)
    assert [row.fits for row in by_name.values()] == sorted((row.fits for row in by_name.values()), reverse=True)
    assert {row.model for row in by_name.values()} == {"B/16"}


def test_nothing_asked_is_table_6():
    assert isinstance(answer(Asked()), Table6)
    assert [data.images for data in pretraining_data().values()] == [1_281_167, 14_197_122, 303_000_000]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"model": "BB/16"}, "there is no model, file or run 'BB/16'; did you mean 'B/16'?"),
        ({"image_size": 224}, "MODEL: is missing"),
        ({"model": "B/16", "image_size": 8}, "B/16 with --image-size"),
        ({"model": "B/16", "train_images": 1e6}, "--epochs: is missing"),
        ({"model": "B/16", "epochs": 7}, "--train-images: is missing"),
        ({"model": "B/16", "epochs": -1, "train_images": 1e6}, "--epochs: -1 is no training"),
        ({"model": "B/16", "epochs": float("nan"), "train_images": 1e6}, "is no training"),
        (
            {"model": "B/16", "epochs": 1e300, "train_images": 1e6},
            "--epochs: 1e+300 is no training; give a number above 0 and below 1e+18",
        ),
        ({"model": "B/16", "rate": 100.0}, "--rate: is for the time of a training"),
        ({"model": "B/16", "utilisation": 0.5}, "say of which: --budget"),
        ({"budget": "8xH200 24h", "epochs": 7}, "MODEL: is missing"),
        ({"budget": "lots"}, "--budget: the rate of 'lots' is not known"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_a_line(asked, words):
    with pytest.raises(SettingsError) as caught:
        answer(Asked(**asked))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_of_nothing_is_refused(tmp_path):
    with pytest.raises(VitlabError, match="holds no model"):
        settings_of(str(tmp_path))


def test_numbers_in_words():
    assert [count(number) for number in (303e6, 1_281_167, 60_000, 12, 1e10)] == ["303M", "1.28M", "60k", "12", "10B"]
    assert [figure(number) for number in (1567.2, 12.44, 0.00032)] == ["1,567", "12.4", "0.00032"]
    assert [figure(number) for number in (999.4, 999.7)] == ["999", "1,000"]
    assert [count(number) for number in (999_600, 999_400, 2e12)] == ["1M", "999k", "2,000B"]
    assert [duration(hours) for hours in (1 / 90, 1.5, 76, 24 * 3652.5)] == [
        "40 s",
        "1 h 30 min",
        "3 d 4 h",
        "10 years",
    ]
    assert megabytes(345_678_901) == "346 MB"
