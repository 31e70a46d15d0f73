import errno
import hashlib
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.injection import WHEN, Fault, litter
from vitlab import files

OLD, NEW = b"old" * 100, b"new" * 200


def test_a_whole_write_leaves_the_new_bytes_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    files.write_atomic(path, OLD)
    files.write_atomic(path, NEW)
    assert path.read_bytes() == NEW and list(tmp_path.iterdir()) == [path]


def test_the_name_appears_after_the_bytes_and_the_folder_is_flushed_last(tmp_path, monkeypatch):
    fault = Fault(monkeypatch)
    files.write_atomic(tmp_path / "a.json", NEW)
    assert fault.names == ["write_bytes", "rename", "flush_folder"]


@pytest.mark.parametrize("old", [None, OLD])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_failed_write_leaves_the_old_or_the_new_bytes(tmp_path, monkeypatch, at, when, code, old):
    path = tmp_path / "a.json"
    if old is not None:
        path.write_bytes(old)
    with monkeypatch.context() as patch:
        Fault(patch, at, when, code)
        with pytest.raises(OSError, match=os.strerror(code)):
            files.write_atomic(path, NEW)
    assert (path.read_bytes() if path.exists() else None) in (old, NEW)
    files.write_atomic(path, NEW)
    assert path.read_bytes() == NEW and litter(tmp_path) == []


def test_bytes_are_on_the_disk_when_a_write_returns(tmp_path, monkeypatch):
    flushed = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (flushed.append(os.fstat(handle).st_size), real(handle)))
    files.write_bytes(tmp_path / "a", NEW)
    assert flushed == [len(NEW)]


def test_an_existing_folder_is_not_made_again(tmp_path):
    with pytest.raises(FileExistsError):
        files.make_folder(tmp_path)


def test_removing_takes_a_file_a_folder_a_link_and_nothing(tmp_path):
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "file").touch()
    for name in ("folder", "link", "file", "nothing"):
        files.remove(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"] and (tmp_path / "kept" / "file").exists()


@settings(deadline=None, max_examples=25)
@given(st.binary(max_size=5000), st.integers(0, 500))
def test_the_digest_is_that_of_the_whole_file(data, repeats):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(data * repeats)
        assert files.sha256(path) == hashlib.sha256(data * repeats).hexdigest()
