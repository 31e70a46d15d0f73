"""Data sets whose pixels are in arrays, each read from a tiny one in the original's layout."""

import importlib
import struct

import numpy as np
import pytest

from tests.data import standins
from vitlab.data.catalog import entry
from vitlab.data.layouts.arrays import Camelyon, DSprites, SmallNorb
from vitlab.errors import DataError


def opened(name, root, split="train", **changes):
    found = entry(name)
    return found.layout.model_copy(update=changes).open(root, split, changes.pop("names", found.names))


def test_cifar10_is_read_across_its_five_files(tmp_path):
    images, labels = standins.cifar10(tmp_path)
    train = opened("cifar10", tmp_path)
    assert train.labels.tolist() == labels.tolist() and train.classes[:2] == ("class 0", "class 1")
    for index in (0, 3, 4, 19):
        assert np.array_equal(train.fetch(index), images[index])
    assert list(train.names[:2]) == ["0", "1"] and len(train.names) == 20
    assert len(opened("cifar10", tmp_path, "test").labels) == 3


def test_cifar100_has_its_fine_labels(tmp_path):
    labels = standins.cifar100(tmp_path)
    train = opened("cifar100", tmp_path)
    assert train.labels.tolist() == labels.tolist()
    assert train.classes == tuple(f"fine {number}" for number in range(100))
    assert np.array_equal(train.fetch(7), standins.pixels(0, 1, 3, 32, 32)[0].transpose(1, 2, 0))


def test_a_cifar_file_that_is_cut_short_is_named(tmp_path):
    standins.cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-bin/data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_3.bin: has 12,291 bytes, not a multiple of 3,073"):
        opened("cifar10", tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"data_batch_3.bin: is not there"):
        opened("cifar10", tmp_path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"data_batch_3.bin: is empty"):
        opened("cifar10", tmp_path)


def test_a_label_beyond_the_classes_is_refused(tmp_path):
    standins.cifar10(tmp_path)
    standins.write(tmp_path / "cifar-10-batches-bin/batches.meta.txt", "one\ntwo\n")
    with pytest.raises(DataError, match="holds the class 9, of 2"):
        opened("cifar10", tmp_path)


def test_svhn_counts_the_digit_0_as_0(tmp_path):
    images, digits = standins.svhn(tmp_path)
    train = opened("svhn", tmp_path)
    assert train.labels.tolist() == digits.tolist() and digits.tolist()[8:11] == [9, 0, 1]
    assert train.classes == tuple("0123456789")
    for index in (0, 11):
        assert np.array_equal(train.fetch(index), images[index]) and train.fetch(index).flags.c_contiguous


def test_svhn_with_other_arrays_is_refused(tmp_path):
    standins.mat(tmp_path / "train_32x32.mat", X=standins.pixels(0, 32, 32, 3), y=np.ones((3, 1)))
    with pytest.raises(DataError, match=r"train_32x32.mat"):
        opened("svhn", tmp_path)
    standins.mat(tmp_path / "train_32x32.mat", y=np.ones((3, 1)))
    with pytest.raises(DataError, match="does not hold X"):
        opened("svhn", tmp_path)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("category", [0, 1, 2, 3, 4, 0]),
        ("elevation", [0, 1, 2, 3, 4, 5]),
        ("azimuth", [0, 1, 2, 3, 4, 5]),
        ("lighting", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_smallnorb_shows_the_first_camera_in_grey(tmp_path, label, expected):
    standins.smallnorb(tmp_path)
    names = tuple(map(str, range(18)))
    examples = SmallNorb(files=entry("smallnorb").layout.files, label=label).open(tmp_path, "train", names)
    assert examples.labels.tolist()[:6] == expected
    image = examples.fetch(5)
    assert image.shape == (96, 96, 3) and np.array_equal(image[..., 1], standins.pixels(20, 20, 2, 96, 96)[5, 0])


def test_smallnorb_azimuths_are_18_steps_of_20_degrees(tmp_path):
    standins.smallnorb(tmp_path)
    found = entry("vtab/snorb-azim")
    assert found.layout.open(tmp_path, "train", found.names).labels.tolist() == [*range(18), 0, 1]
    assert found.names[0] == "0°" and found.names[-1] == "340°" and entry("vtab/snorb-elev").names[-1] == "70°"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"\0" + data[1:],
        lambda data: data[:4] + struct.pack("<I", 99) + data[8:],
        lambda data: data[:8] + struct.pack("<i", -20) + data[12:],
        lambda data: data[:8] + struct.pack("<i", 2**31 - 1) + data[12:],
        lambda data: data[:7],
        lambda data: data[:22],
    ],
)
def test_a_damaged_matrix_of_smallnorb_is_refused(tmp_path, damage):
    standins.smallnorb(tmp_path)
    path = tmp_path / "smallnorb-5x46789x9x18x6x2x96x96-training-dat.mat"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"training-dat.mat: is no SmallNORB matrix, or not a whole one"):
        opened("smallnorb", tmp_path)


