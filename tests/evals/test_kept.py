import logging
import os
import shutil

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

from vitlab.data.digits import Digits
from vitlab.data.folder import Folder
from vitlab.data.pack import pack
from vitlab.data.shards import Shards
from vitlab.data.source import Subset
from vitlab.errors import BadImagesError, DataError
from vitlab.evals import kept
from vitlab.evals.features import extract
from vitlab.evals.kept import kept_features


@pytest.fixture
def keep(tmp_path):
    """Return the features of a source, and how many images the model had to see for them."""

    def run(model, source, **options):
        seen = 0
        compute = type(model).features

        def counted(images):
            nonlocal seen
            seen += len(images)
            return compute(model, images)

        model.features = counted
        try:
            values = kept_features(model, source, options.pop("batch_size", 1), folder=tmp_path / "kept", **options)
        finally:
            del model.features
        return values, seen

    return run


def test_features_are_computed_once_and_are_those_of_the_model(keep, make_model, make_source):
    model, source = make_model(), make_source(7)
    first, computed = keep(model, source)
    again, none = keep(model, source)
    assert (computed, none) == (7, 0)
    np.testing.assert_array_equal(first, extract(model, source, 1))
    np.testing.assert_array_equal(again, first)
    assert first.dtype == np.float32


def test_another_model_or_preparation_or_image_is_never_taken_for_this_one(keep, make_model, make_source):
    model, source = make_model(), make_source(4)
    keep(model, source)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-3
    assert keep(model, source)[1] == 4
    model.image_spec = model.image_spec.model_copy(update={"mean": (0.4, 0.5, 0.5)})
    assert keep(model, source)[1] == 4
    assert keep(make_model(norm_eps=1e-5), source)[1] == 4
    source.images[3] = source.images[3] ^ 1
    assert keep(model, source)[1] == 4
    assert keep(model, source)[1] == 0


def test_labels_names_and_heads_do_not_matter_but_the_order_does(keep, make_model, make_source):
    model, source = make_model(), make_source(6)
    values, _ = keep(model, source)
    relabelled = make_source(images=source.images, labels=[0] * 6, classes=("x", "y"))
    assert keep(model, relabelled)[1] == 0
    turned, computed = keep(model, Subset(source, [5, 4, 3, 2, 1, 0]))
    assert computed == 6
    np.testing.assert_array_equal(turned, values[::-1])


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def test_files_are_known_by_their_content_wherever_they_are(keep, make_model, photos, tmp_path):
    model = make_model()
    first, computed = keep(model, Folder(photos))
    assert computed == 6
    shutil.copytree(photos, tmp_path / "moved")
    again, none = keep(model, Folder(tmp_path / "moved"))
    assert none == 0
    np.testing.assert_array_equal(first, again)


def test_a_file_of_the_same_size_and_time_but_other_content_is_another(keep, make_model, photos):
    model, path = make_model(), photos / "a" / "0.png"
    path.with_suffix(".bmp").write_bytes(b"")  # ignored below: made an image first
    Image.open(path).save(path.with_suffix(".bmp"))
    path.unlink()
    path = path.with_suffix(".bmp")
    first, _ = keep(model, Folder(photos))
    status, data = path.stat(), bytearray(path.read_bytes())
    data[-100] ^= 255
    path.write_bytes(data)

    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    changed, computed = keep(model, Folder(photos))
    assert computed == 6 and path.stat().st_size == status.st_size
    assert not np.array_equal(first, changed)


def test_digits_and_a_remote_pack_are_known_without_being_read(keep, make_model, photos, tmp_path, monkeypatch):
    pack(str(photos), tmp_path / "packed")
    bucket = fsspec.filesystem("memory")
    bucket.put(str(tmp_path / "packed"), "/kept/photos", recursive=True)
    model, source = make_model(), Shards("memory://kept/photos")
    first, _ = keep(model, source)
    np.testing.assert_array_equal(first, extract(model, source, 1))
    some = Subset(Digits(), np.arange(5, 9))
    digits, _ = keep(model, some)
    np.testing.assert_array_equal(digits, extract(model, some, 1))
    monkeypatch.setattr(kept, "scan", None)  # neither is read to be found again
    assert keep(model, source)[1] == keep(model, some)[1] == 0
    assert keep(model, Subset(Digits(), np.arange(6, 10)))[1] == 4
    bucket.rm("/kept", recursive=True)


