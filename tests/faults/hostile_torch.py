"""PyTorch files that are not what they seem; they are entered into HOSTILE like those of `hostile`."""

import collections
import struct

from tests.faults.hostile import Call, hostile, pickled, tensor, torch_zip


@hostile("pickle is too long", ".pth")
def a_pickle_of_many_empty_sets(path):
    torch_zip(path, b"\x80\x02(" + b"\x8f" * 4_000_000 + b"t0" + pickled({"weight": tensor()})[2:])


@hostile("list of members is not where it says", ".pth")
def two_lists_of_members(path):
    """Python takes the second, which lies before the end, torch the first, which the end names."""
    parts = []
    for content in ({"weight": tensor(), "other": Call(bytearray, 500 << 20)}, {"weight": tensor()}):
        torch_zip(path, pickled(content))
        whole = path.read_bytes()
        start = int.from_bytes(whole[-6:-2], "little")
        parts.append((whole[:start], whole[start:-22]))
    (evil, first), (good, second) = parts
    moved = bytearray(second)
    for place in range(len(second)):
        if second.startswith(b"PK\1\2", place):
            offset = int.from_bytes(second[place + 42 : place + 46], "little") + len(evil) - len(first)
            moved[place + 42 : place + 46] = offset.to_bytes(4, "little")
    path.write_bytes(evil + good + first + bytes(moved) + end_of_zip(3, len(first), len(evil + good)))


def end_of_zip(count, size, start):
    return b"PK\5\6" + struct.pack("<4H2LH", 0, 0, count, count, size, start, 0)


@hostile("is not where it says", ".pth", ("directory",), ("record",))
def a_long_end_that_lies(path, what):
    torch_zip(path, pickled({"weight": tensor()}))
    path.write_bytes(
        with_long_end(path.read_bytes(), directory=8 * (what == "directory"), record=8 * (what == "record"))
    )


def with_long_end(content, directory=0, record=0):
    """Return a zip file with the end that large ones have; `directory` and `record` is how far off what it says is."""
    count, size, start = struct.unpack("<HLL", content[-12:-2])
    long = b"PK\6\6" + struct.pack("<Q2H2L4Q", 44, 45, 45, 0, 0, count, count, size, start + directory)
    place = b"PK\6\7" + struct.pack("<LQL", 0, len(content) - 22 + record, 1)
    return content[:-22] + long + place + end_of_zip(count, size, start)


@hostile("claims more bytes than the file holds", ".pth", (2_000,), (5_000_000,))
def memory_that_is_in_no_file(path, numel):
    """The first tensor is given a storage of its own, which the second then makes as large as it likes."""
    empty = tensor(then=())
    torch_zip(path, pickled({"bias": empty, "weight": tensor(then=(empty, 0, (numel,), (1,)))}))


@hostile("its tensors claim more bytes than the file holds", ".pth")
def one_storage_behind_many_tensors(path):
    many = {f"weight{index}": tensor(1 << 18, (1 << 18,)) for index in range(100)}
    torch_zip(path, pickled(many), storage=bytes(1 << 20))


@hostile("is damaged", ".pth", ("get",), ("items",))
def a_dictionary_that_is_none(path, method):
    torch_zip(path, pickled(Call(collections.OrderedDict, then={method: 3})))
