"""A server at saturation against the bare model on batches that are ready in memory: 1 is no cost at all.

It also says on standard error what the rates were and how long requests took. Clients and server share the cores, so on a small
machine what the clients use counts against the server.
"""

import http.client
import io
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from timing import Row

from vitlab.models.catalog import build_named
from vitlab.serve.predict import Predictor
from vitlab.weights.save import save

MODELS, SIDE, CLIENTS, SECONDS, ROUNDS = ("Ti/16", "S/16"), 224, 32, 6.0, 5
LIMIT = "the model alone on full batches (the limit is 1)"


def photo(side: int) -> bytes:
    """Return a JPEG as photos are, smooth with some grain."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    grain = rng.normal(0, 6, (side, side, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def bare_rate(predictor: Predictor, data: bytes, seconds: float) -> float:
    """Return images a second of the model on batches that are prepared."""
    batch = [predictor.prepare(data)] * predictor.batch_size
    predictor.answer(batch)
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        predictor.answer(batch)
        count += len(batch)
    return count / (time.perf_counter() - begun)


def served_rate(port: int, data: bytes, clients: int, seconds: float) -> tuple[float, list[float]]:
    """Return images a second of a server with so many clients, each asking again when it has its answer, and how long each took."""
    until, times = time.perf_counter() + seconds, list[float]()

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while (begun := time.perf_counter()) < until:
            connection.request("POST", "/v1/predict", data, {"Content-Type": "image/jpeg"})
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            answer.read()
            times.append(time.perf_counter() - begun)
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(times) / (time.perf_counter() - begun), times


def measure(models: Sequence[str] = MODELS, seconds: float = SECONDS, rounds: int = ROUNDS) -> list[Row]:
    return [_row(model, seconds, rounds) for model in models]


def _row(model: str, seconds: float, rounds: int) -> Row:
    data = photo(SIDE)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "model.safetensors"
        save(build_named(model, num_classes=1000, image_size=SIDE), path)
        predictor = Predictor.load(path)
        command = [sys.executable, "-m", "vitlab", "serve", str(path), "--port", "0", "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            port = int(json.loads(process.stdout.readline())["url"].rpartition(":")[2])
            served_rate(port, data, CLIENTS, 1)
            ratios, times = [], list[float]()
            for _ in range(rounds):
                bare = bare_rate(predictor, data, seconds)
                rate, taken = served_rate(port, data, CLIENTS, seconds)
                ratios.append(rate / bare)
                times += taken
                print(f"{rate:.1f} images/s served, {bare:.1f} bare", file=sys.stderr)
            _, alone = served_rate(port, data, 1, seconds)
        finally:
            process.terminate()
            process.wait()
    for name, taken in ((f"{CLIENTS} clients", times), ("1 client", alone)):
        p50, p90, p99 = (1000 * float(np.percentile(taken, share)) for share in (50, 90, 99))
        print(f"{model}, {name}: half within {p50:.0f} ms, 90 % {p90:.0f}, 99 % {p99:.0f}", file=sys.stderr)
    claim = f"serving {model} at {SIDE}, JPEG files, {CLIENTS} clients on the same machine"
    return Row(claim, LIMIT, statistics.median(ratios), min(ratios), max(ratios))


if __name__ == "__main__":
    for row in measure():
        print(row.markdown())
