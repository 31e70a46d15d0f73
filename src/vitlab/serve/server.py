"""Server: runs the application on a socket, until it is told to stop; then what was accepted is finished."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Generator
from functools import partial
from types import FrameType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from vitlab.errors import RequestError, VitlabError
from vitlab.serve.connection import Connection
from vitlab.serve.gate import access
from vitlab.serve.service import Service
from vitlab.serve.settings import ServeSettings

MAX_HEAD_BYTES = 16 << 10
"""Of the head of a request."""
_LINGER = 0.5  # seconds in which a request that is on its way on an open connection still arrives


def listen(settings: ServeSettings) -> socket.socket:
    """Return a socket at the address of `settings`, which takes no connections yet.

    Raises:
        RequestError: the address is not of this computer, or in use.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise RequestError("--host", f"'{settings.host}' is unknown ({error.strerror})", "use 127.0.0.1") from None
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind(address)
    except OSError as error:
        opened.close()
        what = f"cannot listen at {settings.host} port {settings.port} ({error.strerror})"
        raise RequestError("--port", what, "choose another, or 0 for any that is free") from None
    return opened


def run(app: FastAPI, opened: socket.socket, started: Callable[[], None]) -> None:
    """Serve `app`, made by `create_app`, on a socket of `listen`; `started` is called when it takes requests.

    SIGTERM and Ctrl-C stop it: connections are no longer taken, and every request that was is answered. A second one ends it
    at once.

    Raises:
        KeyboardInterrupt: it was Ctrl-C.
        VitlabError: it was ended before everything was answered.
    """
    service = cast(Service, app.state.service)
    if service.settings.access_log:
        _log_access()
    config = uvicorn.Config(
        app,
        http=cast(Any, partial(Connection, service.settings)),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        log_level="critical",  # what fails is said by the gate, or raised from here
        access_log=False,
        server_header=False,
        timeout_keep_alive=int(service.settings.idle_seconds) + 1,  # the connection's own limit comes first
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
    )
    server = _Server(config, service, started)
    with contextlib.suppress(SystemExit):  # what uvicorn makes of an application that does not start
        server.run([opened])
    if service.failed is not None:
        raise service.failed
    if server.force_exit:
        raise VitlabError("serve", "was ended before every request was answered")
    if server.signals[:1] == [signal.SIGINT]:
        raise KeyboardInterrupt


def _log_access() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    access.addHandler(handler)
    access.setLevel(logging.INFO)
    access.propagate = False


class _Server(uvicorn.Server):
    """Uvicorn's server, with an end that loses nothing."""

    def __init__(self, config: uvicorn.Config, service: Service, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._started = service, started
        self.signals: list[int] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Load, then take connections."""
        await super().startup(sockets)
        if self.started:
            self._started()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Hear signals meanwhile, and leave it to the caller what they mean in the end."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; at once when told again."""
        del frame
        self.force_exit = bool(self.signals)
        self.signals.append(sig)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, answer what has come on open ones, and say on each that it was the last time."""
        self._service.stopping = True
        for server in self.servers:
            server.close()
        if not self.force_exit:
            await asyncio.sleep(_LINGER)
        await super().shutdown(sockets)
