"""Resuming a run with other settings than it was started with."""

import json
import os
import signal

import pytest

from vitlab.config import override
from vitlab.errors import RunFolderError, SettingsError
from vitlab.ranks import Ranks
from vitlab.studies import run
from vitlab.studies.plan import Asked, plan_finetune, plan_pretrain
from vitlab.train.loop import Interrupted
from vitlab.train.progress import Quiet
from vitlab.train.run import RunFolder, config_at

TINY = ("model.width=16", "model.num_heads=2", "model.depth=2", "model.mlp_dim=32", "train.micro_batch_size=2")


class Stopping(Quiet):
    def stepped(self, step, result):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def stopped(tmp_path):
    """Return the settings and the folder of a run that was stopped at step 3 of 6."""
    small = Asked(data="digits", image_size=16, batch_size=8, workers=0, device="cpu", steps=6, changes=TINY)
    settings = plan_finetune(small).settings
    with pytest.raises(Interrupted):
        run.start(settings, tmp_path / "run", Stopping(), lambda line: None)
    return settings, tmp_path / "run"


def go_on(folder, asked, **options):
    said = []
    result = run.resume(folder, Quiet(), said.append, asked=asked, **options)
    return result, said


def test_other_settings_are_named_and_refused(stopped):
    settings, folder = stopped
    other = override(settings, ["train.lr=0.5"])
    with pytest.raises(RunFolderError, match=r"train\.lr: 0\.001 -> 0\.5.*or with --override-resume"):
        go_on(folder, other)


def test_other_settings_are_taken_where_that_is_asked_for_and_those_of_before_are_kept(stopped):
    settings, folder = stopped
    before = (folder / "config.json").read_text()
    _, said = go_on(folder, override(settings, ["train.lr=0.5", "train.steps=8"]), override=True)
    assert "changed from here on: train.lr: 0.001 -> 0.5" in said
    assert (folder / "config-until-step-000003.json").read_text() == before
    now = json.loads((folder / "config.json").read_text())["train"]
    assert (now["lr"], now["steps"]) == (0.5, 8) and (folder / "checkpoints" / "step-000008").exists()


def test_settings_that_no_update_was_made_with_take_no_place_of_others(tmp_path):
    """The run is at step 3, or falls back to it from 6, and goes on with others again."""
    with RunFolder.create(tmp_path / "run", {"lr": 1}, {}) as run:
        rates = lambda: [json.loads(config_at(run.path, step).read_text())["lr"] for step in (0, 2, 3, 5, 6)]  # noqa: E731
        run.keep_config(3, {"lr": 2})
        assert rates() == [1, 1, 2, 2, 2]
        run.keep_config(3, {"lr": 3})
        assert rates() == [1, 1, 3, 3, 3]
        run.keep_config(6, {"lr": 4})
        assert rates() == [1, 1, 3, 3, 4]
        run.keep_config(3, None)
        assert rates() == [1, 1, 4, 4, 4]
        run.keep_config(2, {"lr": 5})
        assert rates() == [1, 5, 5, 5, 5]
        assert sorted(path.name for path in run.path.glob("config-*")) == ["config-until-step-000002.json"]


@pytest.mark.parametrize("change", ["train.optimizer=SGD", "train.batch_size=4", "train.seed=1", "model.dropout=0.1"])
def test_what_a_checkpoint_depends_on_is_refused_even_then(stopped, change):
    settings, folder = stopped
    with pytest.raises(RunFolderError, match=r"started with other settings.*start a new run"):
        go_on(folder, override(settings, [change]), override=True)


def test_ranks_that_cannot_share_a_batch_are_refused(stopped):
    settings, folder = stopped
    with pytest.raises(
        SettingsError, match=r"--processes: 3 cannot share batches of 4 pieces \(2 images each\); use 1, 2, 4"
    ):
        run.start(settings, folder.with_name("other"), Quiet(), lambda line: None, ranks=Ranks(0, 3))
    assert not folder.with_name("other").exists()
    whole = override(settings, ["train.micro_batch_size=null"])
    with pytest.raises(SettingsError, match=r"2 cannot share batches of one piece \(8 images\); use 1, or"):
        run.start(whole, folder.with_name("other"), Quiet(), lambda line: None, ranks=Ranks(0, 2))


def test_what_cannot_be_sharded_is_refused_before_there_is_a_folder(tmp_path):
    asked = Asked(data="digits", recipe="masked", steps=6, workers=0, device="cpu", sharded=True)
    with pytest.raises(SettingsError, match="'sharded' is not there for MaskedPatches"):
        run.start(plan_pretrain(asked).settings, tmp_path / "run", Quiet(), lambda line: None)
    assert not (tmp_path / "run").exists()
