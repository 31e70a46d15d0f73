"""Faults at a chosen one of the operations that change a disk (the five functions at the top of vitlab.files)."""

import errno
import os

from vitlab import files

OPERATIONS = ("write_bytes", "flush_folder", "rename", "make_folder", "remove")
WHEN = ("before", "half", "after")


class Fault:
    """Counts the operations while it is on; operation number `at` (from 1) takes place not at all, by half, or whole.

    Then it fails with the error `code`, or with None the process ends at once, as by kill -9.
    """

    def __init__(self, monkeypatch, at=0, when="before", code=errno.EIO):
        self.at, self.when, self.code = at, when, code
        self.names = []
        for name in OPERATIONS:
            monkeypatch.setattr(files, name, self._counted(name, getattr(files, name)))

    def _counted(self, name, real):
        def operation(*args):
            self.names.append(name)
            if len(self.names) != self.at:
                return real(*args)
            if self.when == "after":
                real(*args)
            elif self.when == "half":
                _half(name, *args)
            if self.code is None:
                os._exit(9)
            raise OSError(self.code, os.strerror(self.code))

        return operation


def _half(name, path, data=b""):
    """Do a part of those operations that are not one call to the system."""
    if name == "write_bytes":
        path.write_bytes(data[: len(data) // 2])
    elif name == "remove" and path.is_dir():
        for file in sorted(path.iterdir())[:2]:
            file.unlink()


def litter(folder):
    """Return what an interrupted write has left below `folder`."""
    return [path for path in folder.rglob("*") if path.name.startswith(".") or path.name.endswith(".part")]
