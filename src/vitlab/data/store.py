"""Store: pieces of files by name, from a local folder or, through fsspec, from an object store."""

import os
import re
import stat
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from vitlab.config import nearest
from vitlab.errors import DataError

SCHEMES = ("s3", "gs", "gcs", "az", "abfs", "abfss", "hf", "http", "https", "hdfs", "sftp", "memory")
"""The kinds of address that are followed; fsspec knows others, some of which run commands or unpack what they find."""
OPEN_FILES = 64
RETRIES, BACKOFF_SECONDS = 3, 0.5

T = TypeVar("T")


@runtime_checkable
class Store(Protocol):
    """Files below one place, read by pieces. May be used after a fork, in both processes."""

    def read(self, name: str, start: int, size: int) -> bytes:
        """Return `size` bytes of the file `name` from `start` on, fewer where it ends before.

        Raises:
            FileNotFoundError: there is no such file.
            DataError: it cannot be read for another reason.
        """
        ...

    def has(self, name: str) -> bool:
        """Return whether there is a file `name`."""
        ...

    def path(self, name: str) -> str:
        """Return the whole path or address of the file `name`, for errors."""
        ...


def is_address(name: str) -> bool:
    """Return whether `name` is an address ("s3://bucket/photos") and no path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name) is not None


def open_store(place: str) -> Store:
    """Return the store at the path or address `place`.

    Raises:
        DataError: the address is of no kind that is followed.
    """
    return Remote(place) if is_address(place) else Local(Path(place))


class _Handle:
    """An open file that closes when its last user lets go of it."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a FIFO must not block
        if not stat.S_ISREG(os.fstat(self.number).st_mode):
            raise OSError("it is no regular file")

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class Local:
    """Files in a local folder; the last used stay open. Reading moves no position, so a fork or a thread disturbs nobody."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._handles: OrderedDict[str, _Handle] = OrderedDict()

    def read(self, name: str, start: int, size: int) -> bytes:
        """Return `size` bytes of the file `name` from `start` on, as `Store.read`."""
        try:
            handle = self._handles.pop(name, None) or _Handle(self.root / name)
            self._handles[name] = handle
            if len(self._handles) > OPEN_FILES:
                self._handles.popitem(last=False)
            left = os.fstat(handle.number).st_size - start
            return os.pread(handle.number, min(size, left), start) if left > 0 else b""
        except FileNotFoundError:
            raise
        except OSError as error:
            what = f"cannot be read ({error.strerror or error})"
            raise DataError(self.path(name), what, "check its permissions and the disk") from None

    def has(self, name: str) -> bool:
        """Return whether there is a file `name`."""
        return (self.root / name).is_file()

    def path(self, name: str) -> str:
        """Return the path of the file `name`."""
        return str(self.root / name)


class Remote:
    """Files below an address, by byte ranges; every process has a connection of its own."""

    def __init__(self, address: str) -> None:
        scheme = address.partition("://")[0].lower()
        if scheme not in SCHEMES or "::" in address:
            remedy = nearest(scheme, SCHEMES) if scheme not in SCHEMES else "give a plain address without '::'"
            raise DataError(address, "is an address of a kind that is not read", remedy)
        self.address = address.rstrip("/")
        self._process = 0
        self._files: Any = None
        self._root = ""

    def read(self, name: str, start: int, size: int) -> bytes:
        """Return `size` bytes of the file `name` from `start` on, as `Store.read`; a failure is tried again some times."""
        data = self._tried(name, lambda files, path: files.cat_file(path, start, start + size))
        if len(data) > size:
            raise DataError(self.path(name), "its server sends whole files, not parts of them", "use another server")
        return data

    def has(self, name: str) -> bool:
        """Return whether there is a file `name`; where that may not be asked, there is none."""
        return self._tried(name, lambda files, path: bool(files.exists(path)))

    def path(self, name: str) -> str:
        """Return the address of the file `name`."""
        return f"{self.address}/{name}"

    def _tried(self, name: str, ask: Callable[[Any, str], T]) -> T:
        self._connect()
        for attempt in range(RETRIES + 1):
            try:
                return ask(self._files, f"{self._root}/{name}")
            except FileNotFoundError:
                raise
            except Exception as error:  # every kind of store has exceptions of its own
                if attempt == RETRIES or isinstance(error, PermissionError | ImportError):
                    reason = " ".join(str(error).split()) or type(error).__name__
                    remedy = "check the address, your permissions and the connection"
                    raise DataError(self.path(name), f"cannot be read ({reason})", remedy) from None
            time.sleep(BACKOFF_SECONDS * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _connect(self) -> None:
        """Connect, once a process: a connection does not survive a fork."""
        if self._process == os.getpid():
            return
        import fsspec.core  # slow to import, and needed for addresses only

        try:
            self._files, self._root = fsspec.core.url_to_fs(self.address, skip_instance_cache=True)
        except ImportError as error:
            raise DataError(self.address, f"needs another package ({error})", "install it with pip") from None
        except Exception as error:  # as above
            what = f"cannot be reached ({' '.join(str(error).split())})"
            raise DataError(self.address, what, "check the address and your permissions") from None
        self._root = self._root.rstrip("/")
        self._process = os.getpid()
