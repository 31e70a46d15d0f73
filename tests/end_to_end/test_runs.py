"""What a run was, beside others, and whether it can be made again: on the command line."""

import json
import shutil

import pytest

from tests.end_to_end.conftest import TINY, vitlab


def test_a_run_is_listed_shown_and_drawn(trained, within, tmp_path):
    listed = within("runs", trained.parent)
    assert listed.code == 0 and listed.err == ""
    heading, row = listed.out.splitlines()[:2]
    assert heading.split()[:3] == ["run", "state", "steps"] and row.split()[:3] == ["run", "finished", "20/20"]
    (found,) = json.loads(within("runs", trained.parent, "--json").out)
    assert found["path"] == str(trained) and found["step"] == found["steps"] == 20
    assert 0 < found["utilisation"] < 2 and found["images_per_second"] > 1 and found["started"] <= found["ended"]
    shown = within("runs", trained, "--out", tmp_path / "curves.png")
    assert shown.code == 0 and "train/loss" in shown.out and (tmp_path / "curves.png").stat().st_size > 10_000
    assert shown.out.rstrip().endswith(f"curves   {tmp_path / 'curves.png'}")


def test_wrong_requests_get_one_line(trained, within, tmp_path):
    for arguments, words in (
        (("runs",), "runs: is no folder; give the folder that your runs are in"),
        (("runs", trained, tmp_path), "is not a run"),
        (("runs", trained, "--out", "curves.gif"), "--out: 'curves.gif' names no kind of picture"),
        (("verify", tmp_path), "is not a run"),
        (("verify", tmp_path / "nowhere"), "is not a run"),
        (("verify",), "Missing argument 'run'"),
    ):
        done = within(*arguments)
        assert done.code == 2 and words in done.error, done.err


def test_a_folder_without_runs_says_so(within, tmp_path):
    (tmp_path / "runs").mkdir()
    done = within("runs")
    assert (done.code, done.out.strip()) == (0, "no runs in runs")


def test_a_run_is_verified_and_what_has_changed_is_not(trained, within, tmp_path):
    done = within("verify", trained)
    assert done.code == 0 and done.out.splitlines()[-1].startswith("verified: 8 checks passed"), done.out
    assert done.out.count("to the last bit") == 2
    copy = shutil.copytree(trained, tmp_path / "run")
    (copy / "model.safetensors").write_bytes(b"\0" + (copy / "model.safetensors").read_bytes()[1:])
    done = within("verify", copy, "--json")
    bad = [found for found in json.loads(done.out) if found["outcome"] == "bad"]
    assert done.code == 1 and [found["what"] for found in bad] == ["model.safetensors"]


@pytest.mark.slow
def test_without_the_data_a_run_is_not_verified_and_the_files_are(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    done = vitlab("finetune", "photos", "--out", "run", "--steps", 3, *TINY, cwd=tmp_path)
    assert done.code == 0, done.err
    shutil.rmtree(tmp_path / "photos")
    done = vitlab("verify", "run", cwd=tmp_path)
    assert done.code == 1 and "Traceback" not in done.err
    (line,) = [line for line in done.out.splitlines() if line.startswith("unchecked")]
    assert "updates: none could be made again: photos" in line
    assert done.out.splitlines()[-1] == "not verified: 6 checks passed, 0 failed, 1 could not be made"
