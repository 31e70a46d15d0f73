"""A file from the internet, whole or not at all: continued where it was cut, checked before it gets its name."""

import base64
import errno
import hashlib
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import URLError
from urllib.parse import urljoin, urlsplit
from urllib.request import HTTPErrorProcessor, OpenerDirector, ProxyHandler, Request, build_opener

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from vitlab import files
from vitlab.errors import DownloadError, RequestError

MAX_BYTES = 16 << 30
REDIRECTS, RETRIES = 5, 4
TIMEOUT_SECONDS, BACKOFF_SECONDS, PLAIN_SECONDS = 30.0, 1.0, 10.0
QUIET_BYTES = 1 << 20
"""What is no larger comes without a word."""
TOKEN_HOST = "huggingface.co"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PIECE = 1 << 20
_NUMBER = "[0-9]{1,18}"
_AWAY = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN}


class MissingError(DownloadError):
    """The server has no such file."""


class UnreachableError(DownloadError):
    """There is no way to the server, or none that lasts."""


class _CutError(Exception):
    """The connection was cut, or the server is in trouble: worth another attempt."""


class _AwayError(Exception):
    """There is no way to the server from here: not worth another attempt."""


class _AsItIs(HTTPErrorProcessor):
    """Hands over redirects and errors too: following them is decided here, where the address can be checked."""

    def http_response(self, request: Request, response: HTTPResponse) -> HTTPResponse:  # noqa: ARG002
        return response

    https_response = http_response


@dataclass(frozen=True)
class _Part:
    """The bytes that have come so far, and beside them the ETag of what they are a part of."""

    path: Path

    @classmethod
    def of(cls, target: Path) -> "_Part":
        return cls(target.with_name(f".{target.name}.part"))

    @property
    def _tag_path(self) -> Path:
        return self.path.with_suffix(".etag")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def tag(self) -> str:
        """The ETag, "" where there is none by which a part can be continued: a weak one (W/) may be that of other bytes."""
        found = self._tag_path.read_bytes().decode("latin-1") if self._tag_path.is_file() else ""
        return found if re.fullmatch(r'"[\x21\x23-\x7e]*"', found) else ""

    def open(self, start: int, tag: str) -> IO[bytes]:
        """Return the file to write the bytes from `start` on to; the tag changes only while the file is empty."""
        how = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | (os.O_TRUNC if start == 0 else os.O_APPEND)
        file = os.fdopen(os.open(self.path, how, 0o644), "wb" if start == 0 else "ab")
        if start == 0:
            files.write_atomic(self._tag_path, tag.encode())
        return file

    def finish(self, target: Path) -> None:
        files.rename(self.path, target)
        files.remove(self._tag_path)
        files.flush_folder(target.parent)

    def discard(self) -> None:
        files.remove(self.path)
        files.remove(self._tag_path)


@dataclass(frozen=True)
class Known:
    """What is known of a file before it comes: its size and SHA-256 where they were published, else the most it may have.

    With a SHA-256 the address may be http://, because what comes is told by its content.
    """

    size: int | None = None
    sha256: str | None = None
    most: int = MAX_BYTES


def download(url: str, target: Path, check: Callable[[Path], None] | None = None, known: Known | None = None) -> None:
    """Fetch `url` to `target`, which appears only when it is complete; what an earlier attempt left is continued.

    `check` is given the complete file before it gets its name, and raises a RequestError if it is not what was wanted.

    Raises:
        MissingError: the server has no such file.
        UnreachableError: the server cannot be reached; what has come is kept.
        DownloadError: what came is damaged, no file, too large, or not what was asked for.
    """
    part, most, failures, known = _Part.of(target), 0, 0, known or Known()
    while True:
        try:
            _fetch(url, part, known)
            break
        except _AwayError as error:
            raise unreachable(url, target, str(error)) from None
        except _CutError as error:
            failures = 0 if part.size > most else failures + 1
            most = max(most, part.size)
            if failures > RETRIES:
                raise unreachable(url, target, f"{error}, {failures} times") from None
            time.sleep(BACKOFF_SECONDS * 2**failures)
    if check is not None:
        try:
            check(part.path)
        except RequestError as error:
            part.discard()
            raise type(error)(url, error.what, error.remedy) from None
    part.finish(target)


def unreachable(url: str, target: Path, reason: str, remedy: str = "try again") -> UnreachableError:
    """Return the error that says how to get `url` to where it belongs without this program."""
    return UnreachableError(
        url, f"cannot be downloaded ({reason})", f"{remedy}, or fetch it elsewhere and put it at {target}"
    )


