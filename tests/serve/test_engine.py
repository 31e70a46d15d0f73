import builtins
import importlib.util

import numpy as np
import pytest
import torch

from vitlab.errors import SettingsError, WeightsError
from vitlab.models.catalog import settings_for
from vitlab.serve import engine as engines
from vitlab.serve.engine import Eager, OnnxRuntime, Outputs, batch_size_for, choose, deviation
from vitlab.serve.export import export
from vitlab.serve.predict import Predictor

CPU = torch.device("cpu")


def test_the_fastest_that_is_installed_is_taken_and_named(make_model):
    assert Predictor(make_model()).engine.name == "onnxruntime"
    assert Predictor(make_model(), engine="eager").engine.name == "eager"
    assert Predictor(make_model(), engine="onnxruntime").engine.name == "onnxruntime"


def test_a_handful_of_images_do_not_wait_for_a_graph(make_model):
    assert Predictor(make_model(), images=2).engine.name == "eager"
    assert Predictor(make_model(), images=1000).engine.name == "onnxruntime"


def test_without_the_extra_the_model_runs_as_it_is_and_an_explicit_wish_is_explained(make_model, monkeypatch, tmp_path):
    export(make_model(), tmp_path / "model.onnx")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("onnx") else found(name))
    assert Predictor(make_model()).engine.name == "eager"
    for asked in (
        lambda: Predictor(make_model(), engine="onnxruntime"),
        lambda: Predictor.load(tmp_path / "model.onnx"),
    ):
        with pytest.raises(SettingsError, match=r"needs onnx and onnxruntime; pip install 'vitlab\[export\]'"):
            asked()
    with pytest.raises(SettingsError, match=r"pip install 'vitlab\[export\]'"):
        export(make_model(), tmp_path / "other.onnx")


def test_a_graph_that_differs_is_not_used_and_that_is_said(make_model, monkeypatch, caplog):
    wrong = Outputs(np.full((1, 3), 7, np.float32), np.zeros((1, 16), np.float32))
    monkeypatch.setattr(engines.OnnxRuntime, "run", lambda *_: wrong)
    assert Predictor(make_model()).engine.name == "eager"
    assert "onnxruntime differs from PyTorch" in caplog.text


def test_a_graph_that_does_not_fit_the_memory_is_not_made(make_model, monkeypatch):
    monkeypatch.setattr(engines, "available_memory", lambda _: 1000)
    assert Predictor(make_model()).engine.name == "eager"


def test_where_the_system_does_not_say_how_much_memory_there_is_the_graph_is_made(make_model, monkeypatch):
    monkeypatch.setattr(engines, "available_memory", lambda _: None)
    assert Predictor(make_model()).engine.name == "onnxruntime"


def test_an_installation_that_is_broken_is_not_used_and_that_is_said(make_model, monkeypatch, caplog):
    def broken(_):
        raise ImportError("libonnx.so: no such file")

    monkeypatch.setattr(engines.OnnxRuntime, "of", broken)
    assert Predictor(make_model()).engine.name == "eager"
    assert "cannot run the model (libonnx.so: no such file)" in caplog.text


def test_a_graph_runs_on_the_processor_whatever_device_is_asked_for(make_model, tmp_path):
    export(make_model(), tmp_path / "model.onnx")
    assert Predictor.load(tmp_path / "model.onnx", "meta").device == CPU


def test_a_graph_cannot_be_looked_into_or_run_by_torch(make_model, tmp_path):
    export(make_model(), tmp_path / "model.onnx")
    with pytest.raises(WeightsError, match="is a graph, and cannot be looked into; give the run"):
        _ = Predictor.load(tmp_path / "model.onnx").model
    with pytest.raises(SettingsError, match="--engine: eager does not run ONNX files; leave it out"):
        Predictor.load(tmp_path / "model.onnx", engine="eager")


def test_a_row_of_a_graph_does_not_depend_on_those_beside_it(make_model):
    model = make_model(image_size=24, width=64, num_heads=4, mlp_dim=256)
    run = OnnxRuntime.of(model).run
    images = torch.randint(256, (8, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = run(images)
    for shift in range(1, 8):
        turned = run(images.roll(shift, 0))
        assert np.array_equal(np.roll(turned.logits, -shift, 0), whole.logits)
        lonely = torch.zeros_like(images)
        lonely[shift] = images[0]
        assert np.array_equal(run(lonely).logits[shift], whole.logits[0])


@pytest.mark.parametrize(("threads", "sizes"), [(1, [4, 1, 1]), (2, [8, 1, 1]), (16, [8, 4, 1])])
def test_the_size_of_a_batch_follows_from_the_model_and_the_device(monkeypatch, threads, sizes):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    models = (("Mini/4", 32), ("S/16", 224), ("H/14", 224))
    assert [batch_size_for(settings_for(name, 10, side), CPU) for name, side in models] == sizes
    assert batch_size_for(settings_for("B/16", 10, 224), torch.device("cuda")) == 64


@pytest.mark.parametrize(("threads", "sizes"), [(1, [32, 2, 1]), (2, [64, 4, 1]), (16, [64, 32, 8])])
def test_many_images_go_through_a_model_in_larger_batches(make_model, monkeypatch, threads, sizes):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    models = (("Mini/4", 32), ("S/16", 224), ("H/14", 224))
    assert [batch_size_for(settings_for(name, 10, side), CPU, 16) for name, side in models] == sizes
    model = make_model()
    assert Predictor(model, images=15).batch_size == Predictor(model).batch_size == 8
    assert Predictor(model, images=16).batch_size == 64 and Predictor(model, 3, images=16).batch_size == 3


def test_the_deviation_is_a_share_of_large_numbers_and_no_number_where_one_is_none():
    def outputs(*values):
        return Outputs(np.array([values], np.float32), np.zeros((1, 1), np.float32))

    assert deviation(outputs(1.5), outputs(1.0)) == pytest.approx(0.5)
    assert deviation(outputs(110.0), outputs(100.0)) == pytest.approx(0.1)
    assert np.isnan(deviation(outputs(np.nan), outputs(1.0)))
    zero = np.zeros((1, 1), np.float32)
    assert np.isnan(deviation(Outputs(zero, zero + np.float32(np.nan)), outputs(0.0)))


def test_a_model_is_left_where_and_as_it_is(make_model):
    model = make_model()
    before = [parameter.clone() for parameter in model.parameters()]
    choose(model)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert isinstance(choose(model, "eager"), Eager)


def test_nothing_of_onnx_is_imported_where_it_is_not_used(make_model, monkeypatch):
    ordinary = builtins.__import__

    def guarded(name, *rest, **more):
        assert not name.startswith("onnx"), name
        return ordinary(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", guarded)
    Predictor(make_model(), engine="eager")
