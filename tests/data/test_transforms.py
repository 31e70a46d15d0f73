import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitlab.config import parse, to_json
from vitlab.data.preprocess import CentralCrop, ImageSpec
from vitlab.data.resize import resize
from vitlab.data.transforms import Augment, InceptionCrop, NoCrop, ResizeCrop, inception_box
from vitlab.errors import SettingsError

SIDES = st.integers(1, 700)
SEEDS = st.integers(0, 10**6)
CROPS = [InceptionCrop(), ResizeCrop(), NoCrop()]
AREAS = st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(lambda pair: (min(pair), max(pair)))
RATIOS = st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(lambda pair: (min(pair), max(pair)))


def picture(rows=20, columns=30, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


@given(SIDES, SIDES, AREAS, RATIOS, SEEDS)
def test_a_box_is_inside_the_image_with_its_area_in_range_or_the_whole_image(rows, columns, area, ratio, seed):
    left, top, right, bottom = inception_box(rows, columns, area, ratio, np.random.default_rng(seed))
    assert 0 <= left < right <= columns
    assert 0 <= top < bottom <= rows
    share = (right - left) * (bottom - top) / (rows * columns)
    whole = (left, top, right, bottom) == (0, 0, columns, rows)
    assert whole or area[0] - 1e-9 <= share <= area[1] + 1e-9


@given(st.integers(100, 700), st.integers(100, 700), SEEDS)
def test_the_shape_of_a_box_is_in_range_up_to_whole_pixels(rows, columns, seed):
    left, top, right, bottom = inception_box(rows, columns, (0.05, 1.0), (3 / 4, 4 / 3), np.random.default_rng(seed))
    width, height = right - left, bottom - top
    if (width, height) != (columns, rows):
        assert 3 / 4 * (height - 1) - 1 <= width <= 4 / 3 * (height + 1) + 1


def test_boxes_cover_small_and_large_parts_everywhere():
    rng = np.random.default_rng(0)
    boxes = np.array([inception_box(100, 100, (0.05, 1.0), (3 / 4, 4 / 3), rng) for _ in range(2000)])
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / 10_000
    assert areas.min() < 0.07
    assert areas.max() > 0.9
    covered = np.zeros((100, 100), bool)
    for left, top, right, bottom in boxes.astype(int):
        covered[top:bottom, left:right] = True
    assert covered.all()


def test_an_impossible_shape_gives_the_whole_image():
    assert inception_box(4, 400, (0.9, 1.0), (0.5, 1.0), np.random.default_rng(0)) == (0, 0, 400, 4)


@given(st.sampled_from(CROPS), st.booleans(), SIDES, SIDES, SEEDS)
def test_a_view_has_the_size_of_the_target_whatever_the_image(crop, flip, rows, columns, seed):
    view = Augment(crop=crop, flip=flip).apply(
        picture(rows, columns), ImageSpec(height=16, width=12), np.random.default_rng(seed)
    )
    assert view.shape == (16, 12, 3)
    assert view.dtype == np.uint8


@pytest.mark.parametrize("crop", CROPS)
def test_a_view_is_a_function_of_the_generator_alone(crop):
    spec, image = ImageSpec(height=16, width=12), picture()
    before = image.copy()
    first, again = (Augment(crop=crop).apply(image, spec, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("crop", CROPS[:2])
def test_another_generator_gives_another_view(crop):
    spec = ImageSpec(height=16, width=12)
    views = {
        Augment(crop=crop, flip=False).apply(picture(), spec, np.random.default_rng(seed)).tobytes()
        for seed in range(20)
    }
    assert len(views) > 5


def test_half_of_the_views_are_flipped():
    spec, image = ImageSpec(height=20, width=30), picture()
    flipped = 0
    for seed in range(400):
        view = Augment(crop=NoCrop()).apply(image, spec, np.random.default_rng(seed))
        flipped += int(np.array_equal(view, image[:, ::-1]))
        assert np.array_equal(view, image) or np.array_equal(view, image[:, ::-1])
    assert 150 < flipped < 250


@given(SEEDS)
def test_without_the_flip_nothing_is_flipped(seed):
    spec, image = ImageSpec(height=20, width=30, fit=CentralCrop(fraction=0.5)), picture()
    view = Augment(crop=NoCrop(), flip=False).apply(image, spec, np.random.default_rng(seed))
    np.testing.assert_array_equal(view, spec.prepare(image))


@given(SEEDS)
def test_resize_crop_cuts_the_target_out_of_the_whole_image_made_larger(seed):
    spec, image = ImageSpec(height=12, width=6), picture()
    crop = ResizeCrop(fraction=0.75)
    view = Augment(crop=crop, flip=False).apply(image, spec, np.random.default_rng(seed))
    whole = resize(image, 16, 8, "bilinear")
    places = [(top, left) for top in range(5) for left in range(3)]
    assert any(np.array_equal(view, whole[top : top + 12, left : left + 6]) for top, left in places)


def test_resize_crop_reaches_every_corner():
    spec, image = ImageSpec(height=12, width=12), np.zeros((16, 16, 3), np.uint8)
    image[0, 0, 0] = image[0, 15, 1] = image[15, 0, 2] = 255
    crop = Augment(crop=ResizeCrop(fraction=0.75), flip=False)
    views = [crop.apply(image, spec, np.random.default_rng(seed)) for seed in range(300)]
    assert all(max(view[..., channel].max() for view in views) == 255 for channel in range(3))


@pytest.mark.parametrize("crop", CROPS)
def test_settings_survive_json(crop):
    augment = Augment(crop=crop, flip=False)
    assert parse(Augment, to_json(augment), "here") == augment


@pytest.mark.parametrize(
    "crop",
    [
        {"type": "ResizeCrop", "fraction": 0},
        {"type": "ResizeCrop", "fraction": 1.1},
        {"type": "InceptionCrop", "area": [0.1]},
        {"type": "InceptionCrop", "zoom": 2},
        {"type": "Mosaic"},
    ],
)
def test_a_crop_that_cannot_be_is_refused(crop):
    with pytest.raises(SettingsError, match="crop"):
        parse(Augment, {"crop": crop}, "here")
