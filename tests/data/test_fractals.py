import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlab.config import parse, to_json
from vitlab.data.fractals import Fractals, System, _draw_once, find_system, rasterize, scatter
from vitlab.errors import SettingsError

seeds = st.integers(0, 2**40)


def cover(system, rng, size=32):
    points, _ = scatter(system, rng, size * size)
    return len(np.unique(rasterize(points, size))) / size**2


def test_counts_and_classes():
    fractals = Fractals(num_classes=3, images_per_class=4)
    assert len(fractals) == 12
    assert fractals.classes == ("fractal-000", "fractal-001", "fractal-002")
    assert fractals.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert fractals.labels.dtype == np.int64
    assert str(fractals) == "fractals (3 classes × 4)"


def test_one_example():
    example = Fractals().read(342)
    assert (example.label, example.key) == (3, "fractals/c003/00042")
    assert example.data.shape == (32, 32, 3) and example.data.dtype == np.uint8
    assert example.data.std() > 10


@pytest.mark.parametrize("size", [8, 33, 224])
def test_image_size(size):
    assert Fractals(image_size=size).read(0).data.shape == (size, size, 3)


@given(seed=seeds, order=st.permutations(range(12)))
@settings(max_examples=10, deadline=None)
def test_an_image_depends_on_nothing_read_before(seed, order):
    fractals = Fractals(num_classes=4, images_per_class=3, seed=seed)
    forward = [fractals.read(index).data for index in range(12)]
    find_system.cache_clear()
    _draw_once.cache_clear()
    shuffled = {index: fractals.read(index).data for index in order}
    assert all(np.array_equal(forward[index], shuffled[index]) for index in range(12))
    assert len({image.tobytes() for image in forward}) == 12


