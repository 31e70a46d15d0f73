import io

import numpy as np
import pytest
from PIL import Image

from vitlab.data.image import decode
from vitlab.serve.examples import choose


def picture(seed, size=(8, 8)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def file(seed, size, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(picture(seed, size)).save(buffer, kind)
    return buffer.getvalue()


def test_examples_are_of_every_class_in_turn(make_source):
    found = choose(make_source(count=9), count=5)
    assert [sample.label for sample in found] == ["ant", "bee", "cat", "ant", "bee"]
    assert len({sample.data for sample in found}) == 5


def test_of_many_classes_some_far_apart_are_chosen(make_source):
    classes = tuple(f"class {number:03d}" for number in range(100))
    found = choose(make_source(count=100, classes=classes, labels=list(range(100))), count=4)
    assert [sample.label for sample in found] == ["class 000", "class 033", "class 066", "class 099"]


def test_a_small_image_is_kept_exactly_and_a_large_one_is_shrunk(make_source):
    small, large = choose(make_source(images=[picture(0), file(1, (900, 600))], count=2, classes=("ant", "bee")))
    assert small.kind == "image/png" and large.kind == "image/jpeg"
    np.testing.assert_array_equal(decode(small.data, "small"), picture(0))
    assert decode(large.data, "large").shape == (512, 341, 3)


def test_what_cannot_be_read_is_passed_over(make_source):
    found = choose(make_source(images=[b"no image", picture(0), b""], count=3))
    assert [sample.label for sample in found] == ["bee"]


@pytest.mark.parametrize("images", [None, [b"no image", b""]])
def test_where_there_is_nothing_to_show_digits_and_fractals_are(make_source, images):
    found = choose(None if images is None else make_source(images=images, count=2), count=6)
    assert [sample.label for sample in found[:3]] == ["0", "4", "9"]
    assert all(sample.label.startswith("fractal-") for sample in found[3:]) and len(found) == 6
    assert all(decode(sample.data, "example").size for sample in found)


def test_several_labels_are_all_named_and_none_is_no_name(make_source):
    source = make_source(count=2)
    source.labels = np.array([[0, 2], [-1, -1]])
    assert sorted(sample.label for sample in choose(source)) == ["", "ant, cat"]
