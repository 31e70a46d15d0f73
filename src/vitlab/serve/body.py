"""Body: the images in a request, read within bounds on bytes, time and number; never an address to fetch them from."""

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated

from fastapi import HTTPException, Request
from pydantic import Field, ValidationError

from vitlab.config import Settings
from vitlab.serve.settings import ServeSettings

JSON, BYTES = "application/json", "application/octet-stream"
_MARKS = b"[{,:"
_ADDRESSES = (b"http://", b"https://", b"ftp://", b"file:", b"data:", b"s3://", b"gs://", b"hf://")


class Images(Settings):
    """Several images: of each file its bytes in base64."""

    images: Annotated[tuple[str, ...], Field(min_length=1)]


class Bodies:
    """Reads the bodies of requests; `held` is how many bytes of them there are in memory now."""

    def __init__(self, settings: ServeSettings) -> None:
        self.settings, self.held = settings, 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncGenerator[bytes]:
        """Hold the body of `request` meanwhile.

        Raises:
            HTTPException: it is too long (413), arrives too slowly (408), or all bodies together are too long (503).
            ClientDisconnect: the client has left.
        """
        if int(request.headers.get("content-length", 0)) > self.settings.max_bytes:
            raise self._too_long()
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.settings.read_seconds):
                async for part in request.stream():
                    size, self.held = size + len(part), self.held + len(part)
                    if size > self.settings.max_bytes:
                        raise self._too_long()
                    if self.held > self.settings.max_buffered:
                        raise busy("the server holds as many bytes of requests as it may")
                    parts.append(part)
            yield b"".join(parts)
        except TimeoutError:
            reason = f"the body did not arrive within {self.settings.read_seconds:g} seconds"
            raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, reason, {"Connection": "close"}) from None
        finally:
            self.held -= size

    def _too_long(self) -> HTTPException:
        reason = f"the body is longer than {self.settings.max_bytes:,} bytes"
        return HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason)


def kind_of(request: Request) -> str:
    """Return the content type of a request that may hold images.

    Raises:
        HTTPException: it is another type, or compressed (415).
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.headers.get("content-encoding", "identity") != "identity":
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body is compressed; send it as it is")
    if kind not in (JSON, BYTES) and not kind.startswith("image/"):
        what = f"the content type is {kind[:100]!r}" if kind else "there is no content type"
        remedy = f"send the bytes of an image as image/* or {BYTES}, or base64 of several as {JSON}"
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{what}; {remedy}")
    return kind


def images_in(body: bytes, kind: str, most: int) -> list[bytes]:
    """Return the images in a body of the content type `kind`: one as it is, or at most `most` in JSON.

    Raises:
        HTTPException: there is none, they are too many, or not base64 (400).
    """
    if kind == JSON:
        return _images_in_json(body, most)
    if not body:
        raise _wrong("the body is empty; send the bytes of an image")
    if body[:16].lstrip().lower().startswith(_ADDRESSES):
        raise _wrong("the body is an address, and nothing is fetched; send the bytes of the image")
    return [body]


def _images_in_json(body: bytes, most: int) -> list[bytes]:
    if (
        sum(body.count(mark) for mark in _MARKS) > most + 8
    ):  # counted before anything is made of them: depth too is bounded
        raise _wrong(f"the JSON holds more than {most} images, or other things")
    try:
        found = Images.model_validate_json(body).images
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = "".join(f" at {part}" for part in first["loc"][:2])[:100]
        raise _wrong(f'the body is not {{"images": ["<base64>", …]}}: {first["msg"][:200]}{place}') from None
    if len(found) > most:
        raise _wrong(f"there are {len(found)} images, more than {most}")
    return [_decoded(text, index) for index, text in enumerate(found)]


def _decoded(text: str, index: int) -> bytes:
    if text[:16].lstrip().lower().encode(errors="replace").startswith(_ADDRESSES):
        raise _wrong(f"images[{index}] is an address, and nothing is fetched; give the file's bytes in base64")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _wrong(f"images[{index}] is not base64") from None


def _wrong(reason: str) -> HTTPException:
    return HTTPException(HTTPStatus.BAD_REQUEST, reason)


def busy(reason: str) -> HTTPException:
    """Return the answer to a request for which there is no room now."""
    return HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, f"{reason}; ask again in a moment", {"Retry-After": "1"})
