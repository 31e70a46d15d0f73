"""One way to read weights, whatever holds them: a tensor at a time, as float32."""

import collections
import shlex
import sys

import numpy as np
import pytest
import safetensors.torch
import torch

from vitlab.errors import SettingsError, WeightsError
from vitlab.weights import format as weights_format
from vitlab.weights.format import open_tensors

SUFFIXES = (".npz", ".safetensors", ".pth")
KINDS = {"f8": torch.float64, "f4": torch.float32, "f2": torch.float16, "bf": torch.bfloat16}
each_format = pytest.mark.parametrize("suffix", SUFFIXES)


def as_numpy(tensor):
    """Return a tensor as the array that released files hold it in: bfloat16 as two bytes of anything."""
    return tensor.view(torch.int16).numpy().view("V2") if tensor.dtype == torch.bfloat16 else tensor.numpy()


@pytest.fixture
def write(tmp_path):
    def file(suffix, tensors):
        path = tmp_path / f"weights{suffix}"
        if suffix == ".npz":
            np.savez(path, **{name: as_numpy(tensor) for name, tensor in tensors.items()})
        elif suffix == ".safetensors":
            safetensors.torch.save_file(tensors, path)
        else:
            torch.save(tensors, path)
        return path

    return file


def read_all(path):
    with open_tensors(path) as file:
        return {name: file.read(name) for name in file.shapes}


def refusal(path):
    with pytest.raises(WeightsError) as error:
        read_all(path)
    assert "\n" not in str(error.value) and str(error.value).startswith(f"{path}: ")
    return str(error.value)


@each_format
@pytest.mark.parametrize("dtype", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4), (0, 3)], ids=str)
def test_real_numbers_come_as_float32_exactly(write, suffix, dtype, shape):
    tensor = torch.randn(shape).to(dtype)
    path = write(suffix, {"block/weight": tensor})
    with open_tensors(path) as file:
        assert file.shapes == {"block/weight": shape}
        found = file.read("block/weight")
    assert found.dtype == torch.float32 and found.is_contiguous()
    assert torch.equal(found, tensor.float())


@each_format
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool], ids=str)
def test_integers_come_as_they_are(write, suffix, dtype):
    tensor = torch.tensor([0, 1, 1]).to(dtype)
    found = read_all(write(suffix, {"count": tensor}))["count"]
    assert found.dtype == dtype and torch.equal(found, tensor)


@each_format
def test_a_tensor_is_memory_of_its_own_and_outlives_the_file(write, suffix):
    path = write(suffix, {"a": torch.arange(3.0), "b": torch.arange(4.0)})
    with open_tensors(path) as file:
        first, again = file.read("a"), file.read("a")
    path.unlink()
    first += 1
    assert first.tolist() == [1, 2, 3] and again.tolist() == [0, 1, 2]
    assert first.untyped_storage().nbytes() == 12 and not first.requires_grad


@each_format
def test_what_goes_wrong_in_the_hands_of_the_caller_is_not_said_of_the_file(write, suffix):
    path = write(suffix, {"a": torch.ones(3)})
    for error in (ValueError("mine"), SettingsError("here", "is wrong"), KeyError("x")):
        with pytest.raises(type(error)) as raised, open_tensors(path):
            raise error
        assert raised.value is error
    with pytest.raises(KeyError, match="absent"), open_tensors(path) as file:
        file.read("absent")


def test_arrays_of_another_order_are_read_as_they_are_meant(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.savez_compressed(tmp_path / "a.npz", fortran=np.asfortranarray(array), big=array.astype(">f4"))
    for tensor in read_all(tmp_path / "a.npz").values():
        assert tensor.is_contiguous() and torch.equal(tensor, torch.from_numpy(array))


def test_text_beside_the_tensors(tmp_path, write):
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "a", {"origin": "here"})
    for path, metadata in [(tmp_path / "a", {"origin": "here"}), (write(".npz", {"a": torch.ones(1)}), {})]:
        with open_tensors(path) as file:
            assert file.metadata == metadata


@pytest.mark.parametrize("key", [None, "state_dict", "model", "model_state"])
def test_a_torch_file_may_hold_its_tensors_under_a_key_beside_other_things(write, key):
    linear = torch.nn.Linear(3, 2)
    tensors = collections.OrderedDict(linear.state_dict())
    rest = {"epoch": 3, "args": {"lr": 0.1, "dtype": torch.float32, "device": torch.device("cpu")}, 7: torch.ones(1)}
    optimizer = torch.optim.AdamW(linear.parameters()).state_dict()
    found = read_all(write(".pth", tensors | rest if key is None else {key: tensors, "optimizer": optimizer, **rest}))
    assert list(found) == ["weight", "bias"]
    assert all(torch.equal(found[name], tensors[name]) for name in found)


def test_views_and_parameters_of_a_torch_file(write):
    matrix = torch.arange(6.0).reshape(2, 3)
    views = {"all": matrix, "turned": matrix.T, "row": matrix[1], "parameter": torch.nn.Parameter(matrix)}
    found = read_all(write(".bin", views))
    assert all(torch.equal(found[name], view) and found[name].is_contiguous() for name, view in views.items())
    assert found["row"].untyped_storage().nbytes() == 12 and not found["parameter"].requires_grad


def test_a_torch_file_under_another_name(write, tmp_path):
    path = write(".pth", {"a": torch.ones(1)})
    assert list(read_all(path.rename(tmp_path / "weights.npz"))) == ["a"]
    renamed = (tmp_path / "weights.npz").rename(tmp_path / "weights.safetensors")
    assert "rename it to .pth" in refusal(renamed)


def test_torch_files_are_read_only_by_a_torch_that_is_safe(write, monkeypatch):
    monkeypatch.setattr(weights_format, "SAFE_TORCH", "2.100")
    assert "cannot be read safely by torch" in refusal(write(".pth", {"a": torch.ones(1)}))
    assert read_all(write(".npz", {"a": torch.ones(1)}))


def save_old(path):
    torch.save({"model": torch.nn.Linear(3, 2).state_dict()}, path, _use_new_zipfile_serialization=False)


def save_module(path):
    torch.save(torch.nn.Linear(3, 2), path)


@pytest.mark.parametrize("save", [save_old, save_module])
def test_the_command_that_is_given_converts(tmp_path, monkeypatch, save):
    path = tmp_path / "it's mine.pth"
    save(path)
    python, option, code, name = shlex.split(refusal(path).split("came from: ")[1])
    assert (python, option, name) == ("python", "-c", path.name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["-c", name])
    exec(code, {})
    assert {name: list(tensor.shape) for name, tensor in read_all(tmp_path / f"{name}.safetensors").items()} == {
        "weight": [2, 3],
        "bias": [2],
    }
    with pytest.raises(FileExistsError):  # it is over no file, not even its own
        exec(code, {})


@pytest.mark.parametrize(
    "tensor", [torch.ones(1).expand(9), torch.ones(2, 2).to_sparse(), torch.ones(2, dtype=torch.complex64)]
)
def test_tensors_of_other_kinds_are_refused(write, tensor):
    words = refusal(write(".pth", {"a": tensor}))
    assert "claims more bytes" in words or "no file of plain tensors" in words


def test_names_cannot_break_the_line(write):
    assert "'a\\nb' holds no real numbers" in refusal(write(".npz", {"a\nb": torch.ones(2, dtype=torch.complex64)}))
