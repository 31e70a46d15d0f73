"""Servers on this computer, each in a thread, with models that cost nothing."""

import base64
import http.client
import io
import json
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image

from vitlab.serve.predict import Predictor
from vitlab.weights.save import save

pytest.importorskip("uvicorn")

from vitlab.serve.http import create_app
from vitlab.serve.server import Server, listen
from vitlab.serve.settings import ServeSettings

CLASSES = ("ant", "bee", "cat")
PNG = {"Content-Type": "image/png"}
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        """The reason, which says nothing of the server's inside."""
        reason = self.json["error"]
        assert list(self.json) == ["error"] and reason
        assert not any(word in reason for word in ("Traceback", "/site-packages", ".py", " at 0x", "/tmp", "\n")), (
            reason
        )
        return reason


@dataclass(frozen=True)
class Site:
    """A server that runs."""

    port: int
    service: object
    predictors: dict[str, Predictor]

    def ask(self, method="GET", path="/healthz", body=None, headers=None, timeout=30):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()})
        finally:
            connection.close()

    def predict(self, data, path="/v1/predict", headers=PNG):
        return self.ask("POST", path, data, headers)

    def predict_json(self, *files, path="/v1/predict"):
        body = json.dumps({"images": [base64.b64encode(data).decode() for data in files]})
        return self.ask("POST", path, body, JSON)

    def open(self, timeout=30):
        return socket.create_connection(("127.0.0.1", self.port), timeout)


def read_all(line):
    """Return everything that comes on a connection until the other side closes it."""
    parts = []
    try:
        while part := line.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        parts.append(b"<reset>")
    return b"".join(parts)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def serving(predictors, **settings):
    """Serve meanwhile."""
    chosen = ServeSettings(**{"port": 0, "decoders": 2, **settings})
    opened, started = listen(chosen), threading.Event()
    app = create_app(predictors, chosen)
    server = Server(app, opened, started.set)
    thread = threading.Thread(target=server.run_until_stopped)
    thread.start()
    try:
        assert started.wait(60)
        yield Site(opened.getsockname()[1], app.state.service, predictors)
    finally:
        server.stop()
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture(scope="package")
def predictors():
    """Two models: one with softmax, one with other sizes."""
    from vitlab.models.classifier import build
    from vitlab.models.vit import ViTSettings
    from vitlab.nn.grid import Size
    from vitlab.nn.patches import Patches

    def make(seed, side):
        small = {"width": 16, "depth": 2, "num_heads": 2, "mlp_dim": 32, "num_classes": 3}
        settings = ViTSettings(image_size=Size(side, side), stem=Patches(patch_size=Size(4, 4)), **small)
        model = build(settings, seed=seed, classes=CLASSES)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        return Predictor(model, batch_size=4)

    import torch

    return {"first": make(0, 8), "second": make(1, 16)}


@pytest.fixture(scope="package")
def site(predictors):
    """A server with the usual limits."""
    with serving(predictors) as found:
        yield found


@pytest.fixture(scope="package")
def strict(predictors):
    """A server whose limits are reached soon."""
    limits = {"max_bytes": 20_000, "max_images": 3, "max_pixels": 10_000, "max_connections": 24}
    times = {"read_seconds": 1.0, "idle_seconds": 1.0, "answer_seconds": 5.0, "decode_seconds": 1.0}
    with serving(predictors, **limits, **times) as found:
        yield found


@pytest.fixture(scope="session")
def photos():
    """Files of images of several sizes."""
    rng = np.random.default_rng(0)
    return [png(rng.integers(0, 256, (int(side), 11, 3), dtype=np.uint8)) for side in rng.integers(5, 40, 24)]


@pytest.fixture(scope="package")
def model(predictors, tmp_path_factory):
    """A folder with the first of the models."""
    path = tmp_path_factory.mktemp("models") / "pets" / "model.safetensors"
    path.parent.mkdir()
    save(predictors["first"].model, path)
    return path.parent
