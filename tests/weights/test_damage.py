"""Files that were cut off or changed anywhere, most often where lengths, names, shapes and settings are."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.weights.test_torchvision import Reference
from vitlab.errors import WeightsError
from vitlab.weights.convert import convert
from vitlab.weights.load import load
from vitlab.weights.save import save

MARKS = b'0129-{}[]",:()'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("damage")


def read_damaged(folder, content, data, places, damaged="damaged", weights="damaged"):
    """Change up to three bytes at `places` or anywhere, perhaps cut the file, and read it: it is refused in a line, or whole.

    `damaged` is the name of the file, `weights` of the one that is read.
    """
    content = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places) | st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255) | st.sampled_from(MARKS))
    cut = data.draw(st.just(len(content)) | st.integers(0, len(content)))
    (folder / damaged).write_bytes(bytes(content[:cut]))
    try:
        load(folder / weights)
    except WeightsError as error:
        assert "\n" not in str(error)


def test_a_damaged_safetensors_file_is_refused_and_nothing_worse(folder, make_model):
    save(make_model(depth=1, classes=("a", "b", "c")), folder / "whole")
    content = (folder / "whole").read_bytes()
    header = range(int.from_bytes(content[:8], "little") + 8)
    given(st.data())(lambda data: read_damaged(folder, content, data, header))()


def test_a_damaged_released_file_is_refused_and_nothing_worse(folder, make_npz):
    content = make_npz(depth=1).read_bytes()
    starts = [match.start() for match in re.finditer(rb"NUMPY|PK", content)]
    headers = [place for start in starts for place in range(start, min(start + 80, len(content)))]
    given(st.data())(lambda data: read_damaged(folder, content, data, headers))()


@pytest.mark.parametrize(
    ("to", "name"),
    [
        ("timm", "model.safetensors"),
        ("timm", "config.json"),
        ("huggingface", "model.safetensors"),
        ("huggingface", "config.json"),
        ("huggingface", "preprocessor_config.json"),
    ],
)
def test_a_damaged_file_in_a_folder_of_another_library_is_refused_and_nothing_worse(tmp_path, make_model, to, name):
    folder = convert(make_model(depth=1, classes=("a", "b", "c")), tmp_path / "out", to)
    content = (folder / name).read_bytes()
    lengths = int.from_bytes(content[:8], "little") + 8 if name == "model.safetensors" else len(content)
    weights = "model.safetensors"
    given(st.data())(lambda data: read_damaged(folder, content, data, range(lengths), name, weights))()


def test_a_damaged_file_of_torchvision_is_refused_and_nothing_worse(folder):
    torch.save(Reference(None).state_dict(), folder / "whole.pth")
    content = (folder / "whole.pth").read_bytes()
    pickled = range(content.index(b"data.pkl"), content.index(b"class_token") + 1000)
    ends = range(content.index(b"PK\1\2"), len(content))
    given(st.data())(lambda data: read_damaged(folder, content, data, [*pickled, *ends]))()
