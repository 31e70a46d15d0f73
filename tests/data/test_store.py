import os

import fsspec
import pytest

from tests.data.packed import contents, packed
from vitlab.data import store
from vitlab.data.index import INDEX, MANIFEST
from vitlab.data.open import open_data
from vitlab.data.shards import Shards
from vitlab.data.store import Local, Remote, is_address
from vitlab.errors import DataError, ImageError

MEMORY = fsspec.filesystem("memory")


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """A pack in memory as an object store has it, the same one on the disk, and a cache of our own."""
    monkeypatch.setenv("VITLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "BACKOFF_SECONDS", 0)
    _, local = packed(tmp_path)
    for name, data in contents(tmp_path / "packed").items():
        MEMORY.pipe(f"/bucket/photos/{name}", data)
    yield "memory://bucket/photos", local
    MEMORY.store.clear()


@pytest.fixture
def asked(monkeypatch):
    """What is asked of the store: file, first byte, bytes."""
    found = []
    real = type(MEMORY).cat_file

    def counted(self, path, start=None, end=None, **options):
        found.append((os.path.basename(path), start, end - start))
        return real(self, path, start, end, **options)

    monkeypatch.setattr(type(MEMORY), "cat_file", counted)
    return found


def test_a_remote_pack_is_read_like_a_local_one(remote):
    address, local = remote
    shards = Shards(address)
    assert str(shards) == address
    assert shards.classes == local.classes and shards.labels.tolist() == local.labels.tolist()
    assert [shards.read(index) for index in range(18)] == [local.read(index) for index in range(18)]
    opened = open_data(address, 0.5)
    assert opened.whole == shards and opened.evals["test"].read(3) == local.split(0.5)[1].read(3)


def test_only_the_bytes_of_an_example_are_fetched_and_the_index_once(remote, asked):
    address, local = remote
    shards = Shards(address)
    shards.read(7)
    offset, size, shard = map(int, local.listing.places[7])
    assert asked[1:] == [(INDEX, 0, 18 * 24), (f"shard-{shard:06d}.tar", offset, size)]
    asked.clear()
    assert Shards(address).read(7) == shards.read(7)
    assert INDEX not in [name for name, _, _ in asked]


def test_ready_splits_at_an_address(remote):
    for name in MEMORY.ls("/bucket/photos", detail=False):
        MEMORY.copy(name, name.replace("photos", "splits/train"))
        MEMORY.copy(name, name.replace("photos", "splits/val"))
    opened = open_data("memory://bucket/splits/")
    assert opened.train == Shards("memory://bucket/splits/", subset="train")
    assert opened.train.read(5) == opened.evals["val"].read(5) == remote[1].read(5)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda at: MEMORY.rm(f"{at}/{MANIFEST}"), ["is no pack"]),
        (lambda at: MEMORY.rm(f"{at}/{INDEX}"), [INDEX, "is missing"]),
        (lambda at: MEMORY.pipe(f"{at}/{INDEX}", b"short"), [INDEX, "is cut short: it has 5 bytes"]),
        (lambda at: MEMORY.pipe(f"{at}/{INDEX}", bytes(18 * 24)), [INDEX, "is not the index that shards.json names"]),
    ],
)
def test_an_index_that_is_not_right_is_not_kept(remote, tmp_path, spoil, words):
    spoil("/bucket/photos")
    with pytest.raises(DataError) as error:
        len(Shards(remote[0]))
    assert [word for word in words if word not in str(error.value)] == [], error.value
    assert not (tmp_path / "cache").exists() or contents(tmp_path / "cache") == {}


