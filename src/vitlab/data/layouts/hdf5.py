"""HDF5 files: the arrays in them that are whole and their own; nothing outside such a file is ever read for it."""

import importlib
import math
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitlab.data.layouts.examples import in_short, missing
from vitlab.errors import DataError

_MAX_RATIO, _SMALL = 1000, 1 << 26  # of an array to its file, and bytes that a part of any may have


def find_array(path: Path, name: str) -> Any:
    """Return the array `name` of an HDF5 file, read when it is indexed; every process opens the file for itself.

    Raises:
        DataError: there is none, its values are in other files, it claims more than the file can hold, or h5py is not installed.
    """
    return _found(path, name, os.getpid())


@lru_cache(maxsize=8)
def _found(path: Path, name: str, process: int) -> Any:
    del process
    try:
        open_file: Callable[[Path, str], Any] = importlib.import_module("h5py").File
    except ImportError:
        raise DataError(path, "needs h5py to be read", "run `pip install 'vitlab[hdf5]'`") from None
    try:
        file = open_file(path, "r")
        link = file.get(name, getlink=True)
        if hasattr(link, "path"):  # a link, perhaps into another file
            raise KeyError("it is a link")
        found = file[name]
        if not getattr(found, "shape", None):
            raise KeyError("it is a group, or empty")
        if found.external or found.is_virtual:  # any file of this machine would be read as pixels
            raise KeyError("its values are in other files")
        if max(found.nbytes / _MAX_RATIO, math.prod(found.chunks or ())) > max(_SMALL, path.stat().st_size):
            raise KeyError(f"it claims {found.nbytes:,} bytes")
        return found
    except FileNotFoundError as error:
        raise missing(path, error) from None
    except (OSError, LookupError, ValueError, TypeError, RuntimeError) as error:
        raise DataError(path, f"holds no array '{name}' ({in_short(error)})", "fetch it again") from None


def read_part(path: Path, array: Any, place: int | slice) -> NDArray[Any]:
    """Return a part of an array of the HDF5 file `path`.

    Raises:
        DataError: that part of the file is damaged.
    """
    try:
        return np.asarray(array[place])
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(path, f"cannot be read ({in_short(error)})", "fetch it again") from None
