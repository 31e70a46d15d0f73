"""How a server stops: a process of its own, under load."""

import http.client
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.serve.conftest import PNG
from tests.serve.process import Load, started


@pytest.mark.slow
def test_an_interruption_under_load_loses_no_request_and_is_said(model, photos):
    with started(model) as (process, said), ThreadPoolExecutor(12) as clients:
        assert [one["name"] for one in said["models"]] == ["pets"]
        load = Load(int(said["url"].rpartition(":")[2]), photos[0])
        running = [clients.submit(load.run, number) for number in range(12)]
        assert load.enough.wait(60)
        process.send_signal(signal.SIGINT)
        for one in running:
            one.result()
        assert process.wait(30) == 130
        assert load.lost == [] and len(set(load.answers)) == 1 and load.answers[0][0] == 200
        assert process.stderr.read() == "interrupted\n"


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(model, photos):
    with started(model, 0, "--access-log") as (process, said):
        address = said["url"].removeprefix("http://")
        connection = http.client.HTTPConnection(address)
        connection.request("POST", "/v1/predict?top=1", photos[0], PNG)
        connection.getresponse().read()
        connection.putrequest("POST", "/v1/predict")  # a request that does not come to its end
        connection.putheader("Content-Type", "image/png")
        connection.putheader("Content-Length", "10")
        connection.endheaders()
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 1
        said = process.stderr.read()
        assert "127.0.0.1 POST /v1/predict 200 " in said and "Traceback" not in said
        assert "ended before every request was answered" in said.splitlines()[-1]
        connection.close()
