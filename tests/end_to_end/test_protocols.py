"""The paper's protocols from the command line: what is asked wrongly is said in a line, what is done is in a folder."""

import json

import pytest

from tests.end_to_end.conftest import TINY

PROTOCOL = ("--protocol", "paper", "--steps", 2, *TINY, "--model", "Mini/4")


def test_the_protocol_runs_and_is_finished_once(within, photos, tmp_path):
    done = within("finetune", photos, *PROTOCOL, "--lr", 0.01, "--lr", 0.1, "--seeds", 2, "--out", "out")
    assert done.code == 0, done.err
    assert "2 trials (lr-0.01, lr-0.1) judged on 10% of every class, held out; then 2 runs" in done.err
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert list(result["trials"]) == ["lr-0.01", "lr-0.1"] and len(result["scores"]) == 2
    before = (tmp_path / "out" / "result.json").read_bytes()
    done = within("finetune", "--resume", "--out", "out")
    assert done.code == 0 and "images/s" not in done.err, done.err  # no step was made
    assert (tmp_path / "out" / "result.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--protocol", "paper", "--steps", 0), ["--steps", "greater than or equal to 1"]),
        (("--protocol", "paper", "--seeds", 0), ["--seeds", "greater than or equal to 1"]),
        (("--protocol", "papers"), ["--protocol", "'papers' is not one of 'paper'"]),
        (("--protocol", "paper", "--processes", 2), ["--processes", "leave it out"]),
        (("--protocol", "paper", "--override-resume"), ["--override-resume"]),
        (("--seeds", 2), ["--seeds", "is for --protocol paper"]),
        (("--lr", 0.1, "--lr", 0.2), ["--lr", "is given 2 times", "--protocol paper"]),
    ],
)
def test_what_the_protocol_cannot_do_is_refused(refused, photos, arguments, words):
    refused("finetune", photos, *arguments, words=words)


def test_a_protocol_that_is_not_there_is_not_resumed(refused):
    refused("finetune", "--protocol", "paper", "--resume", "--out", "none", words=["none", "holds no protocol"])
    refused("finetune", "--protocol", "paper", "--resume", words=["--resume", "add --out"])
    words = ["--resume", "leave the other options out"]
    refused("finetune", "--protocol", "paper", "--resume", "--out", "none", "--seeds", 2, words=words)


def test_vtab_is_refused_by_name(refused, trained, monkeypatch, tmp_path):
    monkeypatch.setenv("VITLAB_DATA", str(tmp_path / "data"))
    refused("vtab", trained, "--tasks", "natural,clever-count", words=["--tasks", "did you mean 'clevr-count'"])
    refused("vtab", trained, "--tasks", "svhn", words=["vtab/svhn", "vitlab data download vtab/svhn"])
    refused("vtab", trained, words=["has no data of VTAB-1k", "VITLAB_DATA"])
    refused("vtab", trained, "--steps", 0, words=["--steps", "greater than or equal to 1"])
