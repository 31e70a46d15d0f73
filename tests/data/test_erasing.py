import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitlab.config import override, parse, to_json
from vitlab.data.erasing import Erasing
from vitlab.data.preprocess import ImageSpec
from vitlab.data.transforms import Augment, NoCrop
from vitlab.errors import SettingsError


def erased(view, settings, seed):
    """Return the rectangle that was erased of a black view: rows, columns, values; None where none was."""
    found = settings.apply(view, np.random.default_rng(seed))
    changed = (found != view).any(axis=2)
    if not changed.any():
        return None
    rows, columns = (np.flatnonzero(changed.any(axis=axis)) for axis in (1, 0))
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    outside = changed.copy()
    outside[part] = False
    assert not outside.any()
    return part[0], part[1], found[part]


def test_rectangles_have_the_area_and_the_ratio_that_were_asked_for_and_lie_everywhere():
    view = np.zeros((100, 120, 3), np.uint8)
    settings = Erasing(probability=1.0)
    boxes = [erased(view, settings, seed) for seed in range(400)]
    areas = np.array([values.shape[0] * values.shape[1] / 12_000 for _, _, values in boxes])
    ratios = np.array([values.shape[0] / values.shape[1] for _, _, values in boxes])
    assert 0.018 < areas.min() < 0.04 and 0.36 < areas.max() < 0.42
    assert 0.27 < ratios.min() < 0.5 and 2.5 < ratios.max() < 3.6
    covered = np.zeros((100, 120), bool)
    for rows, columns, _ in boxes:
        covered[rows, columns] = True
    assert covered.mean() > 0.97  # corners are rarely reached


def test_what_is_erased_is_noise_of_every_value():
    _, _, values = erased(np.zeros((200, 200, 3), np.uint8), Erasing(probability=1.0, area=(0.4, 0.4)), 1)
    counts = np.bincount(values.ravel(), minlength=256)
    assert counts.min() > 0 and counts.max() < 2 * counts.mean()
    assert not np.array_equal(values[..., 0], values[..., 1])


def test_it_happens_as_often_as_was_asked_for():
    view = np.zeros((16, 16, 3), np.uint8)
    often = sum(erased(view, Erasing(probability=0.25), seed) is not None for seed in range(1000))
    assert 200 < often < 300
    assert all(erased(view, Erasing(probability=0.0), seed) is None for seed in range(100))


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 10**6))
def test_a_view_keeps_its_size_and_follows_from_the_generator(rows, columns, seed):
    view = np.random.default_rng(0).integers(0, 256, (rows, columns, 3), dtype=np.uint8)
    before = view.copy()
    first, again = (Erasing(probability=1.0).apply(view, np.random.default_rng(seed)) for _ in range(2))
    assert first.shape == view.shape and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(view, before)


def test_where_no_rectangle_fits_the_view_stays():
    view = np.zeros((4, 400, 3), np.uint8)
    assert erased(view, Erasing(probability=1.0, area=(0.4, 0.4), ratio=(3.0, 3.0)), 0) is None


def test_it_is_the_last_thing_that_happens_to_a_view():
    view, spec = np.zeros((16, 16, 3), np.uint8), ImageSpec(height=16, width=16)
    plain = Augment(crop=NoCrop(), flip=False)
    found = override(plain, ["erasing.probability=1"]).apply(view, spec, np.random.default_rng(0))
    np.testing.assert_array_equal(found, Erasing(probability=1.0).apply(view, np.random.default_rng(0)))
    both = override(plain, ["erasing.probability=1", "randaugment={}"])
    rng = np.random.default_rng(0)
    assert both.randaugment is not None
    after = Erasing(probability=1.0).apply(both.randaugment.apply(view, rng), rng)
    np.testing.assert_array_equal(both.apply(view, spec, np.random.default_rng(0)), after)


def test_settings_survive_json():
    augment = Augment(erasing=Erasing(probability=0.25, area=(0.02, 1 / 3)))
    assert parse(Augment, to_json(augment), "here") == augment


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("erasing.area=[0.4,0.1]", r"use area \[0.1, 0.4\]"),
        ("erasing.ratio=[2,0.5]", r"use ratio \[0.5, 2\]"),
        ("erasing.area=[0,0.1]", "greater than 0"),
        ("erasing.probability=1.5", "less than or equal to 1"),
        ("erasing.probabilty=1", "did you mean 'probability'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(change, said):
    with pytest.raises(SettingsError, match=said):
        override(Augment(), [change])
