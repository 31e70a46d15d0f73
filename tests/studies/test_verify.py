import fcntl
import hashlib
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vitlab.errors import RunFolderError
from vitlab.nn.remat import stacks
from vitlab.studies import run, verify
from vitlab.studies.plan import Asked, plan_finetune
from vitlab.studies.verify import is_verified, verdict
from vitlab.train.step import StepResult
from vitlab.train.watcher import Quiet

TINY = ("model.width=16", "model.num_heads=2", "model.depth=1", "model.mlp_dim=16", "model.dropout=0.1")


def draw(folder):
    """Draw twelve pictures of two classes."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(folder / name / f"{number}.png")
    return folder


def train(folder, data, *changes, steps=7, resume=False):
    asked = Asked(
        str(data), image_size=16, steps=steps, batch_size=4, workers=0, device="cpu", checkpoint_every=2,
        changes=(*TINY, "train.log_every=100", *changes),
    )  # fmt: skip
    if resume:
        run.resume(folder, Quiet(), lambda line: None)
    else:
        run.start(plan_finetune(asked).settings, folder, Quiet(), lambda line: None)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run on a folder of pictures. Only to be read."""
    root = tmp_path_factory.mktemp("verify")
    train(root / "run", draw(root / "photos"))
    return root


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained / "run", tmp_path / "run")


def findings(path, outcome):
    return [f"{found.what}: {found.said}" for found in verify.verify(path) if found.outcome == outcome]


def everything(path):
    return {file: file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_a_run_is_verified_to_the_last_bit_and_left_as_it_is(trained):
    before = everything(trained / "run")
    found = list(verify.verify(trained / "run"))
    assert is_verified(found) and verdict(found).startswith("verified: 8 checks passed, 0 failed")
    lines = "\n".join(map(str, found))
    for words in (
        "config.json: matches its checksum", "metrics.jsonl: matches", "model.safetensors: matches",
        "checkpoints/step-000006: 3 files match", "checkpoints/step-000007: 3 files match",
        "update 1: made again from the start, gives loss", "update 7: made again from step-000006, gives loss",
        "without a checksum: LOCK, timing.jsonl",
    ):  # fmt: skip
        assert words in lines, lines
    assert lines.count("to the last bit") == 2
    assert everything(trained / "run") == before


@pytest.mark.parametrize(
    "name",
    ["config.json", "environment.json", "metrics.jsonl", "model.safetensors",
     *(f"checkpoints/step-000006/{name}" for name in ("model.safetensors", "progress.json", "manifest.json"))],
)  # fmt: skip
@pytest.mark.parametrize("damage", ["bit", "cut", "gone"])
def test_whatever_has_changed_is_named(copied, name, damage):
    path = copied / name
    data = path.read_bytes()
    if name.endswith("config.json") and damage != "bit":
        pytest.skip("then it is no run")
    at = data.index(b'"workers": 0') + 11 if name == "config.json" else len(data) // 2
    changed = {"bit": data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], "cut": data[:-7], "gone": b""}[damage]
    path.write_bytes(changed)
    if damage == "gone":
        path.unlink()
    wrong = findings(copied, "bad") + findings(copied, "unchecked")
    assert any(name.split("/")[-2 if "/" in name else -1] in line for line in wrong), wrong


def test_a_log_that_training_did_not_write_is_found_out_though_its_checksum_fits(copied):
    path = copied / "metrics.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    target = next(event for event in events if event["name"] == "train/loss" and event["step"] == 7)
    target["value"] = float(np.nextafter(np.float32(target["value"]), np.float32(9)))  # the next number there is
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit(copied / "manifest.json", lambda sums: sums.update({"metrics.jsonl": digest}))
    (wrong,) = findings(copied, "bad")
    assert wrong.startswith("update 7: made again from step-000006, gives loss") and "the log has" in wrong
    assert findings(copied, "unchecked") == []


@pytest.fixture(scope="module")
def in_bfloat16(tmp_path_factory):
    """A finished run in bfloat16, with layers computed again. Only to be read."""
    root = tmp_path_factory.mktemp("bfloat16")
    return train(root / "run", draw(root / "photos"), "train.precision=bfloat16", "train.remat=true")


