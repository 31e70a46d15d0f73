"""MATLAB files: read as another library wrote them, and refused when damaged."""

import base64
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data import standins
from vitlab.data.layouts import matlab
from vitlab.data.layouts.matlab import read_mat
from vitlab.errors import DataError

SCIPY = """
eNrzdQzxcXRSMNUzUPB1DNFNy8xJVQjISSxJyy/KtVIoyC/OrNBRcC5KTSxJTVHIz7NSCE4sUfDLL1MwMlQwNLUyNbUyNlEwMjAyYyADMHr68gMpfSCumP
M4OSFhA0OSmcIzhiQ/No6E1k+SjTMkvZqvPFFRW/pMxNjAgNFVcuYMSQbLbqYvIG3acG0GUG15YG0zG2YI9syUNArukoxomDDXsV2QQXEh4wuQFh24Fg6w
loZLCge4nho7GioLhDFk+imEJTQ08n/jiTjIXs2Qcoe5FaTHDU0PxHWsSXIKaUxJaQppjV3GTJGaK1eyKhRyTmDg72Zo51DWX62wXENYfrbAdAlj+90G2y
0YipOZE1FdAPOrGMSvC3PcFvh4Zrl2MkyZP3HW5Mn8Sxhdn7HEg/R4wfXcYDiS43CG8UgPj8CBriPpTJd1eE6utLSscdjGPqnKTufVzIlnHjImcbKxNHQa
O2ZOqGNW+RyxYcbxjiX+DCdWMVxieLCERRxkYiDCREaIiT5AE4EhoZQ4YdajSYsuPRGaYMMdoas8wS/FI+kB8ybdCWceHk7m4/ig0GnscFVa4WX6wUXzJT
33MkwID5p3noHhagDbbgCY0LNb
"""
"""What scipy.io.savemat(do_compression=True) 1.17.1 wrote: labels = [[1, 2, 3]] uint8, ids = [[7], [300]] uint16, x = eye(2),
deep = arange(24) uint8 in shape (2, 3, 4), text = "hello", cell and struct beside them."""


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_come_back_as_they_were_written(tmp_path, compressed):
    arrays = {
        "X": standins.pixels(0, 3, 4, 2, 5),
        "y": np.array([[1.0], [10.0]]),
        "tiny": np.array([[3]], np.uint8),
        "empty": np.zeros((0, 1), np.uint16),
    }
    standins.mat(tmp_path / "a.mat", compressed, **arrays)
    found = read_mat(tmp_path / "a.mat", arrays)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array), name


def test_a_file_of_scipys_is_read_and_what_is_not_numbers_left_out(tmp_path):
    (tmp_path / "a.mat").write_bytes(zlib.decompress(base64.b64decode(SCIPY)))
    found = read_mat(tmp_path / "a.mat", {"labels", "ids", "x", "deep", "text", "cell", "struct"})
    assert found.keys() == {"labels", "ids", "x", "deep"}
    assert found["labels"].tolist() == [[1, 2, 3]] and found["ids"].tolist() == [[7], [300]]
    assert np.array_equal(found["x"], np.eye(2)) and found["x"].dtype == np.float64
    assert np.array_equal(found["deep"], np.arange(24).reshape(2, 3, 4)) and found["deep"].dtype == np.uint8


@given(st.integers(0, 10_000), st.integers(0, 255), st.integers(0, 10_000), st.booleans())
def test_a_damaged_file_is_refused_or_read_but_never_a_traceback(tmp_path_factory, place, byte, cut, compressed):
    path = tmp_path_factory.mktemp("mat") / "a.mat"
    standins.mat(path, compressed, X=standins.pixels(0, 3, 4), y=np.array([[1.0], [10.0]]))
    data = bytearray(path.read_bytes())
    data[place % len(data)] = byte
    path.write_bytes(data[: 128 + cut])
    try:
        read_mat(path, "Xy")
    except DataError as error:
        assert str(path) in str(error)


def test_a_bomb_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(matlab, "MAX_BYTES", 100_000)
    standins.mat(tmp_path / "a.mat", X=np.zeros((1000, 1000), np.uint8))
    assert (tmp_path / "a.mat").stat().st_size < 100_000
    with pytest.raises(DataError, match="unpacks to too much"):
        read_mat(tmp_path / "a.mat", "X")
    standins.mat(tmp_path / "a.mat", compressed=False, X=np.zeros((1000, 1000), np.uint8))
    with pytest.raises(DataError, match="has more than 100,000 bytes"):
        read_mat(tmp_path / "a.mat", "X")


def test_all_arrays_of_a_file_share_one_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(matlab, "_SMALL", 100_000)
    arrays = {f"a{number}": np.zeros((30, 1000), np.uint8) for number in range(4)}
    standins.mat(tmp_path / "a.mat", **arrays)
    with pytest.raises(DataError, match="unpacks to too much"):
        read_mat(tmp_path / "a.mat", "X")


def test_an_array_that_is_made_wider_has_a_bound_and_is_left_alone_where_it_is_not_wanted(tmp_path, monkeypatch):
    monkeypatch.setattr(matlab, "_SMALL", 100_000)
    name, array = b"x", np.zeros(50_000, np.uint8)  # a double, stored as bytes, as MATLAB does
    tag = struct.pack
    body = tag("<IIII", 6, 8, 6, 0) + tag("<IIii", 5, 8, 1, len(array)) + tag("<II8s", 1, 1, name)
    body += tag("<II", 2, len(array)) + array.tobytes()
    packed = zlib.compress(tag("<II", 14, len(body)) + body)
    (tmp_path / "a.mat").write_bytes(b"MATLAB".ljust(124) + b"\x00\x01IM" + tag("<II", 15, len(packed)) + packed)
    assert read_mat(tmp_path / "a.mat", {"other"}) == {}
    with pytest.raises(DataError, match="it unpacks to too much"):
        read_mat(tmp_path / "a.mat", {"x"})
    monkeypatch.setattr(matlab, "_SMALL", 500_000)
    assert read_mat(tmp_path / "a.mat", {"x"})["x"].shape == (1, 50_000)


@pytest.mark.parametrize("data", [b"", b"MATLAB 7.3".ljust(600), bytes(200)])
def test_what_is_no_matlab_5_file_is_refused(tmp_path, data):
    (tmp_path / "a.mat").write_bytes(data)
    with pytest.raises(DataError, match="no MATLAB 5 file"):
        read_mat(tmp_path / "a.mat", "X")
    with pytest.raises(DataError, match="is not there"):
        read_mat(tmp_path / "b.mat", "X")
