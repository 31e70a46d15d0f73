"""Many requests, good, bad and slow, to a server that is a process of its own."""

import base64
import http.client
import json
import os
import signal
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.altering import altered
from tests.serve.conftest import PNG
from tests.serve.process import Load, started

HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n"
BODY = b"Content-Type: image/png\r\nContent-Length: 1000\r\n\r\n"


def memory_of(process):
    """Return the resident bytes of a process and of its children, how many files it has open, and how many children."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    children = [child for task in tasks for child in (task / "children").read_text().split()]
    resident = [int(Path(f"/proc/{one}/statm").read_text().split()[1]) * 4096 for one in (process, *children)]
    return sum(resident), len(list(Path(f"/proc/{process}/fd").iterdir())), len(children)


@pytest.mark.slow
def test_five_restarts_under_load_lose_no_request(model, photos):
    """Clients come back until there have been 2,000 answers; a refused connection is no request."""
    answers, port = [], 0
    for _ in range(5):
        with started(model, port) as (process, said), ThreadPoolExecutor(12) as clients:
            port = int(said["url"].rpartition(":")[2])
            load = Load(port, photos[0], enough=400)
            running = [clients.submit(load.run, number) for number in range(12)]
            assert load.enough.wait(120)
            process.send_signal(signal.SIGTERM)
            for one in running:
                one.result()
            assert process.wait(60) == 0 and load.lost == []
            answers += load.answers
    assert len(answers) >= 2_000 and len(set(answers)) == 1 and answers[0][0] == 200


@pytest.mark.slow
def test_many_requests_good_and_bad_leave_memory_files_and_children_as_they_were(model, photos, odd_images):
    """VITLAB_SOAK says how many; the corpus of odd images is sent among good ones, and clients leave and stop in between."""
    total = int(os.environ.get("VITLAB_SOAK", "2000"))
    with started(model) as (process, said), ThreadPoolExecutor(8) as clients:
        port = int(said["url"].rpartition(":")[2])

        def ask(number):
            bad = number % 4 == 3
            if number % 10 == 9:  # one that leaves
                with socket.create_connection(("127.0.0.1", port)) as line:
                    line.sendall(HEAD + BODY)
                return None
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("POST", "/v1/predict", odd_images[number % len(odd_images)] if bad else photos[0], PNG)
            answer = connection.getresponse()
            found = answer.status, answer.read()
            connection.close()
            return None if bad and found[0] in (200, 400, 422) else found

        figures = []
        for part in range(10):
            numbers = range(part * total // 10, (part + 1) * total // 10)
            good = {one for one in clients.map(ask, numbers) if one is not None}
            assert len(good) == 1 and next(iter(good))[0] == 200
            time.sleep(1)
            figures.append(memory_of(process.pid))
        print(figures)
        early = max(resident for resident, _, _ in figures[1:4])
        assert max(resident for resident, _, _ in figures[-3:]) < early + (48 << 20), figures
        assert {files for _, files, _ in figures[1:]} == {figures[1][1]} and len({count for *_, count in figures}) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0 and process.stderr.read() == ""


@pytest.mark.slow
def test_200_sockets_that_send_a_byte_a_second_do_not_stop_a_client(model, photos):
    with started(model) as (process, said):
        port = int(said["url"].rpartition(":")[2])
        lines = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        for number, line in enumerate(lines):
            line.sendall(HEAD + (BODY if number % 2 else b""))
        ended = 0
        for _ in range(30):
            for line in lines:
                try:
                    line.sendall(b"x")
                except OSError:
                    ended += 1
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("POST", "/v1/predict", photos[0], PNG)
            assert connection.getresponse().status == 200
            connection.close()
            time.sleep(1)
        assert ended > 200  # each was ended within the time for a request
        for line in lines:
            line.close()
        assert process.poll() is None


@pytest.mark.slow
def test_altered_images_and_bodies_never_break_it(model, photos, odd_images):
    """For VITLAB_FUZZ seconds files of the corpus with bytes changed, cut, doubled, are sent as they are and in JSON."""
    files = [data for data in odd_images if len(data) < 100_000]
    counts = Counter()
    with started(model) as (process, said), ThreadPoolExecutor(4) as clients:
        until = time.monotonic() + float(os.environ.get("VITLAB_FUZZ", "30"))
        port = int(said["url"].rpartition(":")[2])

        def ask(seed):
            rng = np.random.default_rng(seed)
            while time.monotonic() < until:
                data = altered(files[rng.integers(len(files))], rng)
                kind = "image/png"
                if rng.random() < 0.3:
                    kind = "application/json"
                    data = json.dumps({"images": [base64.b64encode(data).decode()]}).encode()
                    data = altered(data, rng) if rng.random() < 0.5 else data
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                connection.request("POST", "/v1/predict", data, {"Content-Type": kind})
                answer = connection.getresponse()
                body = answer.read()
                connection.close()
                counts[answer.status] += 1
                assert answer.status in (200, 400, 422), (seed, body)
                assert answer.status == 200 or not any(
                    word in body for word in (b"Traceback", b" at 0x", b"/site-packages")
                )

        list(clients.map(ask, range(4)))
        print(counts)
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("POST", "/v1/predict", photos[0], PNG)
        assert connection.getresponse().status == 200 and counts[200] and counts[422]
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0 and process.stderr.read() == ""
