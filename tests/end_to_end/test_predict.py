"""`vitlab predict` into a file, as a person gives it."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pyarrow.parquet
import pytest

from tests.end_to_end.conftest import environment, vitlab


@pytest.fixture
def few(photos, tmp_path):
    """Three pictures and one that is none, in one folder without classes."""
    (tmp_path / "few").mkdir()
    for name in ("cat", "dog", "owl"):
        shutil.copy(photos / name / "0.png", tmp_path / "few" / f"{name}.png")
    (tmp_path / "few" / "bad.jpg").write_bytes(b"nothing")
    return tmp_path / "few"


def rows(path):
    return pyarrow.parquet.read_table(path).to_pylist()


def test_all_images_are_written_and_the_exit_code_says_that_one_is_bad(trained, few, within, tmp_path):
    done = within("predict", trained, "few", "--out", "p.parquet")
    assert (done.code, done.err) == (1, "")
    assert done.out.startswith("4 images, 1 bad (column 'error' says why): p.parquet (")
    assert done.out.endswith(" images/s, eager on cpu)\n")
    found = rows(tmp_path / "p.parquet")
    assert [row["key"] for row in found] == ["few/bad.jpg", "few/cat.png", "few/dog.png", "few/owl.png"]
    assert [row["error"] is None for row in found] == [False, True, True, True]
    done = within("predict", trained, "few", "--out", "q.parquet", "--on-bad-image", "skip", "--json")
    told = json.loads(done.out)
    assert done.code == 0 and (told["images"], told["bad"], told["out"]) == (4, 1, "q.parquet")
    assert (tmp_path / "q.parquet").read_bytes() == (tmp_path / "p.parquet").read_bytes()


def test_what_is_written_is_what_is_printed(trained, photos, within, tmp_path):
    printed = [json.loads(line) for line in within("predict", trained, photos, "--json").out.splitlines()]
    assert within("predict", trained, photos, "--out", "p.parquet", "--top", 3).code == 0
    found = rows(tmp_path / "p.parquet")
    assert [row["key"] for row in found] == [row["path"] for row in printed]
    assert [list(zip(row["top_classes"], row["top_probabilities"], strict=True)) for row in found] == [
        [tuple(pair) for pair in row["top"]] for row in printed
    ]
    assert [row["label"] for row in found] == [row["key"].split("/")[-2] for row in found]


def test_paths_come_from_standard_input_and_patterns(trained, few, within, tmp_path, monkeypatch):
    class Stdin:
        buffer = io.BytesIO(b"few/owl.png\nfew/gone.png\n")

    monkeypatch.setattr(sys, "stdin", Stdin)
    done = within("predict", trained, "-", "few/c*.png", "--out", "p.jsonl", "--on-bad-image", "skip")
    assert done.code == 0, done.err
    found = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [row["key"] for row in found] == ["few/owl.png", "few/gone.png", "few/cat.png"]
    assert found[1]["error"] == "cannot be read (No such file or directory)" and "label" not in found[0]


def test_what_cannot_be_is_refused_in_one_line(trained, few, refused, tmp_path):
    (tmp_path / "there.csv").write_text("mine")
    (tmp_path / "empty").mkdir()
    refused("predict", trained, "few", "--out", "there.csv", words=["there.csv: exists already"])
    refused("predict", trained, "few", "--out", "p.txt", words=["--out", ".parquet, .csv or .jsonl"])
    refused("predict", trained, "few", "--out", "no/p.csv", words=["no: is no folder"])
    refused("predict", trained, "few", "--features", words=["--features", "add --out"])
    refused("predict", trained, "few", "--processes", 2, words=["--processes", "add --out"])
    refused("predict", trained, "empty", "--out", "p.csv", words=["empty: holds no images"])
    refused("predict", trained, "few/*.gif", "--out", "p.csv", words=["few/*.gif: fits no file"])
    refused("predict", "nowhere", "few", "--out", "p.csv", words=["nowhere"])


@pytest.mark.slow
def test_processes_share_the_work_and_leave_the_same_bytes(trained, photos, tmp_path):
    for count in (1, 2):
        done = vitlab(
            "predict", trained, photos, "digits", "--out", tmp_path / f"{count}.parquet", "--processes", count
        )
        assert done.code == 0, done.err
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(trained, tmp_path, count):
    arguments = ["predict", str(trained), *["digits"] * 3, "--out", "p.parquet", "--processes", str(count)]
    process = subprocess.Popen(
        [sys.executable, "-m", "vitlab", *arguments],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not list(tmp_path.glob(".p.parquet.parts/*.parquet")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130 and "Traceback" not in said
    assert said.splitlines()[-2:] == ["what is predicted is kept; the same command goes on", "interrupted"]
    done = vitlab(*arguments, cwd=tmp_path)
    assert done.code == 0 and "are done already; going on with the others" in done.err, done.err
    assert pyarrow.parquet.read_metadata(tmp_path / "p.parquet").num_rows == 3 * 1797
