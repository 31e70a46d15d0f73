"""Archives: unpacked whole, or refused when they reach outside their folder or would fill the disk."""

import gzip
import io
import tarfile
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitlab.data import archive
from vitlab.data.archive import unpack
from vitlab.errors import DataError

FILES = {"a.txt": b"one", "folder/b.bin": bytes(5000), "folder/deep/c d.txt": b""}


def make_tar(path, members, mode="w"):
    """Write a tar of (name or TarInfo, content) pairs."""
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(content))
    return path


def special(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def make_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in members:
            zipped.writestr(name, content)
    return path


def found(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def target(tmp_path):
    (tmp_path / "inner/target").mkdir(parents=True)
    return tmp_path / "inner/target"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_is_unpacked_whatever_its_compression(tmp_path, target, mode):
    members = [("./", b""), *((f"./{name}", content) for name, content in FILES.items())]
    members[0] = (special("./", tarfile.DIRTYPE), b"")
    unpack(make_tar(tmp_path / "a.tar", members, mode), target, "tar")
    assert found(target) == FILES


def test_a_zip_is_unpacked(tmp_path, target):
    unpack(make_zip(tmp_path / "a.zip", [("folder/", b""), *FILES.items()]), target, "zip")
    assert found(target) == FILES


def test_one_compressed_file_loses_its_suffix(tmp_path, target):
    (tmp_path / "data.mat.gz").write_bytes(gzip.compress(b"content"))
    unpack(tmp_path / "data.mat.gz", target, "gz")
    assert found(target) == {"data.mat": b"content"}


CLIMBING = ["../evil", "folder/../../evil", "/tmp/evil", "..", "a\\..\\evil", "C:evil", "C:/evil"]


@pytest.mark.parametrize("name", CLIMBING)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_name_that_leads_out_is_refused(tmp_path, target, name, kind):
    path = tmp_path / f"a.{kind}"
    {"tar": make_tar, "zip": make_zip}[kind](path, [("good.txt", b"x"), (name, b"evil")])
    with pytest.raises(DataError, match="which leads out of its folder"):
        unpack(path, target, kind)
    assert found(tmp_path / "inner") == {"target/good.txt": b"x"}


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.CONTTYPE]
)
def test_links_and_devices_are_refused(tmp_path, target, kind):
    if kind == tarfile.CONTTYPE:  # an ordinary file on every system of today
        unpack(make_tar(tmp_path / "a.tar", [(special("plain", kind), b"")]), target, "tar")
        return
    members = [(special("door", kind, "/etc"), b""), ("door/passwd", b"evil")]
    with pytest.raises(DataError, match="'door', which is neither a file nor a folder"):
        unpack(make_tar(tmp_path / "a.tar", members), target, "tar")
    assert list(target.iterdir()) == []


def test_a_link_in_a_zip_is_refused(tmp_path, target):
    info = zipfile.ZipInfo("door")
    info.external_attr = 0o120777 << 16
    with pytest.raises(DataError, match="'door', which is neither a file nor a folder"):
        unpack(make_zip(tmp_path / "a.zip", [(info, b"/etc")]), target, "zip")


@pytest.mark.parametrize("kind", ["tar", "zip", "gz"])
def test_more_than_an_archive_can_hold_is_a_bomb(tmp_path, target, kind, monkeypatch):
    monkeypatch.setattr(archive, "LEAST_LIMIT", 1000)
    bomb = bytes(10 << 20)
    path = tmp_path / f"bomb.{kind}"
    if kind == "gz":
        path.write_bytes(gzip.compress(bomb))
    else:
        {"tar": lambda *args: make_tar(*args, "w:gz"), "zip": make_zip}[kind](path, [("bomb", bomb)])
    with pytest.raises(DataError, match=f"bomb.{kind}: unpacks to more than"):
        unpack(path, target, kind)
    assert sum(map(len, found(target).values())) <= 31 * path.stat().st_size + (1 << 20)
    for file in list(target.iterdir()):
        file.unlink()
    unpack(path, target, kind, most_bytes=10 << 20)  # when it is known to be that large
    assert [len(content) for content in found(target).values()] == [10 << 20]


def test_a_zip_that_names_a_place_before_its_beginning_is_damaged(tmp_path, target):
    path = make_zip(tmp_path / "a.zip", [("x", b"x")])
    data = path.read_bytes()
    place = int.from_bytes(data[-6:-2], "little")  # of the list of members
    path.write_bytes(data[:-6] + (place + 1000).to_bytes(4, "little") + data[-2:])
    with pytest.raises(DataError, match=r"a.zip: is damaged"):
        unpack(path, target, "zip")


def test_a_zip_that_lies_about_its_sizes_is_a_bomb_all_the_same(tmp_path, target, monkeypatch):
    monkeypatch.setattr(archive, "LEAST_LIMIT", 1000)
    path = make_zip(tmp_path / "bomb.zip", [("bomb", bytes(10 << 20))])
    data = path.read_bytes()
    path.write_bytes(data.replace((10 << 20).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(DataError, match=r"bomb.zip: (unpacks to more|is damaged)"):
        unpack(path, target, "zip")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_asks_for_gigabytes_is_refused_before_it_gets_them(tmp_path, target, kind):
    info = tarfile.TarInfo("long")
    info.type, info.size = kind, 8 << 30
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(5000))
    with pytest.raises(DataError, match=r"a.tar: is damaged \(a header of 8,589,934,592 bytes\)"):
        unpack(tmp_path / "a.tar", target, "tar")


def test_long_names_are_kept(tmp_path, target):
    name = "/".join(["folder" * 10] * 5) + "/file"
    unpack(make_tar(tmp_path / "a.tar", [(name, b"x")]), target, "tar")
    assert found(target) == {name: b"x"}


def test_too_many_members_are_refused(tmp_path, target, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBERS", 3)
    path = make_tar(tmp_path / "a.tar", [(f"{number}", b"") for number in range(4)])
    with pytest.raises(DataError, match="more than 3 members"):
        unpack(path, target, "tar")


def test_a_file_that_comes_twice_is_refused(tmp_path, target):
    with pytest.raises(DataError, match="holds 'a' twice"):
        unpack(make_tar(tmp_path / "a.tar", [("a", b"1"), ("a", b"2")]), target, "tar")


def whole(folder, kind):
    if kind == "gz":
        (folder / "a.gz").write_bytes(gzip.compress(FILES["folder/b.bin"] + b"end"))
        return folder / "a.gz"
    return {"tar": lambda *args: make_tar(*args, "w:gz"), "zip": make_zip}[kind](folder / f"a.{kind}", FILES.items())


@pytest.mark.parametrize("kind", ["tar", "zip", "gz"])
@given(data=st.data())
def test_a_damaged_archive_is_one_clear_error_or_unpacks(tmp_path_factory, kind, data):
    folder = tmp_path_factory.mktemp("damaged")
    path = whole(folder, kind)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    (folder / "target").mkdir()
    try:
        unpack(path, folder / "target", kind)
    except DataError as error:
        assert str(path) in str(error) and "\n" not in str(error)


def test_a_header_of_thousands_of_fields_is_refused(tmp_path, target):
    path = tmp_path / "a.tar"
    info = tarfile.TarInfo("a.txt")
    info.pax_headers = {f"field{number}": "x" for number in range(5000)}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    with pytest.raises(DataError, match=r"a.tar: is damaged \(a header of \d\d,\d\d\d bytes\)"):
        unpack(path, target, "tar")