def check_address(url: str, where: str, *, local: bool = True, plain: bool = False) -> None:
    """Refuse any address but https://, and http:// to this computer; `local` says whether this computer is allowed at all.

    `plain` allows http:// to any computer.

    Raises:
        DownloadError: the address is of another kind; `where` names what asked for it.
    """
    try:
        parts, _ = urlsplit(url), urlsplit(url).port
    except ValueError as error:
        raise DownloadError(where, f"is no address ({error})", "check it") from None
    here = parts.hostname in LOOPBACK
    if parts.username is not None or parts.password is not None:
        raise DownloadError(where, "has a user name or a password in it", "leave them out")
    if here and not local:
        raise DownloadError(where, f"redirects to this computer ({url})", "give another address")
    if re.search(r"[\s\x00-\x20\x7f]", url):
        raise DownloadError(where, "has a space or a control character in it", "write it as %20")
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and (here or plain))):
        raise DownloadError(where, f"is not safe to download ({url})", "give an address that begins with https://")


def _fetch(url: str, part: _Part, known: Known) -> None:
    """Bring `part` to its full size and compare it with the checksums that the servers named."""
    tag = part.tag
    resumed = {"Range": f"bytes={part.size}-", "If-Range": tag} if part.size and tag else {}
    response, told = _ask(url, resumed, plain=known.sha256 is not None)
    with closing(response):
        if response.status == 416 and _is_all(response, part):
            _compare(url, part, told)
            return
        if response.status == 416 or not _continues(response, part.size if resumed else 0):
            part.discard()
            raise _CutError("the server has no such range")
        start, total = _extent(url, response, part.size if resumed else 0)
        if start and response.headers.get("ETag", tag) != tag:
            part.discard()
            raise _CutError("the file has changed")
        _refuse(url, response)
        _check_size(url, total or 0, known)
        tag = response.headers.get("ETag", "")
        with (
            part.open(start, tag) as file,
            progress("downloading", url, total, start) as advance,
        ):
            _copy(url, response, file, start, lambda size: (_check_size(url, size, known), advance(size)))
            file.flush()
            os.fsync(file.fileno())
    if total is not None and part.size != total:
        raise _CutError(f"the connection was cut after {part.size:,} of {total:,} bytes")
    if known.size is not None and part.size != known.size:
        found = part.size
        part.discard()
        raise DownloadError(
            url, f"has {found:,} bytes, not {known.size:,} as published", "it has changed: see where it is from"
        )
    _compare(url, part, told | ({"sha256": known.sha256} if known.sha256 else {}))


def _ask(url: str, headers: dict[str, str], *, plain: bool) -> tuple[HTTPResponse, dict[str, str]]:
    """Return the answer after redirects, and the checksums named on the way: "md5" or "sha256" to hexadecimal digits."""
    address, local = url, urlsplit(url).hostname in LOOPBACK
    told: dict[str, str] = {}
    for _ in range(REDIRECTS + 1):
        check_address(address, url, local=local, plain=plain)
        response = _open(address, headers)
        told |= _checksums(response.headers)
        if response.status not in (301, 302, 303, 307, 308):
            return _answered(url, response), told
        response.close()
        address = _joined(url, address, response.headers.get("Location", ""))
    raise DownloadError(url, f"redirects more than {REDIRECTS} times", "check the address")


def _joined(url: str, address: str, location: str) -> str:
    try:
        return urljoin(address, location)
    except ValueError as error:
        raise DownloadError(url, f"redirects to what is no address ({error})", "check the address") from None