@pytest.mark.parametrize(
    ("precision", "factor", "outcome", "owed"),
    [
        ("float32", 1 + 1e-5, "ok", "0.1 %"),
        ("float32", 1.005, "bad", "0.1 %"),
        ("bfloat16", 1.005, "ok", "1 %"),
        ("bfloat16", 1.02, "bad", "1 %"),
    ],
)
def test_on_another_machine_the_log_has_to_fit_within_a_tolerance_that_is_said(
    trained, in_bfloat16, tmp_path, precision, factor, outcome, owed
):
    copied = shutil.copytree(trained / "run" if precision == "float32" else in_bfloat16, tmp_path / "run")
    assert is_verified(list(verify.verify(copied)))  # here it is to the last bit
    path = copied / "metrics.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    for event in events:
        event["value"] *= factor
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    edit(copied / "environment.json", lambda environment: environment.update(torch="1.0", world_size=2))
    lines = [line for line in findings(copied, outcome) if line.startswith("update")]
    assert len(lines) == 2
    for line in lines:
        assert f"within {owed}, as more is not owed: torch 1.0 there" in line and "world_size 2 there, 1 here" in line


def test_without_the_data_the_files_are_checked_and_what_is_left_is_said(copied):
    gone = {"type": "InProgram", "description": "my pictures", "examples": 12}
    edit(copied / "config.json", lambda config: config.update(train_data=gone))
    (line,) = findings(copied, "unchecked")
    assert line.startswith("updates: none could be made again: my pictures: exists only in the program that made it")
    assert not is_verified(list(verify.verify(copied)))
    assert sum("match" in line for line in findings(copied, "ok")) == 5  # the settings were changed


def test_a_run_that_was_interrupted_is_verified_as_far_as_it_came(trained, tmp_path):
    class Stop(Quiet):
        def stepped(self, step, result):
            if step == 5:
                raise RuntimeError("the end")

    settings = plan_finetune(
        Asked("digits", image_size=16, steps=9, batch_size=4, workers=0, device="cpu", checkpoint_every=2, changes=TINY)
    ).settings
    with pytest.raises(RuntimeError, match="the end"):
        run.start(settings, tmp_path / "run", Stop(), lambda line: None)
    found = list(verify.verify(tmp_path / "run"))
    assert is_verified(found), found
    assert {found.what for found in found if found.what.startswith("update")} == {"update 1", "update 3", "update 5"}


def test_the_layers_are_set_up_as_they_were_when_the_update_was_made(copied, monkeypatch):
    """What torch.compile writes gives other last bits."""
    seen = []
    monkeypatch.setattr(verify, "train_step", lambda state, *_: seen.append(next(stacks(state.model)).remat) or made)
    made = SimpleNamespace(read=lambda state: StepResult(0.0, 0.0, 0.0))
    edit(copied / "config.json", lambda config: config["train"].update(remat=True))
    list(verify.verify(copied))
    assert seen and all(seen)


def test_a_run_that_went_on_with_other_settings_is_verified_with_those_of_each_time(copied):
    """What was trained before is made again with the settings of before, the rest with those of after."""
    path = copied / "config.json"
    before = json.loads(path.read_text())
    (copied / "config-until-step-000006.json").write_text(json.dumps(before))
    edit(path, lambda config: config["train"].update(clip_norm=None, objective={"type": "Sigmoid"}))
    lines = findings(copied, "ok")
    assert any(line.startswith("update 1: made again from the start") for line in lines)
    assert any(line.startswith("update 7: made again from step-000006, gives loss") for line in findings(copied, "bad"))


def test_a_run_that_goes_on_or_is_none_is_refused(copied, tmp_path):
    with (copied / "LOCK").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunFolderError, match="is being trained; verify it when it has ended"):
            list(verify.verify(copied))
    with pytest.raises(RunFolderError, match="is not a run"):
        list(verify.verify(tmp_path))


def test_what_is_not_listed_is_said(copied):
    (copied / "checkpoints" / "step-000006" / "notes.txt").write_text("mine")
    (copied / "manifest.json").unlink()
    assert "checkpoints/step-000006: without a checksum: notes.txt" in findings(copied, "note")
    unchecked = findings(copied, "unchecked")
    assert unchecked == [
        "manifest.json: is missing or damaged: settings and model have no checksums",
        "model.safetensors: is not in manifest.json",
    ]


def test_a_run_resumed_elsewhere_says_from_where_on(copied):
    """The description of where a run goes on is kept, listed, and taken back with the steps that are made again."""
    from vitlab.train.run import RunFolder, environment_at

    with RunFolder.reopen(copied) as folder:
        first = folder.environment()
        other = first | {"threads": 7}
        folder.note_environment(4, first)
        assert not list(copied.glob("environment-*"))
        folder.note_environment(4, other)
        assert environment_at(copied, 3) == first and environment_at(copied, 4) == other
        folder.note_environment(6, first)
        assert environment_at(copied, 6) == first and environment_at(copied, 5) == other
        assert "environment-000006.json" in json.loads((copied / "manifest.json").read_text())
        folder.note_environment(2, first)
    assert not list(copied.glob("environment-*")) and environment_at(copied, 9) == first
    assert set(json.loads((copied / "manifest.json").read_text())) == {"config.json", "environment.json"}
