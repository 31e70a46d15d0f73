"""MATLAB files: read as another library wrote them, and refused when damaged."""

import base64
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
    found = read_mat(tmp_path / "a.mat")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array), name


def test_a_file_of_scipys_is_read_and_what_is_not_numbers_left_out(tmp_path):
    (tmp_path / "a.mat").write_bytes(zlib.decompress(base64.b64decode(SCIPY)))
    found = read_mat(tmp_path / "a.mat")
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
        read_mat(path)
    except DataError as error:
        assert str(path) in str(error)


def test_a_bomb_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(matlab, "MAX_BYTES", 100_000)
    standins.mat(tmp_path / "a.mat", X=np.zeros((1000, 1000), np.uint8))
    assert (tmp_path / "a.mat").stat().st_size < 100_000
    with pytest.raises(DataError, match="unpacks to too much"):
        read_mat(tmp_path / "a.mat")
    standins.mat(tmp_path / "a.mat", compressed=False, X=np.zeros((1000, 1000), np.uint8))
    with pytest.raises(DataError, match="has more than 100,000 bytes"):
        read_mat(tmp_path / "a.mat")


@pytest.mark.parametrize("data", [b"", b"MATLAB 7.3".ljust(600), bytes(200)])
def test_what_is_no_matlab_5_file_is_refused(tmp_path, data):
    (tmp_path / "a.mat").write_bytes(data)
    with pytest.raises(DataError, match="no MATLAB 5 file"):
        read_mat(tmp_path / "a.mat")
    with pytest.raises(DataError, match="is not there"):
        read_mat(tmp_path / "b.mat")
