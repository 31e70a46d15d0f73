"""The operations are Pillow's, at the strengths of big_vision; the geometric ones are repeated here on arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from vitlab.config import override, parse, to_json
from vitlab.data import randaugment
from vitlab.data.preprocess import ImageSpec
from vitlab.data.randaugment import FILL, OPERATIONS, RandAugment
from vitlab.data.transforms import Augment
from vitlab.errors import SettingsError


def picture(rows=224, columns=224, seed=0):
    """Smooth enough that an enhancement shows, with noise."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(40, 200, columns)[None, :, None] * np.array([1.0, 0.8, 0.6])
    return (ramp + rng.integers(0, 40, (rows, columns, 3))).astype(np.uint8)


def after(name, magnitude, view=None, rng=None):
    image = Image.fromarray(picture() if view is None else view)
    return np.array(OPERATIONS[name](image, magnitude / 10, rng or np.random.default_rng(0)))


def signed(sign):
    """Return a generator whose first draw gives that sign."""
    seed = next(seed for seed in range(99) if (np.random.default_rng(seed).random() < 0.5) == (sign < 0))
    return np.random.default_rng(seed)


SIGNS = (-1, 1)

BY_PILLOW = [
    ("AutoContrast", 7, ImageOps.autocontrast),
    ("Equalize", 7, ImageOps.equalize),
    ("Invert", 7, ImageOps.invert),
    ("Posterize", 10, lambda image: ImageOps.posterize(image, 4)),
    ("Posterize", 15, lambda image: ImageOps.posterize(image, 6)),
    ("Posterize", 0, lambda image: ImageOps.posterize(image, 1)),
    ("Solarize", 5, lambda image: ImageOps.solarize(image, 128)),
    ("Solarize", 0, ImageOps.invert),
    ("Color", 10, lambda image: ImageEnhance.Color(image).enhance(1.9)),
    ("Contrast", 0, lambda image: ImageEnhance.Contrast(image).enhance(0.1)),
    ("Brightness", 20, lambda image: ImageEnhance.Brightness(image).enhance(3.7)),
    ("Sharpness", 15, lambda image: ImageEnhance.Sharpness(image).enhance(2.8)),
]


@pytest.mark.parametrize(("name", "magnitude", "expected"), BY_PILLOW)
def test_an_operation_is_that_of_pillow(name, magnitude, expected):
    view = picture()
    np.testing.assert_array_equal(after(name, magnitude, view), np.array(expected(Image.fromarray(view))))
    assert not np.array_equal(after(name, magnitude, view), view)


