"""What a file of weights is, told by its content; its tensors, one at a time, read without ever executing anything."""

import io
import os
import pickletools
import shlex
import warnings
import zipfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from vitlab.config import loads
from vitlab.errors import WeightsError

Format = Literal["safetensors", "npz", "torch"]

MAX_TENSORS = 20_000
MAX_HEADER_BYTES = 4 << 20  # of a safetensors header, a list of members, a pickle
MAX_OPCODES = 250_000  # of a pickle: a tensor takes 36
MAX_RATIO = 1000  # what compression gains on weights is far below, and on a bomb of zeros 1030
NPY_HEADER_BYTES = 1 << 16
SAFE_TORCH = "2.10"  # before it, files could run code (CVE-2025-32434) or corrupt memory (CVE-2026-24747) in spite of weights_only
WRAPPERS = ("state_dict", "model", "model_state")

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""The types of a safetensors file that are real numbers."""

# All that a pickle of plain tensors names. torch's own list is longer: some of it takes memory that no file holds.
PLAIN = {
    *(f"torch {kind}Storage" for kind in ("Float", "Half", "BFloat16", "Double")),
    *(f"torch {kind}Storage" for kind in ("Char", "Short", "Int", "Long", "Byte", "Bool")),
    *(str(dtype).replace(".", " ") for dtype in DTYPES.values()),
    "collections OrderedDict",
    "torch Size",
    "torch device",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
}
CONVERT = (
    "import sys, torch, safetensors.torch as s; d = torch.load(sys.argv[1], map_location='cpu', weights_only=False); "
    "d = d.state_dict() if hasattr(d, 'state_dict') else d; "
    f"d = next((d[k] for k in {WRAPPERS} if k in d), d); "
    "d = {k: v.detach().contiguous().clone() for k, v in d.items() if torch.is_tensor(v)}; "
    "f = open(sys.argv[1] + '.safetensors', 'xb'); f.write(s.save(d)); f.close()"  # x: never over another file
)


@dataclass(frozen=True)
class TensorFile:
    """The tensors of an open file: `shapes` as declared, checked against the size of the file, and `read` for each."""

    path: Path
    shapes: dict[str, tuple[int, ...]]
    get: Callable[[str], Tensor]
    metadata: dict[str, str] = field(default_factory=dict[str, str])

    def read(self, name: str) -> Tensor:
        """Return one tensor in memory of its own: real numbers as float32 whatever they are stored as, integers as they are.

        Raises:
            WeightsError: the file is damaged there, or holds something else than numbers.
        """
        shape = self.shapes[name]
        with _refusing(self.path):
            tensor = self.get(name)
            tensor = tensor.float() if tensor.is_floating_point() else tensor
            if tuple(tensor.shape) != shape:
                raise ValueError(f"{_shown(name)} is not what it was")
            return tensor.contiguous()


@contextmanager
def open_tensors(path: Path) -> Generator[TensorFile]:
    """Open a .safetensors, .npz or PyTorch file, told by its content; nothing is read but what it declares.

    A PyTorch file holds a dictionary of tensors, or one under 'state_dict', 'model' or 'model_state'; what else it holds is left.

    Raises:
        WeightsError: there is no such file, or it is damaged, or lies about its sizes, or could run code.
    """
    openers = {"safetensors": _open_safetensors, "npz": _open_npz, "torch": _open_torch}
    with openers[format_of(path)](path) as file:
        yield file


def format_of(path: Path) -> Format:
    """Return the format of the file `path` by its first bytes.

    Raises:
        WeightsError: there is no such file, or it holds no weights that can be read safely.
    """
    try:
        if path.exists() and not path.is_dir() and not path.is_file():
            raise WeightsError(path, "is no file but a device or a pipe", "give a file")
        with path.open("rb") as file:
            head = file.read(512)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise WeightsError(path, f"cannot be read ({reason})", "check the path") from None
    if path.suffix in (".onnx", ".pt2"):
        what = "is an exported program, not weights: `predict` and `serve` run .onnx files, nothing else does"
        raise WeightsError(path, what, "give the run or the file of weights that it was made from")
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
        raise _unsafe(path, "is a pickle, which can run code when it is read")
    if head[257:262] == b"ustar":
        raise _unsafe(
            path, "is a tar file, as PyTorch wrote long ago, with pickles that can run code when they are read"
        )
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError(path, "is a git-lfs pointer, not the weights", "run `git lfs pull`")
    raise WeightsError(path, "holds no weights", "give a .npz or .safetensors file, or a run folder")


def _unsafe(path: Path, what: str) -> WeightsError:
    command = f'python -c "{CONVERT}" {shlex.quote(path.name)}'
    return WeightsError(path, what, f"if you trust it, convert it where it came from: {command}")


@contextmanager
def _refusing(path: Path, what: str = "is damaged") -> Generator[None]:
    """Turn whatever a reader of damaged bytes raises or warns of into one line. Too little memory is no damage."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (WeightsError, MemoryError):
        raise
    except Exception as error:
        raise WeightsError(path, f"{what} ({_first_line(error)})", "get the file again") from None