@pytest.mark.parametrize(("label", "column", "count"), [("orientation", 3, 40), ("x_position", 4, 32)])
def test_dsprites_are_grouped_into_16_bins_of_equal_size(tmp_path, label, column, count):
    images, latents = standins.dsprites(tmp_path / "d")
    found = DSprites(label=label, bins=16).open(tmp_path / "d", "train", ())
    expected = np.floor(latents[:, column].astype(np.float32) / np.float32(count / 16)).astype(int)  # as VTAB has it
    assert found.labels.tolist() == expected.tolist() and set(expected) == set(range(16))
    assert len(found.classes) == 16
    assert np.array_equal(found.fetch(9)[..., 2], images[9] * 255)


def test_the_pickled_member_of_dsprites_is_never_read(tmp_path, monkeypatch):
    standins.dsprites(tmp_path / "d")
    read = []
    load = np.load
    monkeypatch.setattr(
        np, "load", lambda path, **how: read.append((path.name, how["allow_pickle"])) or load(path, **how)
    )
    opened("dsprites", tmp_path / "d")
    assert sorted(read) == [("imgs.npy", False), ("latents_classes.npy", False)]


def test_dsprites_of_another_shape_are_refused(tmp_path):
    standins.dsprites(tmp_path / "d")
    np.save(tmp_path / "d/imgs.npy", np.zeros((3, 64, 64), np.uint8))
    with pytest.raises(DataError, match=r"holds imgs \[3, 64, 64\], latents \[1280, 6\]"):
        opened("dsprites", tmp_path / "d")
    (tmp_path / "d/imgs.npy").write_bytes(b"not numpy")
    with pytest.raises(DataError, match=r"imgs.npy: cannot be read"):
        opened("dsprites", tmp_path / "d")


@pytest.mark.parametrize("kind", ["empty", "zip", "cut zip"])
def test_dsprites_that_are_no_array_are_refused(tmp_path, kind):
    standins.dsprites(tmp_path / "d")
    path = tmp_path / "d/imgs.npy"
    np.savez(tmp_path / "x.npz", a=np.zeros(9))
    content = (tmp_path / "x.npz").read_bytes()
    path.write_bytes({"empty": b"", "zip": content, "cut zip": content[:50]}[kind])
    with pytest.raises(DataError, match=r"imgs.npy: cannot be read"):
        opened("dsprites", tmp_path / "d")


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        (b"(1280,", b"((((1,"),
        (b"'|u1'", b"',:1'"),
        (b"1280, 64, 64", b"9" * 12),
        (b"(1280, 64, 64), ", b"(" + b"9" * 12 + b",),"),
    ],
)
def test_dsprites_with_a_header_that_makes_no_sense_are_refused(tmp_path, text, changed):
    standins.dsprites(tmp_path / "d")
    path = tmp_path / "d/imgs.npy"
    data = path.read_bytes()
    assert text in data and len(text) == len(changed)
    path.write_bytes(data.replace(text, changed))
    with pytest.raises(DataError, match=r"^\S+imgs.npy: cannot be read \(.{,220}$"):
        opened("dsprites", tmp_path / "d")


@pytest.mark.parametrize("kind", ["S8", "f8", "M8[s]"])
def test_dsprites_whose_classes_are_no_integers_are_refused(tmp_path, kind):
    _, latents = standins.dsprites(tmp_path / "d")
    np.save(tmp_path / "d/latents_classes.npy", latents.astype(kind))
    with pytest.raises(DataError, match=r"latents_classes.npy: holds .*, not integers"):
        opened("dsprites", tmp_path / "d")


def test_dmlab_is_read_from_its_record_files(tmp_path):
    standins.dmlab(tmp_path / "d")
    train = opened("dmlab", tmp_path / "d")
    assert list(train.names) == [f"train{n}.jpg" for n in (0, 2, 4, 6, 1, 3, 5, 7)]
    assert train.labels.tolist() == [0, 2, 4, 0, 1, 3, 5, 1]
    assert train.fetch(5) == standins.jpeg(3)
    assert len(opened("dmlab", tmp_path / "d", "val").labels) == 4


