"""Files made to harm who opens them as weights. Each entry of HOSTILE writes one and says by what words it is refused."""

import collections
import io
import json
import os
import pickle
import tarfile
import zipfile
from zipfile import ZIP_DEFLATED, ZIP_LZMA, ZIP_STORED

import numpy as np
import torch
from numpy.lib import format as npy

HOSTILE = {}
MARKER = "marker"


def hostile(words, suffix, *cases):
    """Enter a function of (path, *case) under its name, once for each of `cases`."""

    def enter(function):
        for case in cases or [()]:
            name = " ".join([function.__name__.replace("_", " "), *(str(part)[:60] for part in case)])
            assert name not in HOSTILE
            HOSTILE[name] = (f"weights{suffix or case[0]}", words, lambda path, case=case: function(path, *case))
        return function

    return enter


class Call:
    """What a pickle calls when it is read; `then` is handed to what the call gave."""

    def __init__(self, function, *args, then=None):
        self.call = (function, args) if then is None else (function, args, then)

    def __reduce__(self):
        return self.call


class Storage:
    def __init__(self, numel, kind=torch.FloatStorage):
        self.id = ("storage", kind, "0", "cpu", numel)


class Pickler(pickle.Pickler):
    def persistent_id(self, found):
        return found.id if isinstance(found, Storage) else None


def touch(path):
    """Return a payload that leaves the marker beside `path`."""
    return Call(os.system, f"touch {path.parent / MARKER}")


def pickled(content, protocol=2):
    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(content)
    return buffer.getvalue()


