import contextlib
import io
import re
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.packed import png
from vitlab.data.tar import BLOCK, END, Packed, TarError, pack_example, suffix, unpack_example

EXAMPLE = Packed(12, 3, "cat/a.b.jpg", b"\xff\xd8\xff and so on")
labels = st.integers(0, 10**9 - 1) | st.lists(st.integers(0, 99)).map(tuple)
examples = st.builds(Packed, st.integers(0, 10**12), labels, st.text(st.characters(codec="utf-8")), st.binary())


def member(name: str, content: bytes = b"x", **fields: object) -> bytes:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    for field, value in fields.items():
        setattr(header, field, value)
    return header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % BLOCK)


def run(*, label: bytes = b"3", second: bytes | None = None, image: bytes | None = None) -> bytes:
    """The run of an example, with members replaced."""
    second = member("0000000012.name.txt") if second is None else second
    image = member("0000000012.jpg") if image is None else image
    return member("0000000012.cls", label) + second + image


@settings(max_examples=50)
@given(examples)
def test_what_was_packed_is_unpacked(example):
    assert unpack_example(pack_example(example)) == example


def test_any_tar_program_reads_a_shard_and_webdataset_finds_its_samples():
    file = tarfile.open(fileobj=io.BytesIO(pack_example(EXAMPLE) + END))  # noqa: SIM115
    assert [(info.name, info.mtime, info.uid) for info in file] == [
        ("0000000012.cls", 0, 0),
        ("0000000012.name.txt", 0, 0),
        ("0000000012.jpg", 0, 0),
    ]
    assert file.extractfile("0000000012.jpg").read() == EXAMPLE.image
    keys = {
        re.fullmatch(r"((?:.*/|)[^.]+)[.]([^/]*)", name)[1] for name in file.getnames()
    }  # as webdataset splits names
    assert keys == {"0000000012"}


@settings(max_examples=50)
@given(examples, st.data())
def test_what_is_cut_short_is_refused(example, data):
    whole = pack_example(example)
    with pytest.raises(TarError):
        unpack_example(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.integers(0, BLOCK - 1), st.integers(1, 255))
def test_a_header_with_a_wrong_byte_is_refused(place, change):
    whole = bytearray(pack_example(EXAMPLE))
    whole[place] ^= change
    with contextlib.suppress(TarError):
        assert unpack_example(bytes(whole)) == EXAMPLE  # a byte that means nothing, or the same in another way


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../0000000012.jpg", "..\\x", "../0000000012.jpg"])
def test_a_member_that_climbs_out_is_refused_by_name(name):
    with pytest.raises(TarError, match=r"leads out of its folder") as error:
        unpack_example(run(image=member(name)))
    assert repr(name) in str(error.value)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (run(image=member("cat.jpg")), "'cat.jpg' is no part of a packed example"),
        (run(image=member("0000000013.jpg")), "of one number"),
        (
            run(image=member("0000000012.jpg", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
            "is a link, not a file",
        ),
        (run(image=member("0000000012.jpg", b"", type=tarfile.LNKTYPE, linkname="../x")), "is a link, not a file"),
        (run(image=member("0000000012.jpg", b"", type=tarfile.CHRTYPE)), "is a device, not a file"),
        (run(image=member("0000000012.jpg", b"10 size=9\n", type=tarfile.XHDTYPE)), "a size in an extra header"),
        (run(image=member("0000000012.jpg", b"6 a=b\n" * 101, type=tarfile.XHDTYPE)), "header of more than 100 fields"),
        (run(image=member("0000000012.jpg", b"6 a=b\n5 a=b\n", type=tarfile.XHDTYPE)), "header that is damaged"),
        (run(image=member("0000000012.jpg")[:BLOCK]), "claims 1 bytes, more than there are"),
        (run() + member("0000000013.cls"), "one whole example"),
        (run(second=member("0000000012.png")), "a label, a name and an image"),
        (run(second=member("0000000012.name.txt", b"", type=tarfile.GNUTYPE_LONGNAME)), "one whole example"),
        (b"hello" * 400, "no tar header"),
        (run(label=b"-1"), "holds b'-1' as its label"),
        (run(label=b"three"), "as its label"),
        (run(label=b"9" * 400), "as its label"),
        (b"\0" * 3 * BLOCK, "one whole example"),
        (b"", "whole example"),
    ],
)
def test_what_is_no_example_is_refused_with_its_reason(changed, why):
    with pytest.raises(TarError, match=why):
        unpack_example(changed)


def test_an_absurd_size_is_refused():
    lying = tarfile.TarInfo("0000000012.jpg")
    lying.size = 1 << 62
    with pytest.raises(TarError, match="4,611,686,018,427,387,904 bytes"):
        unpack_example(run(image=lying.tobuf(tarfile.GNU_FORMAT)))


def test_suffixes_are_told_by_content():
    assert suffix(png()) == "png" and suffix(b"\xff\xd8\xff\xe0") == "jpg" and suffix(b"RIFF1234WEBPVP8 ") == "webp"
    assert suffix(b"\0\0\x01\0\x01\0") == "ico"
    assert suffix(b"\0\0\0\x1cftypavif") == "avif" and suffix(b"") == "img" and suffix(b"hello") == "img"