def test_a_larger_set_holds_the_smaller():
    small, large = Fractals(num_classes=3, images_per_class=2), Fractals(num_classes=300, images_per_class=50)
    for index in range(6):
        one, same = small.read(index), large.read(index // 2 * 50 + index % 2)
        assert one.key == same.key and np.array_equal(one.data, same.data)


@pytest.mark.parametrize(("views", "least", "most"), [(1, 0.18, 0.5), (8, 0.0, 0.12)])
def test_one_view_shows_every_shape_upright_and_eight_show_it_turned_and_mirrored(views, least, most):
    """Seen from everywhere, the mean shape of a class is like itself on its head; seen from one side it is not."""
    fractals = Fractals(num_classes=8, images_per_class=40, image_size=16, views=views)
    pixels = np.stack([fractals.read(index).data.mean(axis=2) for index in range(len(fractals))]).reshape(8, 40, 16, 16)
    shape = (pixels > pixels.mean(axis=(2, 3), keepdims=True)).mean(axis=1)
    assert least <= np.abs(shape - shape[:, ::-1, ::-1]).mean() <= most


def test_an_image_that_was_read_cannot_be_changed_for_those_who_read_it_later():
    with pytest.raises(ValueError, match="read-only"):
        Fractals(image_size=8).read(0).data[0, 0] = 0


def test_seeds_make_other_images():
    first, second = (Fractals(seed=seed).read(0).data for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_billions_of_images_need_no_memory():
    huge = Fractals(num_classes=10_000_000, images_per_class=1_000)
    assert len(huge) == 10_000_000_000
    example = huge.read(len(huge) - 1)
    assert (example.label, example.key) == (9_999_999, "fractals/c9999999/00999")
    train, test = huge.split(0.25)
    assert (len(train), len(test)) == (7_500_000_000, 2_500_000_000)
    assert train.read(len(train) - 1).label == test.read(len(test) - 1).label == 9_999_999


@pytest.mark.parametrize("index", [-1, 10_000])
def test_an_index_outside_is_an_error(index):
    with pytest.raises(IndexError, match="no example"):
        Fractals().read(index)


@given(classes=st.integers(1, 5), images=st.integers(1, 6), fraction=st.floats(0.01, 0.99), seed=seeds)
@settings(max_examples=25, deadline=None)
def test_a_split_divides_every_class(classes, images, fraction, seed):
    whole = Fractals(num_classes=classes, images_per_class=images, image_size=8)
    train, test = whole.split(fraction, seed)
    keys = [[side.read(index).key for index in range(len(side))] for side in (train, test)]
    assert sorted(keys[0] + keys[1]) == [whole.read(index).key for index in range(len(whole))]
    for side, part in ((train, 1 - fraction), (test, fraction)):
        assert [side.read(index).label for index in range(len(side))] == side.labels.tolist()
        assert (np.abs(np.bincount(side.labels, minlength=classes) - images * part) <= 1).all()
        assert side.classes == whole.classes
        indices = side.part.indices(whole.labels)
        assert [whole.read(int(index)).key for index in indices] == keys[side is test]


def test_a_side_can_be_split_again():
    train, _ = Fractals(num_classes=3, images_per_class=10).split(0.2)
    fit, dev = train.split(0.25)
    assert (len(train), len(fit), len(dev)) == (24, 18, 6) and str(dev).endswith(", test part of the train part")
    keys = [[side.read(index).key for index in range(len(side))] for side in (train, fit, dev)]
    assert sorted(keys[1] + keys[2]) == keys[0]


def test_a_wrong_fraction_is_a_settings_error():
    with pytest.raises(SettingsError, match="fraction"):
        Fractals().split(0.0)


@pytest.mark.parametrize(
    "wrong", [{"num_classes": 0}, {"images_per_class": 0}, {"image_size": 7}, {"views": 4}, {"seed": -1}]
)
def test_a_wrong_setting_is_named(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        parse(Fractals, wrong, "test")


def test_pickle_and_json_keep_the_source():
    test = Fractals(num_classes=2, images_per_class=5, seed=7).split(0.4)[1]
    pickled = pickle.loads(pickle.dumps(test))
    for copy in (pickled, parse(Fractals, json.loads(json.dumps(to_json(test))), "test")):
        assert copy == test and str(copy) == "fractals (2 classes × 5), test part"
        assert all(np.array_equal(copy.read(i).data, test.read(i).data) for i in range(len(test)))


@given(seed=seeds)
def test_every_map_shrinks_and_the_sum_of_sigmas_is_in_range(seed):
    rng = np.random.default_rng(seed)
    system = System.sample(rng)
    n = len(system.sigma)
    assert 2 <= n <= 8
    first, second = system.sigma.T
    assert 0.5 * (5 + n) <= (first + 2 * second).sum() <= 0.5 * (6 + n)
    for one in (system, system.perturb(rng)):
        a, b, c, d, _, _ = one.coefficients()
        sigma = np.linalg.svd(np.stack([a, b, c, d], axis=1).reshape(-1, 2, 2), compute_uv=False)
        np.testing.assert_allclose(sigma, np.sort(one.sigma)[:, ::-1], atol=1e-5)
        assert (sigma > 0).all() and (sigma < 0.951).all()


@given(seed=seeds)
@settings(deadline=None)
def test_points_lie_on_the_attractor(seed):
    """Maps take the attractor into itself, so mapping all points again reaches hardly a new pixel."""
    rng = np.random.default_rng(seed)
    system = find_system(seed, 0)
    points, made_by = scatter(system, rng, 4096)
    a, b, c, d, e, f = system.coefficients()[:, made_by]
    again = np.stack([a * points[0] + b * points[1] + e, c * points[0] + d * points[1] + f])
    assert points.shape == (2, 32768) and made_by.max() < len(system.sigma)
    pixel = rasterize(np.concatenate([points, again], axis=1), 16)
    old, new = np.unique(pixel[: len(made_by)]), np.unique(pixel[len(made_by) :])
    assert len(np.setdiff1d(new, old)) <= 0.15 * len(old)


@given(seed=seeds, label=st.integers(0, 2**40), place=st.integers(1, 1000))
@settings(deadline=None)
def test_no_class_or_image_is_nearly_empty_or_nearly_full(seed, label, place):
    """A class by the median of nine measurements: one stray point widens the frame of a single one."""
    rng = np.random.default_rng((seed, label, place))
    system = find_system(seed, label)
    assert 0.1 <= np.median([cover(system, rng) for _ in range(9)]) <= 0.8
    assert 0.05 <= cover(system.perturb(rng), rng) <= 0.9


@given(
    seed=seeds,
    size=st.integers(8, 64),
    zoom=st.floats(0.5, 1),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    scale=st.floats(1e-3, 1e3),
)
@settings(deadline=None)
def test_rasterize_fills_the_zoom_and_keeps_every_point(seed, size, zoom, place, scale):
    points = scale * np.random.default_rng(seed).normal(size=(2, 500)).astype(np.float32)
    pixel = rasterize(points, size, zoom, place)
    row, column = np.divmod(pixel, size)
    assert len(pixel) == 500 and row.min() >= 0 and row.max() < size
    extent = max(np.ptp(row), np.ptp(column)) + 1
    assert abs(extent - zoom * size) <= 2


def test_classes_look_different_and_images_of_one_alike():
    """Of shapes alone, seen upright, the nearest class mean is nearly always the right one."""

    def shape(label, place):
        rng = np.random.default_rng((1, label, place))
        points, _ = scatter(find_system(0, label).perturb(rng), rng, 1024)
        image = np.bincount(rasterize(points, 12), minlength=144)
        return np.sqrt(image / image.sum())

    means = np.stack([np.mean([shape(label, place) for place in range(8)], axis=0) for label in range(20)])
    nearest = [np.square(means - shape(label, 99)).sum(axis=1).argmin() for label in range(20)]
    assert np.mean(np.array(nearest) == np.arange(20)) >= 0.8