def torch_zip(path, data, compression=ZIP_STORED, extra=(), comment=b"", storage=b"\0" * 12):
    """Write a PyTorch file around the pickle `data`, with one storage, of three numbers."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in [("data.pkl", data), ("version", b"3"), ("data/0", storage), *extra]:
            archive.writestr(f"archive/{name}", content)
        archive.comment = comment


def tensor(numel=3, size=(3,), stride=(1,), kind=torch.FloatStorage, then=None):
    hooks = collections.OrderedDict()
    return Call(torch._utils._rebuild_tensor_v2, Storage(numel, kind), 0, size, stride, False, hooks, then=then)


def array(shape=(3,), descr="<f4", data=b"\0" * 12):
    buffer = io.BytesIO()
    npy.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + data


def npz(path, members, compression=ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)


def safetensors(path, header, data=b"\0" * 12):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def entry(begin=0, end=12, shape=(3,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


SUFFIXES = [(".npz",), (".safetensors",), (".pth",), (".bin",)]


@hostile("is a pickle, which can run code.*python -c", None, *SUFFIXES)
def a_pickle(path, suffix):
    path.write_bytes(pickle.dumps({"weight": touch(path)}))


@hostile("names 'posix system'|rename it to .pth", None, *SUFFIXES)
def a_payload_in_a_torch_file(path, suffix):
    torch_zip(path, pickled({"weight": tensor(), "other": touch(path)}))


@hostile("is a pickle, which can run code.*python -c", ".pth")
def an_old_torch_file(path):
    torch.save({"weight": torch.zeros(3), "other": touch(path)}, path, _use_new_zipfile_serialization=False)


@hostile("is a tar file.*python -c", ".pth")
def a_very_old_torch_file(path):
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("storages")
        data = pickled(touch(path))
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))


@hostile("holds no weights", ".pth")
def a_pickle_in_text(path):
    path.write_bytes(pickle.dumps(touch(path), 0))


@hostile("TorchScript archive, which is code", ".pt")
def a_script(path):
    torch_zip(path, pickled({}), extra=[("constants.pkl", pickled(touch(path))), ("code/run.py", b"")])


@hostile("names 'posix system'.*python -c", ".pth", ("list",), ("state",), ("key",), ("model",))
def a_payload_inside(path, where):
    bad = touch(path)
    content = {"list": [[[bad]]], "state": {"state_dict": {"weight": bad}}, "key": {bad: 1}, "model": {"model": bad}}
    torch_zip(path, pickled(content[where]))


@hostile(
    "names '(_?_?builtin.*|torch.*|io open|_codecs encode)', which no file", ".pth", *[(index,) for index in range(7)]
)
def a_call_that_torch_or_python_offers(path, index):
    calls = [
        Call(bytearray, 1 << 40),
        Call(torch.Tensor, 1 << 40),
        Call(exec, f"open({str(path.parent / MARKER)!r}, 'w')"),
        Call(open, str(path.parent / MARKER), "w"),
        Call(__import__, "this"),
        Call(__import__("_codecs").encode, "a" * 1000, "bz2"),
        Call(torch.hub.load_state_dict_from_url, "http://localhost:9"),
    ]
    torch_zip(path, pickled({"weight": calls[index]}))


@hostile(
    "holds more than tensors, or is damaged.*python -c", ".pth", ("protocol 4",), ("INST",), ("list item",), ("end",)
)
def a_pickle_that_torch_refuses(path, how):
    command = f"touch {path.parent / MARKER}"
    code = {
        "protocol 4": pickle.dumps(touch(path), 4),
        "INST": f"(S{command!r}\niposix\nsystem\n.".encode(),
        "list item": b"\x80\x02]K\x00K\x01s.",  # a list is written to as if it were a dictionary
        "end": b"\x80\x020.",
    }
    torch_zip(path, code[how])


@hostile("claims more bytes|or is damaged", ".pth", (3, 10**6, 0), (10**12, 10**12, 1), (10**12, 3, 0), (3, 10**12, 1))
def a_tensor_that_claims_more(path, numel, size, stride):
    torch_zip(path, pickled({"weight": tensor(numel, (size, 1000), (stride, 0))}))


@hostile("no dictionary of tensors.*'state_dict', 'model', 'model_state'.*python -c", ".pth")
def a_torch_file_without_tensors(path):
    torch_zip(path, pickled([tensor(), {"weight": 3}]))


@hostile("torch never packs a file so", ".pth")
def a_packed_torch_file(path):
    torch_zip(path, pickled({"weight": tensor()}) + b" " * 30_000_000, ZIP_DEFLATED, extra=[("x", os.urandom(99999))])


COMMENTS = {"of a person": b"mine", "that is the end of another": b"PK\5\6" + b"\0" * 18}


@hostile("torch never packs a file so|not where it says", ".pth", *[(name,) for name in COMMENTS])
def a_torch_file_with_a_comment(path, name):
    torch_zip(path, pickled({"weight": tensor()}), comment=COMMENTS[name])


@hostile("two members have one name", ".pth")
def two_pickles(path):
    torch_zip(path, pickled({"weight": tensor()}), extra=[("DATA.PKL", pickled(touch(path)))])


@hostile("pickle is too long", ".pth")
def a_long_pickle(path):
    torch_zip(path, pickled({"weight": tensor()}) + b" " * (9 << 20))


@hostile("Python objects, which can run code", ".npz")
def objects(path):
    np.savez(path, bias=np.array([touch(path)], object))


@hostile("its members claim to be 1000 times the file", ".npz", (ZIP_DEFLATED, 300))
def a_bomb(path, compression, megabytes):
    with zipfile.ZipFile(path, "w", compression) as archive, archive.open("bias.npy", "w") as file:
        file.write(array((megabytes << 18,), data=b""))
        for _ in range(megabytes):
            file.write(bytes(1 << 20))


@hostile("packed in an unknown way", ".npz")
def a_bomb_of_another_kind(path):
    npz(path, [("bias.npy", array((1 << 22,), data=bytes(1 << 24)))], ZIP_LZMA)


@hostile("is damaged", ".npz")
def a_header_that_is_a_bomb(path):
    header = b"\x93NUMPY\x02\x00" + (150 << 20).to_bytes(4, "little") + b" " * (150 << 20)
    npz(path, [("bias.npy", header), ("noise.npy", array((100_000,), data=os.urandom(400_000)))], ZIP_DEFLATED)


@hostile("claims more bytes than the file holds|is damaged", ".npz", (4,), (10**12,), (2**62,), (-3,), (2**70,), ("x",))
def a_shape_that_lies(path, length):
    npz(path, [("bias.npy", array((length, 1)))])


@hostile("two members have one name|its members claim more bytes", ".npz", ("names",), ("places",))
def members_on_each_other(path, what):
    content = array((25_000,), data=os.urandom(100_000))
    npz(path, [(f"{index}.npy", content if not index else b"") for index in range(9)])
    data = path.read_bytes()
    starts = [place for place in range(len(data)) if data.startswith(b"PK\x01\x02", place)]
    changed = bytearray(data)
    for start in starts[1:]:
        if what == "names":
            changed[start + 46 : start + 51] = b"0.npy"
        else:
            changed[start + 16 : start + 28] = data[starts[0] + 16 : starts[0] + 28]
    path.write_bytes(bytes(changed))


@hostile("names a place outside", ".npz", ("/etc/a.npy",), ("../a.npy",), ("a/../../b.npy",), ("c:\\a.npy",))
def a_name_that_leads_out(path, name):
    npz(path, [(name, array())])


@hostile("has two names", ".npz")
def a_name_with_an_end_inside(path):
    npz(path, [("bias.npy?x.npy", array())])
    path.write_bytes(path.read_bytes().replace(b"?", b"\0"))


@hostile("encrypted", ".npz")
def an_encrypted_file(path):
    npz(path, [("bias.npy", array())])
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(data))


@hostile("list of members is too long|holds 25,000 arrays", ".npz", (25_000,), (90_000,))
def very_many_arrays(path, count):
    npz(path, ((f"{index}.npy", b"") for index in range(count)))


@hostile("holds no real numbers|is damaged|claims more", ".npz", ("<c8",), ("<U3",), ("<M8[s]",), ("|V3",), ("<f16",))
def an_array_of_something_else(path, descr):
    npz(path, [("bias.npy", array((), descr, bytes(np.dtype(descr).itemsize)))])


@hostile(
    "is damaged|claims more",
    ".npz",
    ("__import__('os').system('touch marker')",),
    ("-" * 9000 + "1",),
    ("(" * 199 + ")" * 199,),
)
def an_array_whose_shape_is_code(path, code):
    code = code.replace("marker", str(path.parent / MARKER))
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {code}}}".encode()
    npz(path, [("bias.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)])


@hostile("its header claims 1,073,741,824 bytes", ".safetensors")
def a_header_of_a_gigabyte(path):
    with path.open("wb") as file:
        file.write((1 << 30).to_bytes(8, "little") + b'{"a":')
        file.truncate((1 << 30) + 8)


@hostile("holds 30,000 tensors", ".safetensors")
def very_many_tensors(path):
    safetensors(path, {str(index): entry(0, 0, (0,)) for index in range(30_000)}, b"")


HEADERS = {
    "overlap": {"a": entry(), "b": entry()},
    "half overlap": {"a": entry(), "b": entry(8, 16, (2,))},
    "hole": {"a": entry(4, 12, (2,))},
    "outside": {"a": entry(12, 24)},
    "rest": {"a": entry(0, 4, (1,))},
    "negative": {"a": entry(-12, 0)},
    "backward": {"a": entry(12, 0)},
    "fraction": {"a": entry(0.0, 12.0)},
    "overflow": {"a": entry(shape=(2**62, 8))},
    "large": {"a": entry(shape=(2**70,))},
    "wrong size": {"a": entry(shape=(2,))},
    "unknown type": {"a": entry(dtype="F77")},
    "complex": {"a": entry(0, 8, (1,), "C64"), "b": entry(8, 12, (1,))},
    "half a byte": {"a": entry(0, 12, (24,), "F4")},
    "empty and huge": {"a": entry(), "b": entry(12, 12, (0, 2**63))},
    "no tensor": {"a": [1, 2, 3]},
    "metadata": {"__metadata__": {"a": {"b": 1}}, "a": entry()},
    "twice": f'{{"a": {json.dumps(entry())}, "a": {json.dumps(entry())}}}'.encode(),
    "deep": b'{"a":' + b"[" * 300_000,
    "many values": b'{"a":[' + b'{"":0},' * 500_000 + b"0]}",
    "long number": b'{"a":' + b"1" * 1_000_000 + b"}",
    "not text": b'{"\xff": 1}',
}


@hostile(
    "is a damaged safetensors file|is damaged|holds no real numbers", ".safetensors", *[(name,) for name in HEADERS]
)
def a_header_that_lies(path, name):
    safetensors(path, HEADERS[name])


@hostile("damaged|holds no weights", None, *SUFFIXES[:3])
def a_file_cut_off(path, suffix):
    whole(path)
    path.write_bytes(path.read_bytes()[:-30])


@hostile("cannot be read \\(Is a directory\\)", ".npz")
def a_directory(path):
    path.mkdir()


@hostile("is no file but a device or a pipe", ".npz")
def a_pipe(path):
    os.mkfifo(path)


@hostile("is no file but a device or a pipe", ".npz")
def an_endless_device(path):
    path.symlink_to("/dev/zero")


def whole(path):
    """Write a good file of the format that the name of `path` says."""
    if path.suffix == ".npz":
        np.savez(path, weight=np.ones((2, 3), np.float32), bias=np.full(3, np.nan, np.float16))
    elif path.suffix == ".safetensors":
        data = np.ones(6, np.float32).tobytes() + np.full(3, np.nan, np.float16).tobytes()
        safetensors(path, {"weight": entry(0, 24, (2, 3)), "bias": entry(24, 30, (3,), "F16")}, data)
    else:
        torch.save({"weight": torch.ones(2, 3), "bias": torch.full((3,), torch.nan, dtype=torch.float16)}, path)
