import io
import json
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.lib import format as npy

from vitlab.errors import WeightsError
from vitlab.weights import format as weights_format
from vitlab.weights.format import format_of, open_tensors


@pytest.fixture
def write(tmp_path):
    def file(data, name="model.bin"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return file


def npz_bytes(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def torch_bytes(**options):
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(3)}, buffer, **options)
    return buffer.getvalue()


def opened(path, read=()):
    """Return the declared shapes, the text metadata and the arrays called `read`."""
    with open_tensors(path) as file:
        return file.shapes, file.metadata, {name: file.read(name) for name in read}


def with_header(header):
    return len(header).to_bytes(8, "little") + header


def test_a_file_is_told_by_its_content_not_its_name(write):
    assert format_of(write(npz_bytes(a=np.zeros(2)), "model.safetensors")) == "npz"
    assert format_of(write(safetensors.torch.save({"a": torch.zeros(2)}), "model.npz")) == "safetensors"
    assert format_of(write(torch_bytes(), "model.npz")) == "torch"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (pickle.dumps({"weight": [1.0]}), "is a pickle, which can run code"),
        (pickle.dumps({"weight": [1.0]}, protocol=2), "is a pickle, which can run code"),
        (torch_bytes(_use_new_zipfile_serialization=False), "is a pickle, which can run code"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git-lfs pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html>404</html>", "holds no weights"),
        (b"", "holds no weights"),
        (b"PK", "holds no weights"),
        (b"{}", "holds no weights"),
        (npz_bytes(a=np.zeros(99))[:-40], "is a damaged zip file"),
        (b"PK\x03\x04" + b"\0" * 60, "is a damaged zip file"),
        (with_header(b"{" + b" " * 60)[:8].replace(b"=", b"\xff\xff") + b"{", "holds no weights|header claims"),
        ((1 << 40).to_bytes(8, "little") + b'{"a":0}', "header claims 1,099,511,627,776 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_holds_no_weights_is_refused_with_what_it_is(write, data, what):
    path = write(data)
    with pytest.raises(WeightsError, match=what) as error:
        format_of(path)
    assert str(path) in str(error.value)


def test_a_zip_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "photos.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat.jpg", b"...")
    with pytest.raises(WeightsError, match="zip file without arrays"):
        format_of(path)


def test_what_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read"):
        format_of(tmp_path / "absent.npz")
    with pytest.raises(WeightsError, match="cannot be read"):
        format_of(tmp_path)


def test_shapes_are_read_without_the_arrays(write):
    path = write(npz_bytes(**{"a/b": np.zeros((2, 3)), "c": np.float32(1)}))
    assert opened(path)[0] == {"a/b": (2, 3), "c": ()}


def test_only_the_arrays_asked_for_are_read(write):
    arrays = opened(write(npz_bytes(a=np.arange(3), b=np.arange(4))), ["b"])[2]
    np.testing.assert_array_equal(arrays["b"].numpy(), np.arange(4))


def test_python_objects_are_refused_and_never_run(write, monkeypatch):
    monkeypatch.setattr(pickle, "load", lambda *_, **__: pytest.fail("a pickle was read"))
    path = write(npz_bytes(good=np.zeros(2), bad=np.array([{"a": 1}], dtype=object)))
    with pytest.raises(WeightsError, match="'bad' holds Python objects"):
        opened(path)


def lying(shape, order=False):
    """An .npy file of three numbers whose header claims `shape`."""
    buffer = io.BytesIO()
    npy.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": order, "shape": shape})
    return buffer.getvalue() + np.zeros(3, np.float32).tobytes()


@pytest.mark.parametrize("shape", [(4000,), (10**6, 10**6), (2**62, 16)])
def test_an_array_that_claims_more_than_it_holds_is_refused(tmp_path, shape):
    path = tmp_path / "lying.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bias.npy", lying(shape))
    with pytest.raises(WeightsError, match="'bias' claims more bytes than the file holds"):
        opened(path)


def test_an_array_that_is_no_array_is_refused(tmp_path):
    path = tmp_path / "broken.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bias.npy", b"not an array at all")
    with pytest.raises(WeightsError, match="is damaged"):
        opened(path)


@pytest.mark.parametrize(
    ("offset", "value"), [(6, 99), (8, 1), (8, 1 << 6), (10, 99)], ids=["version", "encrypted", "strongly", "method"]
)
def test_a_zip_file_that_python_cannot_unpack_is_refused(write, offset, value):
    """The fields are those of the central directory: version needed, flags, compression method."""
    data = bytearray(npz_bytes(a=np.zeros(9)))
    place = data.index(b"PK\x01\x02") + offset
    data[place : place + 2] = value.to_bytes(2, "little")
    path = write(bytes(data))
    with pytest.raises(WeightsError, match="damaged"):
        opened(path)


def test_a_flipped_bit_in_an_array_is_noticed(write):
    data = bytearray(npz_bytes(a=np.arange(1000.0)))
    data[3000] ^= 1
    with pytest.raises(WeightsError, match="is damaged"):
        opened(write(bytes(data)), ["a"])


def test_an_absurd_number_of_arrays_is_refused(write, monkeypatch):
    monkeypatch.setattr(weights_format, "MAX_TENSORS", 3)
    tensors = {str(index): np.zeros(1, np.float32) for index in range(4)}
    with pytest.raises(WeightsError, match="holds 4 arrays, more than 3"):
        opened(write(npz_bytes(**tensors)))
    path = write(safetensors.torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}))
    with pytest.raises(WeightsError, match="holds 4 tensors, more than 3"):
        opened(path)


def test_text_metadata_is_returned(write):
    path = write(safetensors.torch.save({"a": torch.zeros(2)}, {"origin": "here"}))
    assert opened(path)[1] == {"origin": "here"}


@pytest.mark.parametrize(
    "data",
    [
        with_header(b'{"a": nonsense}'),
        with_header(json.dumps({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}).encode()),
        with_header(json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}).encode()) + b"\0" * 4,
        safetensors.torch.save({"a": torch.zeros(9)})[:-1],
        (1000).to_bytes(8, "little") + b"{",
    ],
)
def test_a_damaged_safetensors_file_is_refused(write, data):
    path = write(data)
    assert format_of(path) == "safetensors"
    with pytest.raises(WeightsError, match="is a damaged safetensors file"):
        opened(path)
