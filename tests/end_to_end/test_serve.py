"""What `vitlab serve` refuses before it serves."""

import socket
import sys

import pytest

from vitlab.models.classifier import build
from vitlab.serve.settings import ServeSettings
from vitlab.studies.serving import Serving, named
from vitlab.weights.save import save


@pytest.fixture
def model(make_settings, tmp_path):
    (tmp_path / "runs" / "pets").mkdir(parents=True)
    save(build(make_settings()), tmp_path / "runs" / "pets" / "model.safetensors")
    return tmp_path / "runs" / "pets"


def test_a_model_is_called_by_its_name_or_by_where_it_is(model, tmp_path, monkeypatch):
    monkeypatch.chdir(model)
    assert named([str(model)]) == {"pets": str(model)}
    assert named(["."]) == {"pets": "."}
    assert named(["model.safetensors"]) == {"pets": "model.safetensors"}
    assert named(["a=x/b.npz", "x/ViT-B_16.npz", "augreg/S_16", "hf://me/pets#1"]) == {
        "a": "x/b.npz",
        "ViT-B_16": "x/ViT-B_16.npz",
        "S_16": "augreg/S_16",
        "pets-1": "hf://me/pets#1",
    }
    assert named(["https://e.org/x.npz?a=b"]) == {"x.npz-a-b": "https://e.org/x.npz?a=b"}


def test_every_model_has_the_size_of_batch_that_is_asked_for(model):
    for asked, size in ((None, 8), (3, 3)):
        serving = Serving.open(
            [str(model), f"b={model}"], ServeSettings(port=0), "cpu", engine="eager", batch_size=asked
        )
        serving.opened.close()
        assert [each["batch_size"] for each in serving.models()] == [size, size]


def test_a_port_that_is_in_use_is_said_before_models_are_loaded(refused):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused("serve", "nowhere", "--port", port, words=("--port", str(port), "in use", "or 0"))


def test_what_cannot_be_served_is_refused(refused, model, tmp_path):
    refused("serve", "nowhere", "--port", 0, words=("nowhere",))
    refused("serve", model, model / "model.safetensors", words=("is called 'pets', as another is", "pets-2="))
    refused("serve", model, "--host", "no.such.host.invalid", words=("--host", "no.such.host.invalid"))
    refused(
        "serve", model, "--allow-host", "http://box:80", words=("allow_hosts", "'http://box:80'", "without http://")
    )
    refused("serve", model, "--batch-size", 0, words=("--batch-size", "greater than or equal to 1"))
    refused("serve", model, "--device", "tpu", "--port", 0, words=("--device", "tpu"))
    refused("serve", words=("MODEL",))


def test_without_the_extra_it_says_what_to_install(refused, model, monkeypatch):
    ours = ("uvicorn", "vitlab.serve.server", "vitlab.serve.connection")
    for name in [name for name in sys.modules if name.startswith(ours)]:
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "uvicorn", None)
    refused("serve", model, words=("needs uvicorn", "pip install 'vitlab[serve]'"))
