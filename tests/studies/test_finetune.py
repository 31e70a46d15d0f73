"""`vitlab.finetune`, the call from Python."""

import pytest

import vitlab
from vitlab.errors import SettingsError
from vitlab.train.config import TrainSettings
from vitlab.train.masked import MaskedPatches


def test_an_objective_that_cannot_be_leaves_no_folder(make_model, make_source, tmp_path):
    source = make_source()
    model = make_model(classes=source.classes)
    wrong = TrainSettings(steps=1, batch_size=4, objective=MaskedPatches())
    with pytest.raises(SettingsError, match="no use for a head"):
        vitlab.finetune(model, source, settings=wrong, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert vitlab.finetune(model, source, steps=1, out=tmp_path / "run").path.exists()
