"""Server: runs the application on a socket, until it is told to stop; then what was accepted is finished."""

import asyncio
import contextlib
import logging
import signal
import socket
import threading
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


def _log_access() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    access.addHandler(handler)
    access.setLevel(logging.INFO)
    access.propagate = False


class Server(uvicorn.Server):
    """Serves `app`, made by `create_app`, on a socket of `listen`; `started` is called when it takes requests."""

    def __init__(self, app: FastAPI, opened: socket.socket, started: Callable[[], None]) -> None:
        self._service = cast(Service, app.state.service)
        settings = self._service.settings
        config = uvicorn.Config(
            app,
            http=cast(Any, partial(Connection, settings)),
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            log_level="critical",  # what fails is said by the gate, or raised from here
            access_log=False,
            server_header=False,
            timeout_keep_alive=int(settings.idle_seconds) + 1,  # the connection's own limit comes first
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )
        super().__init__(config)
        self._opened, self._started = opened, started
        self._signals: list[int] = []
        if settings.access_log:
            _log_access()

    def run_until_stopped(self) -> None:
        """Serve until SIGTERM, Ctrl-C, or a call of `stop`; then take no more connections, and answer every request that came.

        A second signal ends it at once.

        Raises:
            KeyboardInterrupt: it was Ctrl-C.
            VitlabError: it was ended before everything was answered.
            Exception: what kept it from starting.
        """
        with contextlib.suppress(SystemExit):  # what uvicorn makes of an application that does not start
            self.run([self._opened])
        if self._service.failed is not None:
            raise self._service.failed
        if self.force_exit:
            raise VitlabError("serve", "was ended before every request was answered")
        if self._signals[:1] == [signal.SIGINT]:
            raise KeyboardInterrupt

    def stop(self) -> None:
        """Stop when everything is answered."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Load, then take connections."""
        await super().startup(sockets)
        self._started()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Hear signals meanwhile, if this is the main thread, and leave it to the caller what they mean in the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; at once when told again."""
        del frame
        self.force_exit = bool(self._signals)
        self._signals.append(sig)
        self.stop()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, answer what has come on open ones, and say on each that it was the last time."""
        self._service.stopping = True
        late = list(self._let_in())
        for server in self.servers:
            server.close()
        for one in late:
            await asyncio.get_running_loop().connect_accepted_socket(self._connection, one)
        await asyncio.sleep(0.0 if self.force_exit or not self.server_state.connections else _LINGER)
        await super().shutdown(sockets)

    def _let_in(self) -> Generator[socket.socket]:
        """Yield the connections that the kernel has made and nobody has accepted: closing the listener would reset them."""
        with contextlib.suppress(BlockingIOError):
            while True:
                yield self._opened.accept()[0]

    def _connection(self) -> Connection:
        settings, state = self._service.settings, self.lifespan.state
        return Connection(settings, config=self.config, server_state=self.server_state, app_state=state)
