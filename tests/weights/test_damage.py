"""Files that were cut off or changed anywhere, most often where lengths, names, shapes and settings are."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitlab.errors import WeightsError
from vitlab.weights.load import load
from vitlab.weights.save import save

MARKS = b'0129-{}[]",:()'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("damage")


def read_damaged(folder, content, data, places):
    """Change up to three bytes at `places` or anywhere, perhaps cut the file, and read it: it is refused in a line, or whole."""
    content = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places) | st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255) | st.sampled_from(MARKS))
    cut = data.draw(st.just(len(content)) | st.integers(0, len(content)))
    (folder / "damaged").write_bytes(bytes(content[:cut]))
    try:
        load(folder / "damaged")
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
