"""The paper's data sets from the command line: listed, downloaded, trained on; and what is said when that cannot be."""

import hashlib
import json

import pytest

from tests.data import standins
from tests.data.test_obtain import packed
from tests.end_to_end.conftest import TINY
from tests.server import serve
from vitlab.data.catalog import File, entries


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("VITLAB_DATA", str(tmp_path / "sets"))
    return tmp_path / "sets"


def test_the_data_sets_are_listed_for_people_and_programs(within, root):
    (root / "pets").mkdir(parents=True)
    listed = within("data", "list")
    lines = {line.split()[0]: line for line in listed.out.splitlines() if line.strip()}
    assert listed.code == 0 and len(entries()) == 40
    assert all(name in lines for name in entries())
    assert "train800val200 1,000, test 15,000" in lines["vtab/clevr-count"] and "17.7 GiB" in lines["vtab/clevr-count"]
    assert lines["pets"].rstrip().endswith("yes") and lines["cifar10"].rstrip().endswith("no")
    assert "by hand" in lines["imagenet"]
    rows = {row["name"]: row for row in json.loads(within("data", "list", "--json").out)}
    assert rows.keys() == entries().keys() and rows["pets"]["here"] == str(root / "pets")
    assert rows["cifar10"]["images"]["train"] == 50_000 and rows["cifar10"]["files"][0]["bytes"] == 170_052_171


@pytest.mark.parametrize("name", ["vtab", "vtab/"])
def test_the_tasks_of_vtab_are_listed_by_its_name(within, name):
    listed = within("data", "list", name)
    tasks = {each for each in entries() if each.startswith("vtab/")}
    assert listed.code == 0 and {line.split()[0] for line in listed.out.splitlines()[1:] if "vtab/" in line} == tasks
    assert {row["name"] for row in json.loads(within("data", "list", name, "--json").out)} == tasks


def test_one_data_set_is_told_about_in_full(within, root):
    told = within("data", "list", "sun397").out
    assert "size and checksum not published" in told and "f404130965a7…" in told and "wds_sun397" not in told
    told = within("data", "list", "imagenet").out
    assert "accept its terms at https://image-net.org/download" in told and str(root / "imagenet") in told
    assert "not VTAB's" in within("data", "list", "vtab/caltech101").out
    one = json.loads(within("data", "list", "vtab/dspr-loc", "--json", "--data-dir", "/mnt").out)
    assert one["exact"] and one["classes"] == 16 and one["folder"] == "/mnt/dsprites"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("data", "list", "cifa10"), "cifa10: is not in the catalog; did you mean 'cifar10'?"),
        (("data", "download", "nonsense"), "nonsense: is not in the catalog; see `vitlab data list`"),
        (("data", "download", "imagenet"), "imagenet: is not for download; accept its terms"),
        (("data", "download"), "Missing argument 'name'"),
        (("finetune", "cifar10"), "run `vitlab data download cifar10` (162 MiB)"),
        (("finetune", "imagenet-real"), "imagenet-real: is not in "),
    ],
    ids=str,
)
def test_a_wrong_request_is_one_line_with_a_way_out(within, words, said):
    done = within(*words)
    assert done.code == 2 and said in done.error


def test_a_data_set_is_downloaded_and_trained_on(within, root, monkeypatch, tmp_path):
    standins.cifar10(tmp_path / "made")
    data = packed(tmp_path / "made")
    with serve() as server:
        url = server.put("/cifar-10-binary.tar.gz", data)
        file = File(url=url, unpack="tar", bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        small = {"files": (file,), "examples": {"train": 20, "test": 3}}
        monkeypatch.setitem(entries(), "cifar10", entries()["cifar10"].model_copy(update=small))
        for _ in range(2):
            done = within("data", "download", "cifar10")
            assert (done.code, done.out) == (0, f"cifar10 is at {root / 'cifar10'}\n"), done.err
        assert len(server.requests) == 1
    done = within("finetune", "cifar10", "--out", "run", "--steps", 2, *TINY)
    assert done.code == 0, done.err
    settings = json.loads((tmp_path / "run/config.json").read_text())
    assert settings["train_data"] == {
        "type": "Catalogued",
        "name": "cifar10",
        "subset": "train",
        "part": None,
        "path": str(root),
    }
    assert within("evaluate", "run", "cifar10").code == 0
