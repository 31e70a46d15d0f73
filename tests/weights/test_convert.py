"""A model in another format is the same model when it comes back."""

import json

import pytest
import torch

from vitlab.errors import WeightsError
from vitlab.nn.pooling import Mean
from vitlab.nn.position import Learned1D, Relative
from vitlab.weights import convert as convert_module
from vitlab.weights.convert import convert
from vitlab.weights.load import load

FORMATS = ["vitlab", "timm", "huggingface", "official"]


@pytest.mark.parametrize("to", FORMATS)
def test_a_model_comes_back_bit_for_bit(make_model, tmp_path, to):
    model = make_model(classes=("ant", "bee", "cat"))
    written = convert(model, tmp_path / "out", to)
    back = load(written)
    assert all(torch.equal(back.get_parameter(name), values) for name, values in model.named_parameters())
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(back.eval()(images), model(images))
    assert back.settings == model.settings
    assert back.classes == (() if to == "official" else model.classes)  # the paper's files have no names
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_the_same_model_gives_the_same_bytes(make_model, tmp_path):
    for to in FORMATS:
        for out in ("a", "b"):
            convert(make_model(), tmp_path / f"{to}-{out}", to)
        first, second = tmp_path / f"{to}-a", tmp_path / f"{to}-b"
        files = sorted(first.iterdir()) if first.is_dir() else [first]
        for file in files:
            other = second / file.name if first.is_dir() else second
            assert file.read_bytes() == other.read_bytes()


def test_a_folder_of_timm_has_the_names_and_the_transform(make_model, tmp_path):
    folder = convert(make_model(classes=("ant", "bee", "cat")), tmp_path / "out", "timm")
    config = json.loads((folder / "config.json").read_text())
    assert config["label_names"] == ["ant", "bee", "cat"] and "num_classes" not in config["model_args"]
    assert config["pretrained_cfg"]["mean"] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("to", ["timm", "huggingface", "official"])
def test_what_a_format_cannot_hold_is_refused_in_one_line_and_leaves_nothing(make_model, tmp_path, to):
    with pytest.raises(WeightsError) as error:
        convert(make_model(position=Relative()), tmp_path / "out", to)
    assert "\n" not in str(error.value) and "; use vitlab convert --to vitlab" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_what_exists_is_never_replaced(make_model, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(WeightsError, match="exists already; choose another name"):
        convert(make_model(), tmp_path / "out", "vitlab")
    assert (tmp_path / "out").read_text() == "mine"
    with pytest.raises(WeightsError, match="is no folder; make it first"):
        convert(make_model(), tmp_path / "nowhere" / "out", "vitlab")


def test_what_would_compute_something_else_gets_no_name(make_model, tmp_path, monkeypatch):
    """The file has every parameter, but its reader takes it for another model."""
    monkeypatch.setattr(convert_module.official, "_check_exportable", lambda settings, image_spec: None)
    with pytest.raises(WeightsError, match="'activation' came back otherwise"):
        convert(make_model(activation="gelu"), tmp_path / "out", "official")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"dropout": 0.1, "stochastic_depth": 0.1, "head_bias": -10.0},
        {"pool": Mean(), "position": Learned1D(class_token=False)},
    ],
)
def test_what_changes_nothing_that_is_computed_may_come_back_otherwise(make_model, tmp_path, changes):
    model = make_model(**changes).eval()
    back = load(convert(model, tmp_path / "out", "official"))
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(back.eval()(images), model(images)) and back.settings != model.settings


def test_what_came_back_otherwise_gets_no_name(make_model, tmp_path, monkeypatch):
    export = convert_module.timm.export

    def damaged(model):
        tensors, config = export(model)
        return tensors | {"norm.weight": tensors["norm.weight"] + 1}, config

    monkeypatch.setattr(convert_module.timm, "export", damaged)
    with pytest.raises(WeightsError, match=r"'encoder\.norm\.weight' came back otherwise"):
        convert(make_model(), tmp_path / "out", "timm")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", FORMATS)
def test_that_an_image_may_be_of_several_classes_is_kept(make_model, tmp_path, to):
    model = make_model(classes=("ant", "bee", "cat"))
    assert load(convert(model, tmp_path / "one", to)).probabilities == "softmax"
    model.probabilities = "sigmoid"
    written = convert(model, tmp_path / "several", to)
    assert load(written).probabilities == ("softmax" if to == "official" else "sigmoid")
    assert load(written, num_classes=5).probabilities == "softmax"  # a new head has yet to learn what it is for
    if written.is_dir():
        config = json.loads((written / "config.json").read_text())
        assert config["problem_type"] == "multi_label_classification"
