"""What a file of weights is, told by its content; its arrays, read without ever executing anything."""

import zipfile
import zlib
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from vitlab.errors import WeightsError

Format = Literal["safetensors", "npz"]
Arrays = dict[str, NDArray[np.generic]]

MAX_TENSORS = 20_000
MAX_HEADER_BYTES = 8 << 20


def format_of(path: Path) -> Format:
    """Return the format of the file `path` by its first bytes.

    Raises:
        WeightsError: there is no such file, or it holds no weights that can be read safely.
    """
    try:
        with path.open("rb") as file:
            head = file.read(32)
    except OSError as error:
        raise WeightsError(path, f"cannot be read ({error.strerror})", "check the path") from None
    if head[:4] == b"PK\x03\x04":
        return _zip_format(path)
    size = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and size <= MAX_HEADER_BYTES:
        return "safetensors"
    if head[8:9] == b"{":
        raise WeightsError(
            path, f"its header claims {size:,} bytes, more than {MAX_HEADER_BYTES:,}", "get the file again"
        )
    if head[:1] == b"\x80":
        raise WeightsError(
            path, "is a pickle, which can run code when it is read", "convert it to safetensors where it came from"
        )
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError(path, "is a git-lfs pointer, not the weights", "run `git lfs pull`")
    raise WeightsError(path, "holds no weights", "give a .npz or .safetensors file, or a run folder")


def _zip_format(path: Path) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, RuntimeError) as error:
        raise WeightsError(path, f"is a damaged zip file ({error})", "get the file again") from None
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    if any(name.endswith("data.pkl") for name in names):
        raise WeightsError(
            path,
            "is a PyTorch pickle, which can run code when it is read",
            "convert it to safetensors where it came from",
        )
    raise WeightsError(path, "is a zip file without arrays", "give a .npz or .safetensors file, or a run folder")


def npz_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the declared shape of every array in an .npz file; no array is read.

    Raises:
        WeightsError: the file is damaged, holds objects instead of numbers, or lies about its sizes.
    """
    with _opened(path) as archive:
        members = archive.infolist()
        if len(members) > MAX_TENSORS:
            raise WeightsError(path, f"holds {len(members):,} arrays, more than {MAX_TENSORS:,}", "this is no model")
        return {member.filename.removesuffix(".npy"): _shape(path, archive, member) for member in members}


def read_npz(path: Path, names: Iterable[str]) -> Arrays:
    """Return the arrays called `names`. Check `npz_shapes` first: memory is taken for what is asked for, and for nothing else.

    Raises:
        WeightsError: the file is damaged.
    """
    with _opened(path) as archive:
        arrays: Arrays = {}
        for name in names:
            with archive.open(f"{name}.npy") as file:
                arrays[name] = npy.read_array(file, allow_pickle=False)
        return arrays


@contextmanager
def _opened(path: Path) -> Generator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, KeyError, RuntimeError) as error:
        raise WeightsError(path, f"is damaged ({error})", "get the file again") from None


def _shape(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[int, ...]:
    name = member.filename.removesuffix(".npy")
    with archive.open(member) as file:
        version = npy.read_magic(file)
        shape, _, dtype = npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)
    if dtype.hasobject:
        raise WeightsError(
            path, f"'{name}' holds Python objects, which can run code when they are read", "get numbers only"
        )
    if prod(shape) * dtype.itemsize > member.file_size:
        raise WeightsError(path, f"'{name}' claims more bytes than the file holds", "get the file again")
    return shape


def read_safetensors_header(path: Path) -> dict[str, str]:
    """Return the text metadata of a safetensors file.

    Raises:
        WeightsError: the file is damaged or has an unreasonable number of tensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if len(file.keys()) > MAX_TENSORS:
                raise WeightsError(
                    path, f"holds {len(file.keys()):,} tensors, more than {MAX_TENSORS:,}", "this is no model"
                )
            return file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(path, f"is a damaged safetensors file ({error})", "get the file again") from None
