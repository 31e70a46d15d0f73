import importlib.util
import json
import os
import pickle
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.hub_server import serve
from tests.data.test_table import png, write
from vitlab.config import parse, to_json
from vitlab.data.hub import Hub, parse_address
from vitlab.data.open import open_data
from vitlab.data.source import Part
from vitlab.errors import DataError, SettingsError

STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})


@pytest.mark.parametrize(
    ("address", "data"),
    [
        ("hf://datasets/uoft-cs/cifar10", Hub("uoft-cs/cifar10")),
        ("hf://datasets/a/b@v1.0", Hub("a/b", revision="v1.0")),
        ("hf://datasets/a/b/plain_text", Hub("a/b", config="plain_text")),
        ("hf://datasets/a/b@main/all", Hub("a/b", revision="main", config="all")),
    ],
)
def test_an_address_and_its_settings(address, data):
    assert parse_address(address) == data and data.address == address == str(data)
    assert parse(Hub, to_json(data), "x") == data
    part = data.model_copy(update={"subset": "train", "part": Part(side="test", fraction=0.25)})
    assert str(part) == f"{address} train (test 25%)" and pickle.loads(pickle.dumps(part)) == part


@pytest.mark.parametrize(
    "address", ["hf://owner/name", "hf://datasets/name", "hf://datasets/../x", "hf://datasets/a/b/c/d"]
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(DataError, match=r"write hf://datasets/OWNER/NAME"):
        open_data(address)
    with pytest.raises(SettingsError):
        parse(Hub, {"name": "../../etc"}, "x")


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"hf://datasets/no/package: needs .*pip install 'vitlab\[hub\]'"):
        open_data("hf://datasets/no/package")


SCRIPT = """
import json, sys
from vitlab.data.image import decode
from vitlab.data.hub import Hub
from vitlab.data.open import open_data
from vitlab.errors import VitlabError

def look(source, **fields):
    data = source if not isinstance(source, str) else Hub(source, **fields)
    pixels = [int(decode(data.read(i).data, "x")[0, 0, 0]) for i in range(len(data))]
    return {"classes": data.classes, "labels": data.labels.tolist(), "pixels": pixels, "key": data.read(1).key}

for line in json.loads(sys.argv[1]):
    try:
        if "name" in line:
            print(json.dumps(look(line.pop("name"), **line)))
        else:
            opened = open_data(line["open"])
            print(json.dumps({name: look(each) for name, each in {"train": opened.train, **opened.evals}.items()}))
    except VitlabError as error:
        print(json.dumps(str(error)))
"""


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """What a process that has `datasets` finds on a hub on this machine; every question has one line of JSON as its answer."""
    if importlib.util.find_spec("datasets") is None:
        pytest.skip("the extra [hub] is not installed")
    root, cache = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("cache")
    write(root / "me/pets/data/train-00000-of-00001.parquet", [0, 1] * 5, names=["dog", "cat"])
    write(root / "me/pets/data/validation-00000-of-00001.parquet", [0, 1], names=["dog", "cat"])
    columns = pa.table({"a": [{"bytes": png(1), "path": "a"}] * 2, "b": [{"bytes": png(2), "path": "b"}] * 2})
    features = {"a": {"_type": "Image"}, "b": {"_type": "Image"}}
    features |= {name: {"names": ["x", "y"], "_type": "ClassLabel"} for name in ("fine", "coarse")}
    columns = columns.append_column("fine", [[0, 1]]).append_column("coarse", [[1, 0]])
    write_table(root / "me/columns/train.parquet", columns, features)
    evil = pa.array([{"bytes": None, "path": "/etc/hostname"}] * 2, STRUCT)
    write(root / "me/evil/train.parquet", [0, 1], names=["a", "b"], images=evil)
    for name, file in (("script", "script.py"), ("pickle", "train.pkl"), ("pandas", "data/train.pkl")):
        path = root / "me" / name / file
        path.parent.mkdir(parents=True)
        path.write_bytes(b"import os\nopen(os.environ['MARK'], 'w')\n")
    server = serve(root)
    environment = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(cache),
        "MARK": str(cache / "ran"),
    }

    def asked(*questions: dict, **more: str) -> list:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, json.dumps(questions)],
            env={**os.environ, **environment, **more},
            cwd=cache,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert not (cache / "ran").exists()
        return [json.loads(line) for line in done.stdout.splitlines()]

    yield asked
    server.shutdown()
    server.server_close()


def write_table(path, table, features):
    path.parent.mkdir(parents=True)
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def test_a_data_set_of_the_hub(ask):
    (found,) = ask({"open": "hf://datasets/me/pets"})
    assert found["train"] == {
        "classes": ["dog", "cat"],
        "labels": [0, 1] * 5,
        "pixels": list(range(10)),
        "key": "me/pets/train:1",
    }
    assert list(found) == ["train", "val"] and found["val"]["labels"] == [0, 1]
    # once it is here it needs no network
    again, other = ask({"open": "hf://datasets/me/pets"}, {"open": "hf://datasets/me/other"}, VITLAB_OFFLINE="1")
    assert again == found
    assert "hf://datasets/me/other: is not on this computer, and VITLAB_OFFLINE is set" in other


def test_columns_are_told_by_their_features(ask):
    chosen, image, label, wrong = ask(
        {"name": "me/columns", "image_column": "b", "label_column": "coarse"},
        {"name": "me/columns", "label_column": "fine"},
        {"name": "me/columns", "image_column": "a"},
        {"name": "me/columns", "image_column": "fine"},
    )
    assert chosen["pixels"] == [2, 2] and chosen["labels"] == [1, 0] and chosen["classes"] == ["x", "y"]
    assert "has 2 columns of type Image; choose image_column from a, b" in image
    assert "has 2 columns of type ClassLabel; choose label_column from fine, coarse" in label
    assert "has no column 'fine' of type Image" in wrong


def test_what_cannot_be_had_is_one_line_and_nothing_of_it_runs(ask):
    names = ("me/nothing", "me/script", "me/pickle", "me/pandas", "me/pets/large")
    *refused, split, evil = ask(
        *({"open": f"hf://datasets/{name}"} for name in names),
        {"name": "me/pets", "subset": "tran"},
        {"name": "me/evil"},
    )
    expected = (
        "is not on the hub",
        "scripts are no longer supported",
        "cannot be had",
        "cannot be had",
        "'large' not found",
    )
    for name, message, line in zip(names, expected, refused, strict=True):
        assert line.startswith(f"hf://datasets/{name}: ") and message in line and "\n" not in line
    assert "has no split 'tran'; did you mean 'train'?" in split
    assert "me/evil/train:0: names a file outside of the cache of the hub" in evil


def test_a_hub_that_is_not_reached_is_one_line(ask):
    for more in ({"HF_HUB_OFFLINE": "1"}, {"HF_DATASETS_OFFLINE": "1"}):
        (line,) = ask({"open": "hf://datasets/me/columns-2"}, **more)
        assert f"is not on this computer, and {next(iter(more))} is set" in line