def _shown(name: str) -> str:
    return repr(name[:100])  # on one line, whatever is in it


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__


# --- zip files


class _Careful(io.FileIO):
    """A file of which no single read is large: zipfile reads the list of members in one piece, however long it claims to be."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_HEADER_BYTES:
            raise zipfile.BadZipFile("its list of members is too long")
        return super().read(MAX_HEADER_BYTES if size is None or size < 0 else size)


@contextmanager
def _zip(path: Path) -> Generator[zipfile.ZipFile]:
    with _Careful(path) as file:
        with _refusing(path, "is a damaged zip file"):
            archive = zipfile.ZipFile(file)
            _check_end(file, archive)
            _check_members(path, archive.infolist())
        yield archive


def _check_end(file: io.FileIO, archive: zipfile.ZipFile) -> None:
    """Refuse a list of members that is not where the end of the file says: Python looks for it elsewhere then, torch does not."""
    end = file.seek(-22 - len(archive.comment), os.SEEK_END)
    record = file.read(22)
    start = int.from_bytes(record[16:20], "little")
    if end >= 76:  # the long form lies before the short one: a record of 56 bytes, then 20 that say where it is
        file.seek(end - 76)
        long = file.read(76)
        if long[56:60] == b"PK\6\7":
            start = int.from_bytes(long[48:56], "little")
            if long[:4] != b"PK\6\6" or int.from_bytes(long[64:72], "little") != end - 76:
                raise zipfile.BadZipFile("its end is not where it says")
    if record[:4] != b"PK\5\6" or start != archive.start_dir:
        raise zipfile.BadZipFile("its list of members is not where it says")


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Refuse members that hide each other, and sizes that the file cannot have."""
    if len(members) > MAX_TENSORS:
        raise WeightsError(path, f"holds {len(members):,} arrays, more than {MAX_TENSORS:,}", "this is no model")
    if len({member.filename.lower() for member in members}) < len(members):  # torch finds names in either case
        raise zipfile.BadZipFile("two members have one name")
    for member in members:
        if member.filename != member.orig_filename:  # Python cuts names at a zero, or takes others: torch does not
            raise zipfile.BadZipFile(f"{_shown(member.orig_filename)} has two names")
        if member.filename.startswith("/") or ".." in member.filename.split("/") or "\\" in member.filename:
            raise zipfile.BadZipFile(f"{_shown(member.filename)} names a place outside")
        if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(f"{_shown(member.filename)} is encrypted or packed in an unknown way")
    size = path.stat().st_size
    if sum(member.compress_size for member in members) > size:
        raise zipfile.BadZipFile("its members claim more bytes than the file holds")
    if sum(member.file_size for member in members) > MAX_RATIO * size:
        raise zipfile.BadZipFile(f"its members claim to be {MAX_RATIO} times the file")


def _zip_format(path: Path) -> Format:
    with _zip(path) as archive:
        names = archive.namelist()
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    if any(name.endswith("/constants.pkl") for name in names):
        raise _unsafe(path, "is a TorchScript archive, which is code")
    if any(name.endswith("/data.pkl") for name in names):
        return "torch"
    raise WeightsError(path, "is a zip file without arrays", "give a .npz or .safetensors file, or a run folder")


# --- .npz


@contextmanager
def _open_npz(path: Path) -> Generator[TensorFile]:
    with _zip(path) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        with _refusing(path):
            shapes = {name: _npy_shape(path, name, archive, member) for name, member in members.items()}
        yield TensorFile(path, shapes, lambda name: _npy_tensor(path, name, _npy_array(archive, members[name])))


