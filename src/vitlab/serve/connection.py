"""Connection: HTTP on one connection, each part of it within its time, however slowly the other side sends or reads."""

import asyncio
import json
import time
from enum import Enum
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from vitlab.serve.settings import ServeSettings

_GRACE = 1.0  # seconds in which the application itself may answer that a body came too late


class _Phase(Enum):
    IDLE = "nothing of a request has come"
    READING = "a request is coming"
    ANSWERING = "a request is here, and not all of its answer is sent"


class Connection(H11Protocol):
    """A connection that is closed when a request does not arrive, or its answer is not taken, in time.

    When there are as many as there may be, a new one takes the place of the one that has been sending for longest without a whole
    request: those who send slowly keep nobody out.
    """

    def __init__(self, settings: ServeSettings, **given: Any) -> None:
        super().__init__(**given)
        self._settings = settings
        self._limits = {
            _Phase.IDLE: settings.idle_seconds,
            _Phase.READING: settings.read_seconds + _GRACE,
            _Phase.ANSWERING: settings.answer_seconds + settings.read_seconds,
        }
        self._timer: asyncio.TimerHandle | None = None
        self.phase = _Phase.IDLE
        self.since: float = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Begin, if there is room."""
        others = [one for one in self.connections if isinstance(one, Connection)]
        super().connection_made(transport)
        self._enter(_Phase.IDLE)
        if len(others) >= self._settings.max_connections:
            slow = [one for one in others if one.phase is not _Phase.ANSWERING]
            if slow:
                min(slow, key=_since).transport.abort()
            else:
                self._refuse(503, "there are as many connections as there may be", b"retry-after: 1\r\n")

    def data_received(self, data: bytes) -> None:
        """Take in a part of a request."""
        if self.transport.is_closing():
            return
        if self.phase is _Phase.IDLE:
            self._enter(_Phase.READING)
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Wait for the next request; it may be here already."""
        self._enter(_Phase.IDLE)
        super().on_response_complete()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(400, msg.rstrip("."))

    def _look(self) -> None:
        if self.cycle and not self.cycle.response_complete:
            arriving = self.conn.their_state is h11.SEND_BODY
            self._enter(_Phase.READING if arriving else _Phase.ANSWERING)
        elif self.conn.their_state is h11.SEND_BODY:
            self._enter(_Phase.READING)  # the rest of a body that was refused
        elif not self.conn.trailing_data[0]:
            self._enter(_Phase.IDLE)

    def _enter(self, phase: _Phase) -> None:
        if self._timer and phase is self.phase:
            return
        if self._timer:
            self._timer.cancel()
        self.phase, self.since = phase, time.monotonic()
        self._timer = self.loop.call_later(self._limits[phase], self._late)

    def _late(self) -> None:
        waiting = not self.cycle or self.cycle.response_complete
        if self.transport.is_closing() or self.phase is _Phase.ANSWERING:
            self.transport.abort()  # its answer is not read
        elif self.phase is _Phase.READING and waiting:
            self._refuse(408, "the request did not arrive in time")
        else:
            self.transport.close()
        self._timer = self.loop.call_later(_GRACE, self.transport.abort)

    def _refuse(self, status: int, reason: str, more: bytes = b"") -> None:
        """Answer outside of any request, and close."""
        body = json.dumps({"error": reason}).encode()
        head = b"HTTP/1.1 %d \r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n"
        self.transport.write(head % (status, len(body)) + more + b"\r\n" + body)
        self.transport.close()


def _since(connection: Connection) -> float:
    return connection.since