def test_dmlab_cut_short_or_missing_is_named(tmp_path):
    standins.dmlab(tmp_path / "d")
    path = tmp_path / "d/dmlab-train.tfrecord-00001"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"dmlab-train.tfrecord-00001: is damaged .it ends inside a record"):
        opened("dmlab", tmp_path / "d")
    for path in (tmp_path / "d").glob("dmlab-test*"):
        path.unlink()
    with pytest.raises(DataError, match=r"dmlab-test.* is not there"):
        opened("dmlab", tmp_path / "d", "test")


def camelyon(root, count=5):
    h5py = pytest.importorskip("h5py")
    images, labels = standins.pixels(0, count, 96, 96, 3), np.arange(count).astype(np.uint8) % 2
    for kind, array in (("x", images), ("y", labels.reshape(-1, 1, 1, 1))):
        with h5py.File(root / f"camelyonpatch_level_2_split_valid_{kind}.h5", "w") as file:
            file[kind] = array
    return images, labels


def test_patch_camelyon_is_read_from_hdf5(tmp_path):
    images, labels = camelyon(tmp_path)
    val = opened("camelyon", tmp_path, "val")
    assert val.labels.tolist() == labels.tolist() and val.classes == ("no tumour", "tumour")
    assert list(val.names) == [f"valid_{number}" for number in range(5)]
    assert np.array_equal(val.fetch(3), images[3])
    with pytest.raises(DataError, match=r"split_train_x.h5: is not there"):
        opened("camelyon", tmp_path, "train")


def test_a_group_where_patch_camelyon_has_an_array_is_refused(tmp_path):
    camelyon(tmp_path)
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "camelyonpatch_level_2_split_valid_x.h5", "w") as file:
        file.create_group("x")
    with pytest.raises(DataError, match=r"valid_x.h5: holds no array 'x'"):
        opened("camelyon", tmp_path, "val")


@pytest.mark.parametrize("kind", ["external", "link", "virtual"])
def test_pixels_in_other_files_are_never_read(tmp_path, kind):
    camelyon(tmp_path)
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "camelyonpatch_level_2_split_valid_x.h5"
    other, shape = path.rename(tmp_path / "other.h5"), (5, 96, 96, 3)
    with h5py.File(path, "w") as file:
        if kind == "external":
            file.create_dataset("x", shape, np.uint8, external=[(str(other), 0, 5 * 96 * 96 * 3)])
        elif kind == "link":
            file["x"] = h5py.ExternalLink(str(other), "x")
        else:
            layout = h5py.VirtualLayout(shape, np.uint8)
            layout[:] = h5py.VirtualSource(str(other), "x", shape)
            file.create_virtual_dataset("x", layout)
    with pytest.raises(DataError, match=r"valid_x.h5: holds no array 'x' .*(link|other files)"):
        opened("camelyon", tmp_path, "val")


@pytest.mark.parametrize("chunks", [1000, 2 * 10**9])
def test_an_array_that_claims_more_than_its_file_is_refused(tmp_path, chunks):
    camelyon(tmp_path)
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "camelyonpatch_level_2_split_valid_y.h5", "w") as file:
        file.create_dataset("y", (2 * 10**9, 1, 1, 1), np.uint8, chunks=(chunks, 1, 1, 1))
    with pytest.raises(DataError, match=r"valid_y.h5: holds (no array|y .*2000000000, 1, 1, 1)"):
        opened("camelyon", tmp_path, "val")


@pytest.mark.parametrize(
    "labels", [np.array([b"a"] * 5), np.array([0.5, np.nan, 1, 0, 0]), np.zeros((5, 2), np.uint8), 3]
)
def test_labels_of_patch_camelyon_that_are_no_numbers_one_each_are_refused(tmp_path, labels):
    camelyon(tmp_path)
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "camelyonpatch_level_2_split_valid_y.h5", "w") as file:
        file["y"] = labels
    with pytest.raises(DataError, match=r"valid_y.h5: holds (y|no array 'y')"):
        opened("camelyon", tmp_path, "val")


def test_without_h5py_patch_camelyon_says_what_to_install(tmp_path, monkeypatch):
    def no_module(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", no_module)
    with pytest.raises(DataError, match=r"needs h5py to be read; run `pip install 'vitlab\[hdf5\]'`"):
        Camelyon(files={"train": "a"}).open(tmp_path, "train", ("no", "yes"))
