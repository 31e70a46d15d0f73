"""Downloading a data set: whole, verified and unpacked, or not there at all; from a server on this computer."""

import hashlib
import io
import os
import tarfile

import pytest

from tests.data import standins
from tests.server import serve
from vitlab import download
from vitlab.data import obtain as module
from vitlab.data.archive import RATIO
from vitlab.data.catalog import Catalogued, File, entries
from vitlab.data.obtain import obtain
from vitlab.errors import DataError, DownloadError, VitlabError


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.0)
    for variable in ("VITLAB_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def server():
    with serve() as site:
        yield site


def packed(folder):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for child in sorted(folder.iterdir()):
            tar.add(child, child.name)
    return file.getvalue()


@pytest.fixture
def offered(server, tmp_path, monkeypatch):
    """CIFAR-10 in small, on the server; the function changes what is published of it."""
    standins.cifar10(tmp_path / "made")
    data = packed(tmp_path / "made")

    def offer(content=data, **changes):
        url = server.put("/cifar-10-binary.tar.gz", content)
        known = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} | changes
        file = File(url=url, unpack="tar", **known)
        small = entries()["cifar10"].model_copy(update={"files": (file,), "examples": {"train": 20, "test": 3}})
        monkeypatch.setitem(entries(), "cifar10", small)
        return data

    offer()
    return offer


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_data_set_is_downloaded_verified_unpacked_and_read(offered, server, tmp_path):
    root = tmp_path / "data"
    assert obtain("cifar10", root) == root / "cifar10"
    assert names(root) == ["cifar10"]
    assert len(Catalogued("cifar10", path=root, subset="train")) == 20
    obtain("cifar10", root)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sha256": "0" * 64}, "came damaged"),
        ({"bytes": 10}, "more than 10 bytes"),
        ({"bytes": 10_000_000}, "bytes, not 10,000,000 as published"),
    ],
)
def test_what_is_not_as_published_leaves_nothing(offered, tmp_path, changes, words):
    offered(**changes)
    with pytest.raises(DownloadError, match=words):
        obtain("cifar10", tmp_path / "data")
    assert names(tmp_path / "data") == [".cifar10.part"]
    assert not any(path.is_file() and path.stat().st_size for path in (tmp_path / "data").rglob("*"))


def test_a_download_that_was_cut_is_continued(offered, server, tmp_path):
    server.pages["/cifar-10-binary.tar.gz"].cuts = [1000] + [0] * 20
    with pytest.raises(DownloadError, match="cut after 1,000"):
        obtain("cifar10", tmp_path / "data")
    assert not (tmp_path / "data/cifar10").exists()
    server.pages["/cifar-10-binary.tar.gz"].cuts.clear()
    obtain("cifar10", tmp_path / "data")
    assert server.requests[-1][1]["Range"] == "bytes=1000-"
    assert names(tmp_path / "data") == ["cifar10"]


def test_unpacking_that_was_interrupted_begins_again_without_another_download(offered, server, tmp_path, monkeypatch):
    def interrupted(archive, folder, *rest):
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "unpack", interrupted)
        with pytest.raises(KeyboardInterrupt):
            obtain("cifar10", tmp_path / "data")
    assert not (tmp_path / "data/cifar10").exists()
    obtain("cifar10", tmp_path / "data")
    assert len(server.requests) == 1
    assert names(tmp_path / "data/cifar10") == ["cifar-10-batches-bin"]


def test_an_archive_that_is_no_archive_is_fetched_anew(offered, server, tmp_path):
    offered(b"nonsense" * 100, bytes=None, sha256=None)
    with pytest.raises(DataError, match=r"cifar-10-binary.tar.gz: is damaged"):
        obtain("cifar10", tmp_path / "data")
    offered(bytes=None, sha256=None)
    obtain("cifar10", tmp_path / "data")
    assert len(server.requests) == 2


def test_files_that_are_no_archives_and_archives_in_archives_find_their_place(server, tmp_path, monkeypatch):
    made = tmp_path / "made"
    standins.class_folders(made / "in/101_ObjectCategories", ["a", "b"], each=31)
    (made / "out").mkdir()
    (made / "out/inner.tar.gz").write_bytes(packed(made / "in"))
    files = (
        File(url=server.put("/outer.tar", packed(made / "out")), unpack="tar", inner=("inner.tar.gz",)),
        File(url=server.put("/notes.txt", b"hello") + "?download=1"),
    )
    server.put("/notes.txt?download=1", b"hello")
    small = {"files": files, "classes": 2, "examples": {"train": 60, "test": 2}}
    monkeypatch.setitem(entries(), "caltech101", entries()["caltech101"].model_copy(update=small))
    place = obtain("caltech101", tmp_path / "data")
    assert names(place) == ["101_ObjectCategories", "notes.txt"]
    assert len(Catalogued("caltech101", path=tmp_path / "data", subset="test")) == 2


def test_what_needs_a_licence_says_what_to_do_and_downloads_nothing(tmp_path):
    with pytest.raises(DataError) as error:
        obtain("imagenet", tmp_path)
    assert str(error.value).startswith(
        "imagenet: is not for download; accept its terms at https://image-net.org/download"
    )
    assert str(error.value).endswith(f"put or link it at {tmp_path / 'imagenet'}")
    assert list(tmp_path.iterdir()) == []


def test_offline_nothing_is_asked_and_the_files_may_come_by_hand(offered, server, tmp_path, monkeypatch):
    monkeypatch.setenv("VITLAB_OFFLINE", "1")
    with pytest.raises(DownloadError, match="VITLAB_OFFLINE is set") as error:
        obtain("cifar10", tmp_path / "data")
    place = tmp_path / "data/.cifar10.part/files/cifar-10-binary.tar.gz"
    assert str(error.value).endswith(f"fetch it elsewhere and put it at {place}")
    data = server.pages["/cifar-10-binary.tar.gz"].data
    for wrong, words in ((data[:-1], "bytes, not"), (data[:-1] + b"x", "another sha256 than was published")):
        place.write_bytes(wrong)
        with pytest.raises(DataError, match=f"{place}: has .*{words}"):
            obtain("cifar10", tmp_path / "data")
    place.write_bytes(data)
    obtain("cifar10", tmp_path / "data")
    assert server.requests == [] and names(tmp_path / "data") == ["cifar10"]


def test_a_disk_without_room_is_told_before_anything_is_asked(offered, server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "free_bytes", lambda folder: 1000)
    with pytest.raises(DataError, match=r"cifar10: needs .* GiB, and .* has 0.0 GiB left; make room"):
        obtain("cifar10", tmp_path / "data")
    assert server.requests == []


def test_a_disk_that_fills_is_one_clear_error(offered, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(module, "unpack", full)
    with pytest.raises(VitlabError, match=r"cannot be written \(No space left on device\); make room") as error:
        obtain("cifar10", tmp_path / "data")
    assert error.value.exit_code == 1 and not (tmp_path / "data/cifar10").exists()


def test_every_published_archive_fits_the_limit_of_what_it_may_unpack_to():
    for name, each in entries().items():
        for file in each.files:
            if file.unpack:
                assert file.bytes or file.most_bytes, name
            assert file.url.startswith("https://") or file.sha256, name
    assert RATIO * 131_896_188 > 24_300 * 2 * 96 * 96  # the most compressed of them: SmallNORB
