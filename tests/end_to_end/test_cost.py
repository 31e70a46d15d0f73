"""`vitlab cost` as a person types it."""

import json

import pytest


def test_a_model_is_shown_by_its_parts_for_people_and_programs(within):
    done = within("cost", "Mini/8", "--image-size", "32x48", "--num-classes", 7)
    assert done.code == 0 and "attention products" in done.out and "image 32×48, 7 classes" in done.out
    found = json.loads(within("cost", "Mini/8", "--image-size", "32x48", "--num-classes", 7, "--json").out)
    assert sum(part["macs"] for part in found["parts"]) == found["macs"]
    assert found["image_size"] == [32, 48] and "training" not in found


def test_a_run_tells_its_own_training(within, trained):
    found = json.loads(within("cost", trained, "--json").out)
    assert found["training"]["images"] == 20 * 8 and found["num_classes"] == 3
    assert found["training"]["exaflops"] == pytest.approx(6 * found["macs"] * 160 / 1e18)


def test_images_may_be_written_as_people_write_them(within):
    for text in ("1.5M", "1,500,000", "1500k", "15e5"):
        done = within("cost", "Mini/8", "--train-images", text, "--epochs", 2, "--rate", 100, "--json")
        assert json.loads(done.out)["training"]["images"] == 1_500_000, done.err


def test_speed_is_measured_told_and_drawn(within, tmp_path):
    options = ("--measure", "--image-size", 16, "--seconds", 0.05, "--device", "cpu", "--out", "speed.svg")
    done = within("cost", "Mini/8", *options)
    assert done.code == 0, done.err
    assert "training, pixels" in done.out and "figure   speed.svg" in done.out and (tmp_path / "speed.svg").exists()
    assert "inference at 16×16 pixels: " in done.err
    refused = within("cost", "Mini/8", *options)
    assert refused.code == 2 and "speed.svg already exists" in refused.error
    done = within("cost", "Mini/8", *options[:-1], "again.svg", "--json")
    assert len(json.loads(done.out)["points"]) == 2 and (tmp_path / "again.svg").exists()


def test_an_interrupted_measurement_shows_what_is_there(within, monkeypatch):
    from vitlab.studies import speed

    real = speed.measure

    def interrupted(models, bench):
        yield next(real(models, bench))
        raise KeyboardInterrupt

    monkeypatch.setattr(speed, "measure", interrupted)
    done = within("cost", "Mini/8", "--measure", "--image-size", 16, "--seconds", 0.05, "--device", "cpu", "--json")
    assert done.code == 130 and [point["mode"] for point in json.loads(done.out)["points"]] == ["inference"]
    assert done.err.endswith("interrupted\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("BB/16",), ["no model, file or run 'BB/16'", "did you mean 'B/16'?"]),
        (("no/such/run",), ["no model, file or run 'no/such/run'"]),
        (("Mini/8", "--image-size", "big"), ["--image-size", "'big' is no size"]),
        (("Mini/8", "--train-images", "many", "--epochs", 1), ["--train-images", "'many' is no number of images"]),
        (("Mini/8", "--train-images", "1M"), ["--epochs: is missing"]),
        (("--budget", "8xH20O 24h"), ["--budget", "did you mean 'H200'?"]),
        (("Mini/8", "--out", "a.png"), ["--out", "add --measure"]),
        (("Mini/8", "--seconds", 1), ["--seconds", "add --measure"]),
        (("Mini/8", "--device", "cpu"), ["--device", "add --measure"]),
        (("Mini/8", "--measure", "--budget", "8xH200 24h"), ["--budget", "--measure finds that of this device"]),
        (("Mini/8", "--measure", "--rate", 100), ["--rate", "give one of the two"]),
        (("Mini/8", "--measure", "--utilisation", 0.3), ["--utilisation", "give one of the two"]),
        (("Mini/8", "--measure", "--seconds", 0), ["--seconds"]),
        (("Mini/8", "--measure", "--device", "abacus"), ["--device"]),
        (("--measure",), ["MODEL: is missing"]),
    ],
)
def test_a_mistake_is_one_line(refused, arguments, words):
    done = refused("cost", *arguments, words=words)
    assert len(done.err.strip().splitlines()) == 1
