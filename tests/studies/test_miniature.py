"""The demo at its smallest: it runs, goes on where it stopped, and says what it measured."""

import json
from dataclasses import replace

import pytest
from rich.console import Console

from vitlab.data.fractals import Fractals
from vitlab.errors import RunFolderError
from vitlab.studies import miniature
from vitlab.train.run import read_metrics

SMALLEST = replace(
    miniature.QUICK, fractals=Fractals(num_classes=2, images_per_class=4, image_size=8), pretraining_steps=2, transfer_steps=1
)  # fmt: skip
FOLDERS = {
    f"{kind}-{seed}" for kind in ("finetuned", "scratch", "finetuned-longer", "scratch-longer") for seed in (0, 1)
}


def run(out, scale=SMALLEST):
    said = []
    return miniature.run_miniature(scale, out, Console(quiet=True), said.append), said


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    return out, *run(out)


def test_every_number_of_the_table_is_one_that_a_run_measured(finished):
    out, rows, said = finished
    assert {path.name for path in out.iterdir() if path.is_dir()} == FOLDERS | {"pretrained"}
    table = json.loads((out / "table.json").read_text())
    assert [row["top1"] for row in table] == [row.top1 for row in rows]
    for row, kind in zip(rows, ("finetuned", "scratch", "finetuned-longer", "scratch-longer"), strict=False):
        for seed, value in enumerate(row.top1):
            measured = [
                event["value"] for event in read_metrics(out / f"{kind}-{seed}") if event["name"] == "test/top1"
            ]
            assert value == measured[-1]
    assert said[-1] == f"page     {out / 'index.html'}"


def test_fine_tuning_begins_with_the_pretrained_weights_at_a_higher_resolution(finished):
    out, _, _ = finished
    before = json.loads((out / "pretrained" / "config.json").read_text())
    for seed in (0, 1):
        after = json.loads((out / f"finetuned-{seed}" / "config.json").read_text())
        assert after["weights"]["path"] == str((out / "pretrained" / "model.safetensors").resolve())
        assert after["model"]["image_size"][0] > before["model"]["image_size"][0]
        scratch = json.loads((out / f"scratch-{seed}" / "config.json").read_text())
        assert scratch["weights"] is None
        assert {**scratch, "recipe": "", "weights": None} == {**after, "recipe": "", "weights": None}


def test_a_second_start_trains_nothing_and_says_the_same(finished):
    out, rows, _ = finished
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    again, _ = run(out)
    assert again == rows
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == before


@pytest.mark.slow
def test_a_demo_that_was_stopped_goes_on_and_ends_the_same(finished, tmp_path):
    import shutil

    out, rows, _ = finished
    other = shutil.copytree(out, tmp_path / "demo")
    for path in other.glob("scratch*"):
        shutil.rmtree(path)
    (other / "finetuned-longer-1" / "model.safetensors").unlink()
    (other / "index.html").unlink()
    # the copy's runs name the first demo's weights, as they would after a move: those are checked, not guessed
    with pytest.raises(RunFolderError, match="was started with other settings"):
        run(other)
    for path in out.glob("scratch-0"):
        shutil.rmtree(path)
    (out / "finetuned-longer-1" / "model.safetensors").unlink()
    assert run(out)[0] == rows


def test_another_scale_does_not_mix_with_what_is_there(finished):
    out, _, _ = finished
    with pytest.raises(RunFolderError, match="was started with other settings"):
        run(out, replace(SMALLEST, pretraining_steps=3))


def test_the_page_tells_a_quick_run_from_a_full_one(finished):
    out, _, _ = finished
    assert "Its numbers mean nothing" in (out / "index.html").read_text()