def test_a_pack_that_was_damaged_and_repaired_is_not_taken_for_what_it_was(keep, make_model, photos, tmp_path):
    path = photos / "a" / "0.png"
    Image.open(path).save(path.with_suffix(".bmp"))
    path.unlink()
    pack(str(photos), tmp_path / "packed")
    model, (shard,) = make_model(), (tmp_path / "packed").glob("shard-*.tar")
    first, computed = keep(model, Shards(tmp_path / "packed"))
    whole = shard.read_bytes()
    pixels = path.with_suffix(".bmp").read_bytes()
    place = whole.index(pixels) + len(pixels) - 100
    shard.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
    damaged, again = keep(model, Shards(tmp_path / "packed"))
    assert (computed, again) == (6, 6) and not np.array_equal(first, damaged)
    shard.write_bytes(whole)
    repaired, none = keep(model, Shards(tmp_path / "packed"))
    assert none == 0
    np.testing.assert_array_equal(repaired, first)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other", "rows"])
def test_a_damaged_file_is_computed_again_with_a_note(keep, make_model, make_source, tmp_path, caplog, damage):
    model, source = make_model(), make_source(5)
    values, _ = keep(model, source)
    (path,) = (tmp_path / "kept").iterdir()
    data = bytearray(path.read_bytes())
    if damage == "rows":
        keep(model, make_source(4))
        (other,) = set((tmp_path / "kept").iterdir()) - {path}
        data = other.read_bytes()
    elif damage == "flip":
        data[-3] ^= 1
    path.write_bytes({"cut": data[:-8], "empty": b"", "other": b"not this"}.get(damage, bytes(data)))
    with caplog.at_level(logging.WARNING, "vitlab"):
        again, computed = keep(model, source)
    assert computed == 5
    assert str(path) in caplog.text and "computed again" in caplog.text
    np.testing.assert_array_equal(again, values)
    assert keep(model, source)[1] == 0


def test_what_cannot_be_kept_is_done_without(make_model, make_source, tmp_path, caplog):
    (tmp_path / "kept").write_bytes(b"a file")
    model, source = make_model(), make_source(3)
    with caplog.at_level(logging.WARNING, "vitlab"):
        values = kept_features(model, source, folder=tmp_path / "kept")
    np.testing.assert_array_equal(values, extract(model, source))
    assert "features are not kept" in caplog.text


def test_only_the_pieces_that_changed_are_computed(keep, make_model, make_source, monkeypatch):
    monkeypatch.setattr(kept, "PIECE", 4)
    model, source = make_model(), make_source(14)
    keep(model, source)
    source.images[5] = source.images[5] ^ 1
    source.images[13] = source.images[13] ^ 1
    values, computed = keep(model, source, batch_size=1)
    assert computed == 4 + 2
    np.testing.assert_array_equal(values, extract(model, source, 1))


@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_interruption_keeps_the_pieces_that_were_done(keep, make_model, make_source, monkeypatch, batch_size):
    monkeypatch.setattr(kept, "PIECE", 4)
    model, source = make_model(), make_source(11)

    def stop(done, total):
        assert total == 11
        if done >= 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep(model, source, batch_size=batch_size, seen=stop)
    told = []
    values, computed = keep(model, source, batch_size=batch_size, seen=lambda *done: told.append(done))
    assert computed == 3 and told[-1] == (11, 11)
    np.testing.assert_allclose(values, extract(model, source, 1), rtol=1e-5, atol=1e-6)


def test_an_image_that_changes_while_it_is_read_is_named_and_nothing_kept(make_model, make_source, tmp_path):
    source = make_source(3)
    read, times = source.read, []

    def changing(index):
        times.append(index)
        if times.count(2) > 1:
            source.images[2] = source.images[2] ^ 1
        return read(index)

    source.read = changing
    with pytest.raises(DataError, match="image-2: changed while memory was read"):
        kept_features(make_model(), source, folder=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_features_that_are_not_finite_are_refused_by_the_name_of_the_image(make_model, make_source, tmp_path):
    model, source = make_model(), make_source(5)
    compute = model.features

    def overflow(images):
        values = compute(images)
        values[3, 1] = float("nan")
        return values

    model.features = overflow
    with pytest.raises(DataError, match="image-3: has features that are not finite"):
        kept_features(model, source, folder=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_images_that_cannot_be_decoded_are_named_before_anything_is_kept(make_model, make_source, tmp_path, workers):
    source = make_source(6)
    source.images[2] = source.images[5] = b"no image"
    with pytest.raises(BadImagesError) as error:
        kept_features(make_model(), source, workers=workers, folder=tmp_path / "kept")
    assert [image.where for image in error.value.images] == ["image-2", "image-5"]
    assert not (tmp_path / "kept").exists()
