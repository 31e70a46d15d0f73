import json
import pickle
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlab.config import parse, to_json
from vitlab.data.digits import Digits
from vitlab.errors import SettingsError

COUNTS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]

# Sums over scikit-learn's copy of the original values, 0 to 16.
VALUES_PER_CLASS = [56415, 57007, 55566, 56151, 56239, 55915, 56336, 54289, 57408, 56392]
PIXEL_WEIGHTED, IMAGE_WEIGHTED, LABEL_WEIGHTED = 17660653, 503342547, 7264791

EXAMPLE_42 = """
 0  0  0  0 12  5  0  0
 0  0  0  2 16 12  0  0
 0  0  1 12 16 11  0  0
 0  2 12 16 16 10  0  0
 0  6 11  5 15  6  0  0
 0  0  0  1 16  9  0  0
 0  0  0  2 16 11  0  0
 0  0  0  3 16  8  0  0"""


def pixels(source):
    return np.stack([source.read(index).data for index in range(len(source))])


def test_counts_and_classes():
    digits = Digits()
    assert len(digits) == 1797
    assert digits.classes == tuple("0123456789")
    assert digits.labels.dtype == np.int64
    assert np.bincount(digits.labels).tolist() == COUNTS


def test_every_value_is_that_of_the_original():
    digits = Digits()
    images = pixels(digits)
    assert images.dtype == np.uint8 and images.shape == (1797, 8, 8, 3)
    assert (images == images[..., :1]).all()
    values = np.rint(images[..., 0] * (16 / 255)).astype(np.int64)
    assert [int(values[digits.labels == label].sum()) for label in range(10)] == VALUES_PER_CLASS
    assert (values.reshape(-1, 64) * np.arange(64)).sum() == PIXEL_WEIGHTED
    assert (values.sum((1, 2)) * np.arange(1797)).sum() == IMAGE_WEIGHTED
    assert (digits.labels * np.arange(1797)).sum() == LABEL_WEIGHTED


def test_one_example():
    example = Digits().read(42)
    assert (example.label, example.key) == (1, "digits/0042")
    expected = np.array(EXAMPLE_42.split(), float).reshape(8, 8) * 255 / 16
    assert np.abs(example.data[..., 0] - expected).max() <= 0.5
    assert example.data.max() == 255 and example.data.flags["C_CONTIGUOUS"]


def test_an_example_may_be_changed_without_changing_the_next():
    digits = Digits()
    digits.read(0).data[:] = 7
    digits.labels[:] = 7
    assert digits.read(0).data.max() > 7 and digits.labels[0] == 0


@pytest.mark.parametrize("index", [-1, 1797])
def test_an_index_outside_is_an_error(index):
    with pytest.raises(IndexError, match="digits: no example"):
        Digits().read(index)


@given(fraction=st.floats(0.01, 0.99), seed=st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_a_split_divides_every_class(fraction, seed):
    whole = Digits()
    train, test = whole.split(fraction, seed)
    keys: list[str] = []
    for side, part in ((train, 1 - fraction), (test, fraction)):
        assert (np.abs(np.bincount(side.labels, minlength=10) - np.array(COUNTS) * part) <= 1).all()
        examples = [side.read(index) for index in range(len(side))]
        assert [example.label for example in examples] == side.labels.tolist()
        keys += [example.key for example in examples]
    assert sorted(keys) == [f"digits/{place:04d}" for place in range(len(whole))]


def test_a_split_follows_its_seed():
    digits = Digits()
    assert digits.split(seed=3) == digits.split(seed=3)
    first, second = (digits.split(seed=seed)[1] for seed in (3, 4))
    assert not np.array_equal(pixels(first), pixels(second))


def test_a_side_can_be_split_again():
    train, _ = Digits().split(0.2)
    fit, dev = train.split(0.1, seed=3)
    assert str(dev) == "digits, test part of the train part"
    keys = [{side.read(index).key for index in range(len(side))} for side in (train, fit, dev)]
    assert keys[1] | keys[2] == keys[0] and not keys[1] & keys[2]
    assert set(np.bincount(dev.labels)) <= {14, 15}  # a tenth of every class
    assert parse(Digits, json.loads(json.dumps(to_json(dev))), "test") == dev


def test_a_wrong_fraction_is_a_settings_error():
    with pytest.raises(SettingsError, match="fraction"):
        Digits().split(1.5)


def test_pickle_and_json_keep_the_source():
    test = Digits().split(0.1)[1]
    pickled = pickle.loads(pickle.dumps(test))
    for copy in (pickled, parse(Digits, json.loads(json.dumps(to_json(test))), "test")):
        assert copy == test and str(copy) == "digits, test part"
        assert np.array_equal(pixels(copy), pixels(test))


def test_the_attribution_travels_with_the_data():
    text = (resources.files("vitlab.data") / "digits.LICENSE.txt").read_text()
    for needed in ("Alpaydin", "Kaynak", "https://creativecommons.org/licenses/by/4.0/", "Changes:"):
        assert needed in text
