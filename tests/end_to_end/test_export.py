"""`vitlab export`, and what the other verbs make of the file, as a person gives them."""

import json
import shutil

import pytest


@pytest.fixture
def loose(photos, tmp_path):
    """Pictures in one folder without classes."""
    (tmp_path / "loose").mkdir()
    for place in range(3):
        shutil.copy(photos / "cat" / f"{place}.png", tmp_path / "loose")
    return tmp_path / "loose"


def test_an_exported_file_is_for_predict_and_says_so_elsewhere(within, refused, trained, loose):
    assert "written  model.onnx and model.onnx.md" in within("export", trained, "model.onnx").out
    graph, run = (json.loads(within("predict", one, loose / "0.png", "--json").out) for one in ("model.onnx", trained))
    assert [name for name, _ in graph["top"]] == [name for name, _ in run["top"]]
    for verb in (["evaluate", "model.onnx", "digits"], ["export", "model.onnx", "other.onnx"]):
        refused(*verb, words=["model.onnx", "`predict` and `serve` run .onnx files", "give the run"])
    refused("predict", "model.onnx", loose, "--engine", "eager", words=["--engine", "eager does not run ONNX files"])


def test_the_engine_can_be_chosen_and_a_file_of_predictions_names_it(within, refused, trained, loose):
    for engine in ("eager", "onnxruntime"):
        said = within("predict", trained, loose, "--out", f"{engine}.csv", "--engine", engine)
        assert f"{engine} on cpu" in said.out
    assert within("predict", trained, loose, "--engine", "onnxruntime").out.count("\n") == 3
    refused("predict", trained, loose, "--engine", "fast", words=["--engine", "fast"])


def test_ranges_and_comparison_need_no_labels(within, trained, loose):
    said = within("export", trained, "small.onnx", "--int8", "--calibrate", "loose", "--images", loose / "0.png")
    assert said.code == 0, said.err
    assert "compared on 1 images" in said.out and "int8: the same class on" in said.out and "top-1" not in said.out


def test_the_card_says_that_the_figures_are_of_another_size(within, trained, tmp_path):
    assert within("export", trained, "large.onnx", "--image-size", "24").code == 0
    assert "These figures are of 16×16 pixels" in (tmp_path / "large.onnx.md").read_text()
    assert within("export", trained, "same.onnx").code == 0
    assert "These figures" not in (tmp_path / "same.onnx.md").read_text()
