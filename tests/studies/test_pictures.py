import numpy as np
import pytest

from vitlab.data.digits import Digits
from vitlab.data.fractals import Fractals
from vitlab.data.source import Source
from vitlab.studies.pictures import CELLS, COUNT, SHIFTS, STRUCTURED, Pictures, identity, shifted, structured


@pytest.mark.parametrize("task", STRUCTURED)
def test_a_task_has_as_many_images_of_every_class_and_other_digits_on_either_side(task):
    train, test = structured(task, "train"), structured(task, "test")
    assert isinstance(train, Source) and train.classes == test.classes
    for side, source in (("train", train), ("test", test)):
        counts = np.bincount(source.labels, minlength=len(source.classes))
        assert set(counts.tolist()) == {COUNT[side] // len(source.classes)}
    assert not {image.tobytes() for image in train.pixels} & {image.tobytes() for image in test.pixels}
    assert train.read(3).label == train.labels[3] and train.read(3).data.shape[2] == 3


def test_the_label_is_where_the_digit_is():
    source = structured("digit's place", "test")
    for index in range(0, len(source), 25):
        rows, columns = np.nonzero(source.pixels[index, ..., 0])
        middle = np.array([rows.min() + rows.max(), columns.min() + columns.max()]) / 2
        cell = np.array(divmod(int(source.labels[index]), CELLS))
        assert (abs((middle - 3.5) / 8 * (CELLS - 1) - cell) < 1.5).all()  # a digit does not fill its 8 pixels


def test_the_label_is_how_many_digits_there_are():
    source = structured("number of digits", "test")
    cells = source.pixels[..., 0].reshape(-1, 3, 8, 3, 8).max(axis=(2, 4)) > 0
    assert (cells.sum(axis=(1, 2)) - 1 == source.labels).all()


def test_the_label_is_how_far_the_digit_is_turned():
    source = structured("digit's direction", "train")
    upright = source.pixels[source.labels == 0]
    assert (upright[:, 4:12, 4:12].sum(axis=(1, 2, 3)) == upright.sum(axis=(1, 2, 3))).all()
    upside_down = source.pixels[source.labels == 5][:, ::-1, ::-1]
    assert (upside_down[:, 4:12, 4:12].sum(axis=(1, 2, 3)) == upside_down.sum(axis=(1, 2, 3))).all()
    assert not np.array_equal(upright[0], upside_down[0])


@pytest.mark.parametrize("shift", SHIFTS)
def test_shifted_images_keep_their_labels_and_are_the_same_each_time(shift):
    digits = Digits().split(0.1)[1]
    source = shifted(digits, shift)
    assert source.classes == digits.classes and np.array_equal(source.labels, digits.labels)
    assert source.digest == shifted(digits, shift).digest
    same = [np.array_equal(source.read(index).data, digits.read(index).data) for index in range(len(digits))]
    assert not any(same)


def test_shifts_do_what_they_say():
    digits = Digits().split(0.1)[1]
    first = digits.read(0).data
    assert (shifted(digits, "inverted").pixels[0] == 255 - first).all()
    assert shifted(digits, "moved").pixels.shape[1:] == (12, 12, 3)
    assert shifted(digits, "moved").pixels[0].sum() == first.sum()
    noisy = shifted(digits, "on noise").pixels[0]
    assert (noisy >= first).all() and (noisy[first > 152] == first[first > 152]).all()


def test_the_identity_tells_sources_apart():
    one = structured("number of digits", "test")
    other = Pictures(one.name, one.classes, one.labels[::-1].copy(), one.pixels)
    assert identity(one) != identity(other)
    assert identity(Fractals(seed=1)) != identity(Fractals(seed=2))
