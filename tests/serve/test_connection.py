import json
import time
from contextlib import ExitStack, suppress

import pytest

from tests.serve.conftest import PNG, read_all, serving

HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"


def whole(data, *more):
    return HEAD + b"Content-Length: %d\r\n" % len(data) + b"".join(more) + b"\r\n" + data


def chunk(data):
    return b"%x\r\n" % len(data) + data + b"\r\n"


def status(answer):
    return int(answer.split(b" ", 2)[1])


def reason(answer):
    return json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


def answers(line, count):
    """Return the statuses of the next answers on a connection that stays open."""
    found, text = [], b""
    while len(found) < count:
        text += line.recv(65536)
        head, gap, rest = text.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0) if gap else 0
        if gap and len(rest) >= length:
            found, text = [*found, status(head)], rest[length:]
    return found


def test_a_body_that_says_it_is_too_long_is_refused_before_it_comes(strict):
    with strict.open() as line:
        line.sendall(HEAD + b"Content-Length: 20001\r\n\r\n")
        assert answers(line, 1) == [413]
        line.sendall(bytes(20001) + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answers(line, 1) == [200]  # the connection is still good


def test_a_body_that_waits_for_leave_does_not_get_it_when_it_is_too_long(strict):
    with strict.open() as line:
        line.sendall(HEAD + b"Content-Length: 20001\r\nExpect: 100-continue\r\n\r\n")
        assert answers(line, 1) == [413]


def test_a_body_of_chunks_is_refused_as_soon_as_it_is_too_long(strict):
    with strict.open() as line:
        line.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(bytes(9000)) * 3)
        assert answers(line, 1) == [413]
    assert strict.service.bodies.held == 0


def test_a_body_of_chunks_is_read(strict, photos):
    with strict.open() as line:
        parts = [chunk(photos[0][at : at + 7]) for at in range(0, len(photos[0]), 7)]
        line.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(parts) + b"0\r\n\r\n")
        assert answers(line, 1) == [200]


def test_requests_that_follow_each_other_at_once_are_answered_in_order(strict, photos):
    with strict.open() as line:
        line.sendall(whole(photos[0]) + whole(b"GIF89a") + whole(photos[1]))
        assert answers(line, 3) == [200, 422, 200]


def is_ended(line, data):
    """Send `data` again and again, and return whether the other side ends the connection."""
    for _ in range(300):
        try:
            with suppress(BlockingIOError):  # the other side has stopped to read
                line.send(data)
        except (BrokenPipeError, ConnectionResetError):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    "text",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",  # no Host
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: other\r\n\r\n",
        b"GET /" + b"a" * 100_000,
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 100_000,
    ],
    ids=lambda text: repr(text[:40]),
)
def test_what_is_no_http_gets_a_reason(strict, text):
    with strict.open() as line:
        line.sendall(text)
        answer = read_all(line)
        assert status(answer) == 400 and reason(answer.removesuffix(b"<reset>"))


@pytest.mark.parametrize("start", [b"", b"GET /healthz HT", HEAD, HEAD + b"Content-Length: 100\r\n\r\n\x89PNG"])
def test_what_stops_in_the_middle_is_ended(strict, start):
    with strict.open() as line:
        line.sendall(start)
        begun = time.monotonic()
        answer = read_all(line)
        assert time.monotonic() - begun < 20
        assert not answer if not start else (status(answer) == 408 and reason(answer))
    assert strict.service.bodies.held == 0


def test_a_trickle_is_ended_too(strict):
    with strict.open() as line:
        line.sendall(HEAD)
        assert is_ended(line, b"A: b\r\n")


def test_slow_clients_keep_nobody_out(strict, photos):
    """More of them than there may be connections, and each sends a byte now and then."""
    expected = strict.predict(photos[0]).body
    with ExitStack() as stack:
        slow = [stack.enter_context(strict.open()) for _ in range(60)]
        for number, line in enumerate(slow):
            line.sendall(HEAD[: number % len(HEAD)])
        for _ in range(5):
            assert strict.predict(photos[0]).body == expected
            for line in slow:
                with suppress(OSError):
                    line.sendall(b"x")
        assert len(strict.service.models) == 2


def test_a_client_that_does_not_read_is_given_up(predictors, photos):
    limits = {"read_seconds": 0.5, "idle_seconds": 0.5, "answer_seconds": 0.5}
    with serving(predictors, decoders=1, **limits) as site, site.open() as line:
        line.setblocking(False)
        request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50
        assert is_ended(line, request)


def test_a_client_that_leaves_is_dropped_and_leaves_nothing(predictors, photos):
    with serving(predictors, decoders=1, batch_seconds=1.0) as site:
        first = site.service.models["first"]
        for _ in range(3):
            with site.open() as line:
                line.sendall(whole(photos[0]))
                while not first.waiting:
                    time.sleep(0.001)
        waited = time.monotonic() + 10
        while first.accepted or site.service.bodies.held:
            assert time.monotonic() < waited
            time.sleep(0.01)
        before = first.images
        assert site.predict(photos[0]).status == 200
        assert first.images == before + 1 <= 3
        assert b'status="499"} 3' in site.ask(path="/metrics").body


def test_what_is_too_much_is_refused_with_when_to_come_back(predictors, photos):
    with serving(predictors, decoders=1, max_waiting=3) as site:
        answer = site.predict_json(*photos[:4])
        assert answer.status == 503 and answer.headers["retry-after"] == "1" and answer.error
        assert site.predict_json(*photos[:3]).status == 200


def test_bodies_together_are_bounded(predictors, photos):
    with serving(predictors, decoders=1, max_buffered=5_000) as site:
        answer = site.predict(bytes(6_000))
        assert answer.status == 503 and answer.headers["retry-after"] == "1" and answer.error
        assert site.predict(photos[0]).status == 200


def test_an_answer_that_takes_too_long_is_given_up(predictors, photos):
    with serving(predictors, decoders=1, answer_seconds=0.2, batch_seconds=1.5) as site:
        answer = site.predict(photos[0])
        assert answer.status == 504 and "0.2 seconds" in answer.error
        assert site.predict(photos[0], headers=PNG).status == 504