def test_a_cached_index_of_the_wrong_size_is_fetched_again(remote, tmp_path):
    Shards(remote[0]).read(0)
    (kept,) = (tmp_path / "cache/shards").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1])
    Shards(remote[0]).read(17)
    assert kept.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_said(remote, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VITLAB_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot be written \(Not a directory\); make room, or set VITLAB_CACHE"):
        len(Shards(remote[0]))


def test_a_failure_that_passes_is_no_failure_and_one_that_lasts_is_named(remote, monkeypatch):
    shards = Shards(remote[0])
    wanted = shards.read(4)
    real, failures = type(MEMORY).cat_file, []

    def flaky(self, *arguments, **options):
        failures.append(1)
        if len(failures) <= limit:
            raise TimeoutError("timed out")
        return real(self, *arguments, **options)

    monkeypatch.setattr(type(MEMORY), "cat_file", flaky)
    limit = store.RETRIES
    assert shards.read(4) == wanted
    limit = 10**9
    with pytest.raises(DataError, match=r"photos/shard-00000.\.tar: cannot be read \(timed out\)") as error:
        shards.read(4)
    assert not isinstance(error.value, ImageError)  # an outage makes no image a bad one, to be left out


@pytest.mark.parametrize("subset", [None, "train"])
def test_what_is_not_reached_is_not_said_to_be_no_pack(remote, monkeypatch, subset):
    def cut(self, *arguments, **options):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(type(MEMORY), "cat_file", cut)
    monkeypatch.setattr(type(MEMORY), "exists", lambda *_, **__: False)  # what fsspec says of it
    with pytest.raises(DataError, match=r"shards.json: cannot be read \(no route to host\); check the address"):
        len(Shards(remote[0], subset=subset))


def test_a_shard_that_is_gone_is_named(remote):
    shards = Shards(remote[0])
    MEMORY.rm("/bucket/photos/shard-000000.tar")
    with pytest.raises(ImageError, match=r"memory://bucket/photos/shard-000000.tar \(example 0\): is missing"):
        shards.read(0)


def test_a_server_that_sends_whole_files_is_refused(remote, monkeypatch):
    shards = Shards(remote[0])
    assert len(shards) == 18
    real = type(MEMORY).cat_file
    monkeypatch.setattr(type(MEMORY), "cat_file", lambda self, path, start, end: real(self, path))
    with pytest.raises(DataError, match="sends whole files"):
        shards.read(0)


def test_a_worker_process_connects_anew(remote):
    shards = Shards(remote[0])
    wanted, mine = shards.read(4), shards.listing._store._files
    child = os.fork()
    if child == 0:
        right = shards.read(4) == wanted and shards.listing._store._files is not mine
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert shards.read(4) == wanted and shards.listing._store._files is mine


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("s4://bucket/x", ["s4://bucket/x", "a kind that is not read", "s3"]),
        ("simplecache::https://x/y", ["simplecache::https://x/y"]),
        ("https::file://x/y", ["https::file://x/y"]),
        ("file:///etc", ["file:///etc", "a kind that is not read"]),
        ("hdfs://nowhere/x", ["hdfs://nowhere/x"]),
    ],
)
def test_addresses_that_are_not_followed(address, words):
    with pytest.raises(DataError) as error:
        open_data(address)
    assert [word for word in words if word not in str(error.value)] == [] and error.value.remedy


def test_paths_and_addresses_are_told_apart():
    assert is_address("s3://bucket/x") and is_address("memory://x")
    assert not is_address("C:/photos") and not is_address("photos://x"[6:]) and not is_address("a b://c")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused_and_does_not_block(tmp_path, make):
    make(tmp_path / "x")
    with pytest.raises(DataError, match=r"x: cannot be read"):
        Local(tmp_path).read("x", 0, 10)


def test_pieces_of_a_file(tmp_path):
    (tmp_path / "x").write_bytes(b"hello")
    for each in (Local(tmp_path), Remote("memory://pieces")):
        MEMORY.pipe("/pieces/x", b"hello")
        assert each.read("x", 1, 3) == b"ell" and each.read("x", 3, 9) == b"lo"
        assert each.has("x") and not each.has("y")
        with pytest.raises(FileNotFoundError):
            each.read("y", 0, 1)
    MEMORY.store.clear()