def _open(address: str, headers: dict[str, str]) -> HTTPResponse:
    parts = urlsplit(address)
    every = {"User-Agent": "vitlab", "Accept-Encoding": "identity"} | headers
    token = os.environ.get("HF_TOKEN", "").strip()
    if parts.hostname == TOKEN_HOST and token:
        if not re.fullmatch(r"[\x21-\x7e]+", token):  # the error that this would be shows the token
            raise DownloadError("HF_TOKEN", "holds a character that no token has", "set it again, or unset it")
        every["Authorization"] = f"Bearer {token}"
    direct = [ProxyHandler({})] if parts.hostname in LOOPBACK else []
    opener: OpenerDirector = build_opener(_AsItIs, *direct)
    try:
        return opener.open(Request(address, headers=every), timeout=TIMEOUT_SECONDS)
    except (OSError, HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        raise _AwayError(f"{parts.hostname} cannot prove who it is: {reason.verify_message}")
    named = f"{parts.hostname}: {getattr(reason, 'strerror', None) or reason or type(reason).__name__}"
    away = isinstance(reason, socket.gaierror | ConnectionRefusedError | ValueError)
    if away or getattr(reason, "errno", None) in _AWAY:
        raise _AwayError(named)
    raise _CutError(named)


def _answered(url: str, response: HTTPResponse) -> HTTPResponse:
    """Return a response that holds the file, or says that the range is wrong; anything else is an error."""
    status = response.status
    if status in (200, 206, 416):
        return response
    response.close()
    if status in (404, 410):
        raise MissingError(url, "there is no such file", "check the address")
    if status in (401, 403):
        remedy = "check the address, or set HF_TOKEN if it is a gated model you may use"
        raise DownloadError(url, "is not there, or may not be read without permission", remedy)
    if status in (408, 429) or status >= 500:
        raise _CutError(f"the server answers {status}")
    raise DownloadError(url, f"the server answers {status}", "check the address")


def _continues(response: HTTPResponse, asked: int) -> bool:
    """Return whether a part of the file that comes is the part from offset `asked` to the end."""
    found = re.fullmatch(f"bytes ({_NUMBER})-({_NUMBER})/({_NUMBER})", response.headers.get("Content-Range", ""))
    if response.status != 206:
        return True
    return found is not None and int(found[1]) == asked and int(found[2]) + 1 == int(found[3])


def _is_all(response: HTTPResponse, part: _Part) -> bool:
    """Return whether there is nothing after `part` because it is the whole file, which was only not given its name."""
    found = re.fullmatch(rf"bytes \*/({_NUMBER})", response.headers.get("Content-Range", ""))
    return found is not None and int(found[1]) == part.size and response.headers.get("ETag", part.tag) == part.tag


def _extent(url: str, response: HTTPResponse, asked: int) -> tuple[int, int | None]:
    """Return the offset of the first byte that comes and the size of the whole file, None if only its end will tell."""
    if response.status == 206:
        return asked, int(response.headers["Content-Range"].rpartition("/")[2])
    length = response.headers.get("Content-Length", "")
    if re.fullmatch(_NUMBER, length):
        return 0, int(length)
    if response.headers.get("Transfer-Encoding", "").lower() == "chunked":
        return 0, None
    raise DownloadError(url, "the server does not say how long the file is", "fetch it from elsewhere")


def _refuse(url: str, response: HTTPResponse) -> None:
    if response.headers.get_content_type() == "text/html":
        raise DownloadError(url, "is a web page, not a file", "give the address of the file itself")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise DownloadError(url, "the server sends it compressed", "fetch it from elsewhere")


def _check_size(url: str, size: int, known: Known) -> None:
    most = known.most if known.size is None else known.size
    if size > most:
        told = f"{most >> 30} GiB" if most >= 1 << 30 else f"{most:,} bytes"
        raise DownloadError(url, f"has more than {told}", "this is not the file that was expected")


def _copy(url: str, response: HTTPResponse, file: IO[bytes], size: int, advance: Callable[[int], object]) -> None:
    while True:
        try:
            piece = response.read(_PIECE)
        except (OSError, HTTPException, ValueError) as error:
            file.flush()
            raise _CutError(f"the connection was cut ({error})") from None
        if not piece:
            return
        if size == 0 and piece.lstrip().startswith(b"<"):
            raise DownloadError(url, "is a web page, not a file", "give the address of the file itself")
        file.write(piece)
        size += len(piece)
        advance(size)


def _checksums(headers: Message) -> dict[str, str]:
    """Return what Google's storage and Hugging Face say about the file; other ETags are not checksums."""
    told: dict[str, str] = {}
    for item in ",".join(headers.get_all("x-goog-hash", [])).split(","):
        name, _, value = item.strip().partition("=")
        if name == "md5" and re.fullmatch("[A-Za-z0-9+/]{22}==", value):
            told["md5"] = base64.b64decode(value).hex()
    linked = headers.get("X-Linked-Etag", "").strip('"')
    return told | ({"sha256": linked} if re.fullmatch("[0-9a-f]{64}", linked) else {})


def _compare(url: str, part: _Part, told: dict[str, str]) -> None:
    for name, digest in told.items():
        with part.path.open("rb") as file:
            found = hashlib.file_digest(file, name).hexdigest()
        if found != digest:
            part.discard()
            raise DownloadError(url, f"came damaged (its {name} is {found}, not {digest})", "try again")


@contextmanager
def progress(doing: str, what: str, total: int | None, start: int = 0) -> Generator[Callable[[int], None]]:
    """Show a bar in a terminal and a line now and then in a log; give a function that takes the bytes so far.

    `doing` is a word like "downloading"; `total` is in bytes, None where only the end will tell.
    """
    console, last = Console(stderr=True, soft_wrap=True), time.monotonic()
    if total is not None and total - start <= QUIET_BYTES:
        yield lambda _: None
        return
    told = "" if total is None else f", {total / 2**20:,.0f} MiB" + (f" from {start / 2**20:,.0f} on" if start else "")
    console.print(f"{doing} {what}{told}", highlight=False, markup=False)
    columns = (TextColumn(doing), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total, completed=start)

        def advance(size: int) -> None:
            nonlocal last
            bar.update(task, completed=size)
            if not console.is_terminal and time.monotonic() - last > PLAIN_SECONDS:
                last = time.monotonic()
                of = "" if total is None else f" of {total / 2**20:,.0f}"
                console.print(f"{doing}: {size / 2**20:,.0f}{of} MiB", highlight=False)

        yield advance
