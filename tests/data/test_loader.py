import io

import numpy as np
import pytest
import torch
from PIL import Image

from vitlab.data import loader
from vitlab.data.check import find_bad_images
from vitlab.data.loader import EvalBatches, TrainBatches, bad_images_error, load, pixels_of
from vitlab.data.order import examples_at
from vitlab.data.preprocess import ImageSpec
from vitlab.data.source import Example
from vitlab.data.transforms import Augment, NoCrop
from vitlab.errors import ImageError

SPEC = ImageSpec(height=8, width=8)
PLAIN = Augment(crop=NoCrop(), flip=False)


def train_batches(source, batch_size=3, augment=PLAIN, seed=0, labels=None):
    return TrainBatches(source, source.labels if labels is None else labels, SPEC, augment, batch_size, seed)


def same(first, second):
    return (
        torch.equal(first.images, second.images)
        and torch.equal(first.labels, second.labels)
        and torch.equal(first.valid, second.valid)
        and first.keys == second.keys
    )


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_training_batches(make_source, workers):
    batches = train_batches(make_source(7), augment=Augment())
    alone = list(load(batches, range(2, 9), 0))
    together = list(load(batches, range(2, 9), workers))
    assert len(alone) == len(together) == 7
    assert all(same(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_evaluation_batches(make_source, workers):
    batches = EvalBatches(make_source(7), SPEC, 3)
    alone, together = (list(load(batches, range(len(batches)), count)) for count in (0, workers))
    assert all(same(a, b) for a, b in zip(alone, together, strict=True))


def test_a_training_batch_depends_on_its_step_and_the_seed_alone(make_source):
    batches = train_batches(make_source(7), augment=Augment())
    in_order = list(load(batches, range(6)))
    resumed = list(load(train_batches(make_source(7), augment=Augment()), range(4, 6)))
    assert same(in_order[4], resumed[0])
    assert same(in_order[5], resumed[1])
    other = train_batches(make_source(7), augment=Augment(), seed=1)[0]
    assert not same(in_order[0], other)


def test_training_shows_every_example_once_an_epoch_and_drops_none(make_source):
    """Seven examples in batches of three: batches go on over the end of an epoch."""
    source = make_source(7)
    keys = [key for batch in load(train_batches(source), range(7)) for key in batch.keys]
    epochs = [keys[start : start + 7] for start in (0, 7, 14)]
    assert all(sorted(epoch) == [f"image-{index}" for index in range(7)] for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_the_size_of_the_batch_does_not_change_what_is_shown(make_source):
    source = make_source(7)
    small, large = (train_batches(source, size, Augment()) for size in (2, 6))
    pieces = list(load(small, range(3)))
    assert torch.equal(torch.cat([piece.images for piece in pieces]), large[0].images)
    assert torch.equal(torch.cat([piece.labels for piece in pieces]), large[0].labels)


def test_images_labels_and_keys_belong_together(make_source):
    source = make_source(7)
    batch = train_batches(source, 5)[3]
    chosen = examples_at(np.arange(15, 20, dtype=np.int64), 7, 0)
    assert batch.images.shape == (5, 3, 8, 8)
    assert batch.images.dtype == torch.uint8
    assert bool(batch.valid.all())
    for row, index in enumerate(chosen):
        np.testing.assert_array_equal(batch.images[row].permute(1, 2, 0).numpy(), source.images[index])
        assert (int(batch.labels[row]), batch.keys[row]) == (int(source.labels[index]), f"image-{index}")


def test_the_labels_given_to_training_are_those_of_the_model(make_source):
    source = make_source(6)
    mapped = np.array([5, 3, 4], np.int64)[source.labels]
    batch = train_batches(source, 6, labels=mapped)[0]
    expected = [int(mapped[int(key.removeprefix("image-"))]) for key in batch.keys]
    assert batch.labels.tolist() == expected


def test_an_example_is_augmented_anew_in_every_epoch(make_source):
    source = make_source(1, side=32)
    batches = train_batches(source, 1, Augment())
    assert len({batches[step].images.numpy().tobytes() for step in range(10)}) > 5


def test_the_last_evaluation_batch_is_padded_and_says_so(make_source):
    source = make_source(7)
    batches = EvalBatches(source, SPEC, 3)
    assert len(batches) == 3
    loaded = list(load(batches, range(3)))
    assert [batch.images.shape[0] for batch in loaded] == [3, 3, 3]
    assert [batch.valid.tolist() for batch in loaded] == [[True] * 3, [True] * 3, [True, False, False]]
    assert loaded[2].keys == ("image-6",)
    assert not loaded[2].images[1:].any()
    assert torch.cat([batch.labels[batch.valid] for batch in loaded]).tolist() == source.labels.tolist()


@pytest.mark.parametrize(("count", "batches"), [(1, 1), (3, 1), (4, 2), (6, 2)])
def test_evaluation_shows_every_example_exactly_once_in_order(make_source, count, batches):
    loaded = list(load(EvalBatches(make_source(count), SPEC, 3), range(batches)))
    assert [key for batch in loaded for key in batch.keys] == [f"image-{index}" for index in range(count)]
    assert sum(int(batch.valid.sum()) for batch in loaded) == count


def test_evaluation_images_are_prepared_as_the_spec_says(make_source):
    source = make_source(2, side=20)
    batch = EvalBatches(source, SPEC, 2)[0]
    np.testing.assert_array_equal(batch.images[1].permute(1, 2, 0).numpy(), SPEC.prepare(source.images[1]))


def test_an_image_is_the_same_from_a_file_and_from_pixels(make_source):
    source = make_source(3)
    files = make_source(images=[png(image) for image in source.images], labels=source.labels.tolist())
    assert same(EvalBatches(files, SPEC, 3)[0], EvalBatches(source, SPEC, 3)[0])
    np.testing.assert_array_equal(pixels_of(Example(png(source.images[0]), 0, "a")), source.images[0])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", ["train", "eval"])
def test_an_image_that_cannot_be_decoded_is_named(make_source, kind, workers):
    source = make_source(4)
    source.images[2] = b"not an image"
    batches = train_batches(source) if kind == "train" else EvalBatches(source, SPEC, 2)
    with pytest.raises(ImageError, match="image-2") as error:
        list(load(batches, range(2), workers))
    assert error.value.where == "image-2"


def test_every_bad_image_is_found_with_its_reason(make_source):
    source = make_source(5)
    source.images[1], source.images[3] = b"", png(source.images[3])[:40]
    bad = find_bad_images(source)
    assert list(bad) == [1, 3]
    error = bad_images_error(source, bad[1])
    assert "2 of 5 images" in str(error)
    assert "image-1: is empty" in str(error)
    assert "image-3" in str(error)


def test_loading_leaves_the_global_generators_alone(make_source):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    for workers in (0, 1):
        list(load(train_batches(make_source(4), augment=Augment()), range(2), workers))
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)


def test_in_a_large_source_one_bad_image_is_named_at_once(make_source, monkeypatch):
    """Looking through all of it could take hours."""
    source, first = make_source(5), ImageError("image-3", "is empty", "remove it")
    monkeypatch.setattr(loader, "LOOKED_THROUGH", 4)
    monkeypatch.setattr(loader, "find_bad_images", lambda *_: pytest.fail("looked through"))
    error = bad_images_error(source, first)
    assert str(error) == "image-3: is empty; remove it; vitlab data check names all such images"
    assert error.exit_code == 2


def test_an_image_that_failed_only_once_is_named_all_the_same(make_source):
    error = bad_images_error(make_source(5), ImageError("image-3", "cannot be read", "restore it"))
    assert "1 of 5 images" in str(error) and "image-3: cannot be read" in str(error)
