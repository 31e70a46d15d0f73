"""The search for the peak on a clock of its own, and what is said of it."""

from types import SimpleNamespace

import pytest
import torch

from vitlab.errors import SettingsError
from vitlab.nn.grid import Size
from vitlab.studies import speed
from vitlab.studies.costing import Training
from vitlab.studies.measured import Measured, said
from vitlab.studies.picture import check_picture, save_picture
from vitlab.studies.speed import MODES, Bench, Point, measure, sizes_for, sweep

CPU = torch.device("cpu")


def bench(seconds=10.0, rate=1e12):
    return Bench(CPU, "float32", rate, seconds)


class Clock:
    """A device whose step of so many images takes `seconds(images)`; it remembers what it was asked for."""

    def __init__(self, monkeypatch, seconds):
        self.now, self.seconds, self.batches = 0.0, seconds, []
        stand_in = SimpleNamespace(
            monotonic=lambda: self.now
        )  # not the clock of all: servers of other tests live by it
        monkeypatch.setattr(speed, "time", stand_in)

    def prepare(self, batch):
        self.batches.append(batch)

        def run():
            self.now += self.seconds(batch)

        return run


def test_the_peak_is_found_and_no_larger_batch_tried_than_two_that_gain_nothing(monkeypatch):
    clock = Clock(monkeypatch, lambda batch: 0.001 * max(batch, 8))
    tried = sweep(clock.prepare, 10**6, bench())
    assert [batch for batch, _ in tried] == clock.batches == [1, 2, 4, 8, 16, 32]
    assert max(rate for _, rate in tried) == pytest.approx(1000)
    assert dict(tried)[1] == pytest.approx(125) and dict(tried)[8] == pytest.approx(1000)


def test_no_batch_is_tried_that_does_not_fit(monkeypatch):
    clock = Clock(monkeypatch, lambda batch: 0.001)
    assert [batch for batch, _ in sweep(clock.prepare, 5, bench())] == [1, 2, 4]
    assert sweep(clock.prepare, 0, bench()) == []


@pytest.mark.parametrize("seconds", [0.5, 2.0, 10.0])
def test_a_point_takes_little_more_than_its_time(monkeypatch, seconds):
    clock = Clock(monkeypatch, lambda batch: 0.03 * batch**0.9)
    tried = sweep(clock.prepare, 10**6, bench(seconds))
    assert tried and clock.now <= 1.5 * seconds


def test_a_step_longer_than_the_time_is_made_once(monkeypatch):
    clock = Clock(monkeypatch, lambda batch: 60.0 * batch)
    assert sweep(clock.prepare, 10**6, bench(10)) == [(1, pytest.approx(1 / 60))]
    assert clock.now == 60


def test_a_small_model_is_measured_in_both_modes(make_settings):
    sizes = [make_settings(), make_settings(image_size=Size(16, 8))]
    points = list(measure(sizes, bench(0.05)))
    assert [(point.image_size, point.mode) for point in points] == [(s.image_size, m) for s in sizes for m in MODES]
    for point in points:
        assert point.images_per_second == max(rate for _, rate in point.tried)
        assert (point.batch_size, point.images_per_second) in point.tried and point.largest_batch > 100
        assert point.utilisation > 0 and point.peak_bytes is None and not point.left_out
    assert points[0].largest_batch > points[1].largest_batch  # of half as many pixels


def test_what_would_take_too_long_or_does_not_fit_is_left_out_and_said(make_settings, monkeypatch):
    (slow, _) = measure([make_settings()], bench(seconds=0.001, rate=1e3))
    assert slow.images_per_second is None and "an image takes" in slow.left_out and "--seconds" in slow.left_out
    monkeypatch.setattr(speed, "available_memory", lambda _: 1000)
    for point in measure([make_settings()], bench()):
        assert (point.largest_batch, point.left_out) == (0, "not one image fits the memory")


def test_sizes_are_those_of_figure_12_that_the_model_can_have(make_settings):
    assert [each.image_size.height for each in sizes_for(make_settings(), asked=False)] == [8, 64, 128, 224, 384, 512]
    assert [each.image_size for each in sizes_for(make_settings(), asked=True)] == [Size(8, 8)]
    (headless, *_) = sizes_for(make_settings(num_classes=None), asked=True)
    assert headless.num_classes == 1000  # training needs something to learn


def test_there_has_to_be_time():
    with pytest.raises(SettingsError, match="--seconds"):
        Bench.on(CPU, 0.0)


@pytest.fixture
def measured(make_settings):
    points = [
        Point(Size(8, 8), "inference", 400.0, 32, 1000, 0.5, None, ((32, 400.0),)),
        Point(Size(8, 8), "training", 100.0, 16, 90, 0.4, None, ((16, 100.0),)),
    ]
    return Measured("tiny", [make_settings()], bench(), points, Training(3600.0, 10, 1.0))


def test_what_was_measured_is_said_and_becomes_time(measured):
    inference, training, memory = measured.tables()
    assert inference[1] == ["8×8", "400", "32", "50 %", "1,000"] and training[1][1] == "100"
    assert len(memory[0]) == len(memory[1]) == 6
    text = "\n".join(measured.lines())
    assert "4.0 times as long as inference" in text and "0.1 device-hours at the measured speed: 6 min" in text
    assert measured.as_json()["device_hours"] == pytest.approx(0.1)
    assert said(measured.points[0]) == "inference at 8×8 pixels: 400 images/s in batches of 32"


def test_the_figure_is_drawn_once_and_over_nothing(measured, tmp_path):
    path = tmp_path / "speed.png"
    check_picture(path)
    save_picture(measured.drawing(), path)
    assert path.read_bytes().startswith(b"\x89PNG") and [each.name for each in tmp_path.iterdir()] == ["speed.png"]
    for name, words in (("speed.png", "already exists"), ("a.txt", "no kind of picture"), ("no/a.png", "no folder")):
        with pytest.raises(SettingsError, match=words):
            check_picture(tmp_path / name)
    nothing = Measured("tiny", measured.models, bench(), [Point(Size(8, 8), "training", left_out="why")])
    with pytest.raises(SettingsError, match="nothing was measured"):
        nothing.drawing()