RESTS = [("Posterize", 20), ("Solarize", 10), ("Solarize", 30), ("Color", 5), ("Contrast", 5), ("Brightness", 5)]
RESTS += [(name, 0) for name in ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY", "Cutout", "SolarizeAdd")]


@pytest.mark.parametrize(("name", "magnitude"), [*RESTS, ("Sharpness", 5), ("Posterize", 30)])
def test_where_an_operation_rests_the_view_is_as_it_was(name, magnitude):
    np.testing.assert_array_equal(after(name, magnitude), picture())


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize(("name", "axis"), [("TranslateX", 1), ("TranslateY", 0)])
def test_a_view_moves_by_a_hundred_pixels_of_224_at_magnitude_ten(name, axis, sign):
    view = picture()
    for side, pixels in ((224, 50), (448, 100), (112, 25)):
        view = picture(side, side)
        expected = np.empty_like(view)
        expected[...] = FILL
        kept, taken = [slice(None)] * 2, [slice(None)] * 2
        kept[axis], taken[axis] = (slice(pixels, None), slice(None, -pixels))[::sign]
        expected[tuple(taken)] = view[tuple(kept)]
        np.testing.assert_array_equal(after(name, 5, view, signed(sign)), expected)


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("name", ["ShearX", "ShearY"])
def test_a_shear_moves_each_row_by_its_distance(name, sign):
    view = picture(40, 40)
    rows = view if name == "ShearX" else view.swapaxes(0, 1)
    expected = np.empty_like(rows)
    expected[...] = FILL
    for row in range(40):
        for column in range(40):
            place = int(np.floor(column + 0.5 + sign * 0.3 * (row + 0.5)))
            if 0 <= column + 0.5 + sign * 0.3 * (row + 0.5) < 40:
                expected[row, column] = rows[row, place]
    expected = expected if name == "ShearX" else expected.swapaxes(0, 1)
    np.testing.assert_array_equal(after(name, 10, view, signed(sign)), expected)


@pytest.mark.parametrize("sign", SIGNS)
def test_rotation_is_a_quarter_turn_at_magnitude_thirty(sign):
    view = picture()
    np.testing.assert_array_equal(after("Rotate", 30, view, signed(sign)), np.rot90(view, sign))
    assert np.all(after("Rotate", 10, view, signed(sign))[0, 0] == FILL)


def test_solarize_add_raises_dark_values_only():
    view = picture()
    found = after("SolarizeAdd", 15, view).astype(int)
    np.testing.assert_array_equal(found, np.where(view < 128, np.minimum(view.astype(int) + 165, 255), view))


def test_a_cutout_is_a_square_of_eighty_pixels_at_magnitude_ten_cut_off_at_the_borders():
    view, sizes = np.zeros((224, 224, 3), np.uint8), []
    for seed in range(40):
        covered = np.all(after("Cutout", 10, view, np.random.default_rng(seed)) == FILL, axis=2)
        rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
        assert covered.sum() == len(rows) * len(columns)
        sizes += [len(rows), len(columns)]
    assert max(sizes) == 80 and min(sizes) >= 40 and len(set(sizes)) > 5


def test_as_many_operations_are_drawn_as_are_asked_for_and_each_as_often(monkeypatch):
    drawn = []
    noted = tuple(lambda image, level, rng, name=name: drawn.append((name, level)) or image for name in OPERATIONS)
    monkeypatch.setattr(randaugment, "_IN_ORDER", noted)
    for seed in range(800):
        RandAugment(num_ops=4, magnitude=15).apply(picture(4, 4), np.random.default_rng(seed))
    counts = {name: sum(name == other for other, _ in drawn) for name in OPERATIONS}
    assert len(drawn) == 3200 and {level for _, level in drawn} == {1.5}
    assert all(140 < count < 260 for count in counts.values())


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 16), st.floats(0, 30), st.integers(0, 10**6))
def test_a_view_keeps_its_size_and_follows_from_the_generator(rows, columns, num_ops, magnitude, seed):
    view, settings = picture(rows, columns), RandAugment(num_ops=num_ops, magnitude=magnitude)
    before = view.copy()
    first, again = (settings.apply(view, np.random.default_rng(seed)) for _ in range(2))
    assert first.shape == view.shape and first.dtype == np.uint8 and first.flags.c_contiguous
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(view, before)


@given(st.integers(0, 10**6))
def test_crop_and_flip_are_the_same_with_it_and_it_comes_after_them(seed):
    image, spec, rng = picture(30, 50), ImageSpec(height=16, width=12), np.random.default_rng(seed)
    cut = Augment().apply(image, spec, rng)
    expected = RandAugment().apply(cut, rng)
    found = Augment(randaugment=RandAugment()).apply(image, spec, np.random.default_rng(seed))
    np.testing.assert_array_equal(found, expected)


def test_it_is_off_until_one_of_its_options_is_set():
    assert Augment().randaugment is None
    assert override(Augment(), ["randaugment.magnitude=15"]).randaugment == RandAugment(magnitude=15)
    assert override(Augment(), ["randaugment={}"]).randaugment == RandAugment()
    on = Augment(randaugment=RandAugment(num_ops=3))
    assert parse(Augment, to_json(on), "here") == on
    assert override(on, ["randaugment.magnitude=5", "randaugment=null"]).randaugment is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("randaugment.magnitude=31", "less than or equal to 30"),
        ("randaugment.num_ops=0", "greater than or equal to 1"),
        ("randaugment.magnitud=3", "did you mean 'magnitude'"),
        ("randaugment.type=3", "no setting 'type'"),
        ("flip.magnitude=3", "no setting 'magnitude'"),
        ("randaugment=5", "'randaugment' is no single value; set one of its own: num_ops, magnitude"),
    ],
)
def test_what_cannot_be_is_refused_by_name(change, said):
    with pytest.raises(SettingsError, match=said):
        override(Augment(), [change])
