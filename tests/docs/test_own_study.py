"""The study of docs/studies.md: a kind of position that the package has not takes part in pieces of work like any other."""

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from vitlab.errors import WeightsError
from vitlab.studies import contents, table8
from vitlab.studies.cell import Studio
from vitlab.studies.conduct import conduct, open_folder, results
from vitlab.studies.study import Edition, Results
from vitlab.studies.work import Measurement, Training, in_order
from vitlab.studies.world_miniature import MINIATURE
from vitlab.train.run import OUTCOME
from vitlab.weights.load import load

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def study():
    return contents.find(str(DOCS / "own_study.py"))


def positions(models):
    (model,) = models
    return {"kind": type(model.position).__name__, "tokens": list(model.position.rows_of().shape)}


def shortened(training):
    train = training.settings.train.model_copy(update={"steps": 4, "batch_size": 8})
    return Training("short", training.settings.model_copy(update={"train": train}))


def test_its_new_kind_is_trained_kept_and_read_again(study, tmp_path):
    grid = study.at("miniature").grid
    (random,) = (piece.models[0] for label, piece in grid.items() if label == "random 0")
    short = shortened(random)
    edition = Edition("few", {"rows": Measurement("rows", positions, (short,))}, lambda _: None)
    open_folder(tmp_path / "out", "miniature")
    folder = short.folder(tmp_path / "out" / "pieces")
    for _ in range(2):  # the second time from the run that is there
        (folder / OUTCOME).unlink(missing_ok=True)
        conduct([edition], tmp_path / "out", Studio(Console(file=io.StringIO()), lambda _: None), lambda _: None)
    assert (folder / OUTCOME).exists()
    found = results(edition, tmp_path / "out")["rows"]
    assert found == {"kind": "RandomFourierPosition", "tokens": [1, 17, 64]}
    config = json.loads((folder / "config.json").read_text())
    assert config["model"]["position"] == {"type": "RandomFourier", "bandwidth": 1.0}
    model = short.model(tmp_path / "out" / "pieces")
    torch.testing.assert_close(model.position.fixed[:, 1:].square().sum(2), torch.full((1, 16), 32.0))
    with pytest.raises(WeightsError, match="RandomFourier"):  # whoever has not the program
        load(folder)


def test_what_table_8_has_is_the_same_piece(study):
    theirs = {piece.digest for piece in in_order(list(table8.STUDY.at("miniature").grid.values()))}
    ours = study.at("miniature").grid
    shared = {label for label, piece in ours.items() if piece.digest in theirs}
    assert shared == {"none 0", "none 1", "1d 0", "1d 1"} and len(ours) == 6


def test_it_says_what_came_out(study):
    edition = study.at("miniature")

    def told(random):
        return edition.sheet(
            Results(
                {label: {"top1": random if "random" in label else 0.5 + 0.1 * int(label[-1])} for label in edition.grid}
            )
        ).finding.agrees

    assert (told(0.55), told(0.2)) == (True, False)
    partial = edition.sheet(Results(dict.fromkeys(edition.grid)))
    assert partial.finding.agrees is None and len(partial.tables[0].rows) == 1 + len(edition.grid) // len(
        MINIATURE.seeds
    )
