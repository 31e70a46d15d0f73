"""A server as a process of its own, and clients that load it."""

import http.client
import json
import subprocess
import sys
import threading
from contextlib import contextmanager

from tests.end_to_end.conftest import environment
from tests.serve.conftest import PNG


@contextmanager
def started(model, port=0, *options):
    command = [sys.executable, "-m", "vitlab", "serve", str(model), "--port", str(port), "--json", *options]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process, json.loads(process.stdout.readline() or "{}")
    finally:
        process.kill()
        process.communicate()


class Load:
    """Clients that ask one after the other until nobody listens, half of them on connections that they keep."""

    def __init__(self, port, photo, enough=60):
        self.port, self.photo, self.least = port, photo, enough
        self.answers, self.lost, self.enough = [], [], threading.Event()

    def run(self, number):
        connection = None
        while True:
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                connection.connect() if connection.sock is None else None
            except ConnectionRefusedError:
                return
            try:
                connection.request("POST", "/v1/predict", self.photo, PNG)
                answer = connection.getresponse()
                self.answers.append((answer.status, answer.read()))
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(repr(error))
                return
            if number % 2 or answer.will_close:
                connection.close()
                connection = None
            if len(self.answers) >= self.least:
                self.enough.set()
