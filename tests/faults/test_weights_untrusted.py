"""Files of weights that nobody should trust: they are refused in a line, and nothing of what they say is done."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults import claims
from tests.faults.hostile import HOSTILE, MARKER, a_payload_in_a_torch_file, whole
from tests.faults.hostile_torch import with_long_end
from vitlab.errors import WeightsError
from vitlab.weights.format import open_tensors

SUFFIXES = (".npz", ".safetensors", ".pth")
MUCH = 100 << 20


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """Return what came of opening a path in a process with little memory; see reader.py."""
    folder = tmp_path_factory.mktemp("warm")
    good = [folder / f"good{suffix}" for suffix in SUFFIXES]
    for path in good:
        whole(path)
    bad = folder / "bad.pth"
    a_payload_in_a_torch_file(bad, ".pth")
    damaged = folder / "damaged.pth"
    HOSTILE["a pickle that torch refuses end"][2](damaged)
    models = [folder / name / "model.safetensors" for name in claims.GOOD]
    for path, (shapes, config) in zip(models, claims.GOOD.values(), strict=True):
        path.parent.mkdir()
        claims.write(path, shapes, config=config)
    warm = [*map(str, (*good, bad, damaged)), *(f"load {path}" for path in models)]
    command = [sys.executable, str(Path(__file__).parent / "reader.py"), *warm]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:

        def read(path):
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield read
        process.stdin.close()


def check_harmless(result, folder):
    assert "crash" not in result, result["crash"]
    assert result["events"] == []
    assert result["memory"] < MUCH
    assert not (folder / MARKER).exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_a_line_and_does_nothing(reader, tmp_path, name):
    file, words, write = HOSTILE[name]
    write(tmp_path / file)
    result = reader(tmp_path / file)
    check_harmless(result, tmp_path)
    assert re.search(words, result["error"]), result["error"]
    assert "\n" not in result["error"] and result["error"].startswith(f"{tmp_path / file}: ")
    assert "In PyTorch" not in result["error"], "torch advises to load it without care"
    assert "memory" not in result["error"].lower(), "more memory was asked for than there is"
    assert result["space"] < MUCH


@pytest.mark.parametrize("name", claims.CLAIMS)
def test_a_small_file_that_claims_a_large_model_is_refused_soon_and_with_little_memory(reader, tmp_path, name):
    words, write = claims.CLAIMS[name]
    path = tmp_path / "model.safetensors"
    write(path)
    result = reader(f"load {path}")
    check_harmless(result, tmp_path)
    assert re.search(words, result["error"]), result["error"]
    assert "\n" not in result["error"] and len(result["error"]) < 4000


@pytest.mark.parametrize("name", claims.GOOD)
def test_the_same_files_without_the_claim_are_loaded(reader, tmp_path, name):
    shapes, config = claims.GOOD[name]
    claims.write(tmp_path / "model.safetensors", shapes, config=config)
    assert "width 16, depth 1" in reader(f"load {tmp_path / 'model.safetensors'}")["model"]


def test_the_payload_would_do_harm_elsewhere(tmp_path):
    """The marker is made by who unpickles without care: it can be missed above."""
    import torch

    HOSTILE["a payload in a torch file .pth"][2](tmp_path / "weights.pth")
    torch.load(tmp_path / "weights.pth", weights_only=False)
    assert (tmp_path / MARKER).exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_good_file_is_read_and_does_nothing_else(reader, tmp_path, suffix):
    """Values that are not finite are left to who knows what they are for."""
    whole(tmp_path / f"good{suffix}")
    (tmp_path / f"link{suffix}").symlink_to(f"good{suffix}")
    for name in ("good", "link"):
        result = reader(tmp_path / f"{name}{suffix}")
        check_harmless(result, tmp_path)
        assert result["shapes"] == {"weight": [2, 3], "bias": [3]}


@pytest.mark.parametrize("suffix", [".npz", ".pth"])
def test_a_file_with_the_end_of_a_large_zip_file_is_read(reader, tmp_path, suffix):
    path = tmp_path / f"long{suffix}"
    whole(path)
    if suffix == ".npz":  # torch writes it always
        path.write_bytes(with_long_end(path.read_bytes()))
    assert b"PK\6\6" in path.read_bytes()
    assert reader(path)["shapes"] == {"weight": [2, 3], "bias": [3]}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_rotted_anywhere_is_read_or_refused_and_nothing_worse(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    whole(path)
    content = path.read_bytes()

    @settings(max_examples=300)
    @given(st.integers(0, len(content) - 1), st.integers(0, 255), st.just(len(content)) | st.integers(0, len(content)))
    def check(place, value, cut):
        changed = bytearray(content)
        changed[place] = value
        path.write_bytes(bytes(changed[:cut]))
        try:
            with open_tensors(path) as file:
                assert all(tuple(file.read(name).shape) == shape for name, shape in file.shapes.items())
        except WeightsError as error:
            assert "\n" not in str(error)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_with_any_one_byte_changed_is_read_or_refused(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    whole(path)
    content = path.read_bytes()
    for place in range(len(content)):
        for flip in (1, 128, 255):
            path.write_bytes(content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :])
            try:
                with open_tensors(path) as file:
                    assert all(tuple(file.read(name).shape) == shape for name, shape in file.shapes.items())
            except WeightsError as error:
                assert "\n" not in str(error)