def _npy_shape(path: Path, name: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[int, ...]:
    with archive.open(member) as file:
        head = io.BytesIO(file.read(NPY_HEADER_BYTES))  # numpy would read as long a header as is claimed
    version = npy.read_magic(head)
    try:
        shape, _, dtype = npy.read_array_header_1_0(head) if version == (1, 0) else npy.read_array_header_2_0(head)
    except MemoryError:  # Python's parser says so of what is nested too deeply
        raise ValueError("its header is nested too deeply") from None
    if dtype.hasobject:
        raise WeightsError(
            path, f"{_shown(name)} holds Python objects, which can run code when they are read", "get numbers only"
        )
    if min(shape, default=0) < 0 or head.tell() + prod(shape) * dtype.itemsize > member.file_size:
        raise WeightsError(path, f"{_shown(name)} claims more bytes than the file holds", "get the file again")
    return shape


def _npy_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as file:
        return npy.read_array(file, allow_pickle=False)


def _npy_tensor(path: Path, name: str, array: NDArray[Any]) -> Tensor:
    if array.dtype == np.dtype("V2"):  # numpy has no bfloat16 and writes it as two bytes of anything
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise _no_numbers(path, name, array.dtype)
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def _no_numbers(path: Path, name: str, dtype: object) -> WeightsError:
    return WeightsError(path, f"{_shown(name)} holds no real numbers but {dtype}", "get the file again")


# --- .safetensors


@contextmanager
def _open_safetensors(path: Path) -> Generator[TensorFile]:
    damaged = "is a damaged safetensors file"
    with path.open("rb") as file:
        with _refusing(path, damaged):
            start = 8 + int.from_bytes(file.read(8), "little")
            header = loads(file.read(start - 8).decode(), _without_duplicates)
            metadata = header.pop("__metadata__", None) or {}
        if len(header) > MAX_TENSORS:  # a million of them take the library minutes
            raise WeightsError(path, f"holds {len(header):,} tensors, more than {MAX_TENSORS:,}", "this is no model")
        with _refusing(path, damaged), safe_open(path, framework="pt"):  # its checks: types, sizes, no overlap, no hole
            shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}

        def get(name: str) -> Tensor:
            """Read the bytes of a tensor. The library's own way maps the file, which then counts as memory a second time."""
            entry = header[name]
            if entry["dtype"] not in DTYPES:
                raise _no_numbers(path, name, entry["dtype"])
            begin, end = entry["data_offsets"]
            file.seek(start + begin)
            data = torch.empty(end - begin, dtype=torch.uint8)
            if file.readinto(data.numpy().data) != len(data):
                raise EOFError
            return data.view(DTYPES[entry["dtype"]]).reshape(shapes[name])

        yield TensorFile(path, shapes, get, metadata)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("its header says a name twice")
    return dict(pairs)


# --- PyTorch


@contextmanager
def _open_torch(path: Path) -> Generator[TensorFile]:
    if torch.__version__ < SAFE_TORCH:  # compares as versions, not as text
        raise WeightsError(path, f"cannot be read safely by torch {torch.__version__}", f"install torch {SAFE_TORCH}")
    if path.name.endswith(".safetensors"):  # torch goes by this name
        raise WeightsError(path, "is a PyTorch file under the name of another format", "rename it to .pth")
    with _zip(path) as archive, _refusing(path):
        _check_pickle(path, archive)
    try:
        with _refusing(path):
            content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except WeightsError:  # torch's own words advise to load it without care
        raise _unsafe(path, "holds more than tensors, or is damaged") from None
    with _refusing(path):
        tensors = _plain_tensors(path, content)
    yield TensorFile(
        path,
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        lambda name: tensors[name].detach().clone(),
    )


def _check_pickle(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse a PyTorch file whose pickle is long or names more than tensors need, before torch reads it."""
    members = archive.infolist()
    if archive.comment or any(member.compress_type or member.compress_size != member.file_size for member in members):
        raise zipfile.BadZipFile("torch never packs a file so")
    pickles = [member for member in members if member.filename.lower().endswith("data.pkl")]
    if len(pickles) > 1 or pickles[0].file_size > MAX_HEADER_BYTES:
        raise zipfile.BadZipFile("its pickle is too long")
    for count, (code, name, _) in enumerate(pickletools.genops(archive.read(pickles[0]))):
        if count > MAX_OPCODES:
            raise zipfile.BadZipFile("its pickle is too long")
        if code.name == "GLOBAL" and name not in PLAIN:
            raise _unsafe(path, f"names {_shown(str(name))}, which no file of plain tensors does")


def _plain_tensors(path: Path, content: object) -> dict[str, Tensor]:
    if isinstance(content, dict):
        content = next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict)), content)
    found = content.items() if isinstance(content, dict) else ()
    tensors = {name: tensor for name, tensor in found if isinstance(name, str) and isinstance(tensor, Tensor)}
    if not tensors:
        raise _unsafe(path, f"holds no dictionary of tensors, nor one under {', '.join(map(repr, WRAPPERS))}")
    if len(tensors) > MAX_TENSORS:
        raise WeightsError(path, f"holds {len(tensors):,} tensors, more than {MAX_TENSORS:,}", "this is no model")
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        if (
            tensor.nbytes > storage.nbytes() or storage.resizable()
        ):  # one number as a matrix, or memory outside of the file
            raise WeightsError(path, f"{_shown(name)} claims more bytes than the file holds", "get the file again")
    if sum(tensor.nbytes for tensor in tensors.values()) > 2 * path.stat().st_size:  # tied weights are there twice
        raise WeightsError(path, "its tensors claim more bytes than the file holds", "get the file again")
    return tensors
