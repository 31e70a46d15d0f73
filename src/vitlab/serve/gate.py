"""Gate: what every request passes: is it meant for this server, how is it counted, and what is said when something fails."""

import ipaddress
import json
import logging
import time
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitlab.errors import one_line
from vitlab.serve.settings import ServeSettings

if TYPE_CHECKING:
    from vitlab.serve.service import Service

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_ANY = frozenset({"0.0.0.0", "::", ""})
LEFT = 499  # no status that anybody sees: the client had gone
log = logging.getLogger("vitlab")
access = logging.getLogger("vitlab.access")


class Gate:
    """Lets requests to the server's own names through, logs and counts them all; the last answers to each connection say so."""

    def __init__(self, app: ASGIApp, service: "Service") -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.monotonic(), LEFT

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.service.stopping:
                    MutableHeaders(raw=message["headers"])["Connection"] = "close"
            await send(message)

        try:
            refusal = refused(scope, self.service.settings)
            if refusal is None:
                await self.app(scope, receive, note)
            else:
                await _say(note, *refusal)
        except Exception:
            log.exception("a request failed")
            if status == LEFT:
                await _say(note, HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed; its log says why")
        finally:
            self._count(scope, status, time.monotonic() - begun)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        path = getattr(scope.get("route"), "path", "other")
        self.service.metrics.add(path, status, seconds)
        if self.service.settings.access_log:
            client = (scope.get("client") or ["-"])[0]
            what = one_line(f"{scope['method']} {scope['path']}")
            access.info("%s %s %d %.1f ms", client, what, status, 1000 * seconds)


def refused(scope: Scope, settings: ServeSettings) -> tuple[HTTPStatus, str] | None:
    """Return why a request is not for this server, None when it is.

    A page of another site can make a browser ask a server of this computer: under that site's name when it lets its name point
    here (DNS rebinding), or from its own origin.
    """
    headers = Headers(scope=scope)
    host, origin = headers.get("host", ""), headers.get("origin")
    if not _is_ours(_name_in(f"//{host}"), settings):
        return HTTPStatus.FORBIDDEN, "this host is not served here; vitlab serve --allow-host NAME allows it"
    if origin is not None and origin.partition("://")[2] != host and _name_in(origin) not in _allowed(settings):
        return HTTPStatus.FORBIDDEN, "this origin may not ask; vitlab serve --allow-host NAME allows it"
    path = scope["path"]
    if ".." in path.split("/") or "\\" in path or "\0" in path:
        return HTTPStatus.NOT_FOUND, "there is nothing at this address"
    return None


def _name_in(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _allowed(settings: ServeSettings) -> set[str]:
    return set(map(str.lower, settings.allow_hosts))


def _is_ours(name: str | None, settings: ServeSettings) -> bool:
    if name is None:
        return False
    if name in LOOPBACK or name == settings.host.lower() or name in _allowed(settings):
        return True
    return settings.host in _ANY and _is_address(name)  # a name points wherever its owner likes, a number does not


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _say(send: Send, status: HTTPStatus, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": body})
