import gzip
import io
import pickle
import resource
import tarfile
import time

import pytest

from tests.data.packed import contents, png
from vitlab.config import parse, to_json
from vitlab.data import tar
from vitlab.data.folder import Folder
from vitlab.data.open import open_data
from vitlab.data.pack import pack
from vitlab.data.source import Source
from vitlab.data.webdataset import WebDataset, find_splits
from vitlab.errors import DataError, ImageError


def write(path, members, **options):
    """A tar file as tarfile writes it; a member is a name and its bytes, or a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as file:
        for member in members:
            name, data = member if isinstance(member, tuple) else (member, b"")
            header = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if header.isreg():
                header.size = len(data)
            header.mtime = 1.5  # webdataset writes the time with its fraction, for which pax has an extra header
            file.addfile(header, io.BytesIO(data))
    return path


def sample(number, label=None, suffix="png"):
    return [
        (f"s{number:04d}.{suffix}", png(number)),
        (f"s{number:04d}.cls", b"%d" % (number % 3 if label is None else label)),
    ]


def samples(count, first=0):
    return [member for number in range(first, first + count) for member in sample(number)]


def test_samples_are_read_at_random_from_several_files(tmp_path):
    write(tmp_path / "00001.tar", samples(2, first=4))
    write(
        tmp_path / "00000.tar",
        [("dataset.json", b"{}"), *samples(4), ("s0003.json", b"{}"), ("notes/readme.txt", b"?")],
    )
    data = WebDataset(tmp_path)
    assert isinstance(data, Source)
    assert data.classes == ("0", "1", "2") and data.labels.tolist() == [0, 1, 2, 0, 1, 2]
    found = [data.read(index) for index in (5, 0, 3)]
    assert [(each.data, each.label, each.key) for each in found] == [
        (png(5), 2, "00001.tar:s0005.png"),
        (png(0), 0, "00000.tar:s0000.png"),
        (png(3), 0, "00000.tar:s0003.png"),
    ]
    assert parse(WebDataset, to_json(data), "x") == data == pickle.loads(pickle.dumps(data))
    assert pickle.loads(pickle.dumps(data)).read(5) == data.read(5)
    train, test = data.split(0.5)
    assert len(train) == len(test) == 3 and train.read(0).label == int(train.labels[0])
    with pytest.raises(IndexError):
        data.read(6)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_folders_and_names_of_every_script(tmp_path, form):
    stem = "a" * 150 + "/ﻣﺮﺣﺒﺎ-🦉"
    folder = tarfile.TarInfo("a")
    folder.type = tarfile.DIRTYPE
    members = [folder, (f"{stem}.jpg", png(1)), (f"{stem}.cls", b"7\n"), *sample(2, 3)]
    data = WebDataset(write(tmp_path / "x.tar", members, format=form))
    assert data.classes == ("3", "7") and data.labels.tolist() == [1, 0]
    assert data.read(0).data == png(1) and data.read(0).key == f"x.tar:{stem}.jpg"
    assert data.read(1).data == png(2)


def test_names_of_classes_are_in_a_file_beside_or_above(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / split / "0.tar", samples(4))
    (tmp_path / "classnames.txt").write_text("ant\nbee\ncat\nnever seen\n")
    opened = open_data(str(tmp_path))
    assert opened.train == WebDataset(tmp_path, subset="train") and list(opened.evals) == ["test"]
    assert opened.train.classes == ("ant", "bee", "cat", "never seen")
    assert opened.train.read(1).key == "train/0.tar:s0001.png"
    (tmp_path / "train/classnames.txt").write_text("ant\nbee\n")
    with pytest.raises(DataError, match="has 2 names, and label 2 occurs"):
        len(WebDataset(tmp_path, subset="train"))
    with pytest.raises(DataError, match=r"has no subset 'tset'; did you mean 'test'"):
        len(WebDataset(tmp_path, subset="tset"))
    with pytest.raises(DataError, match="ready splits: train, test"):
        len(WebDataset(tmp_path))


def test_splits_by_the_first_word_of_the_file(tmp_path):
    for name in ("train-0", "train-1", "val-0"):
        write(tmp_path / f"{name}.tar", samples(3))
    assert find_splits(tmp_path) == {"train": "train", "val": "val"}
    assert len(WebDataset(tmp_path, subset="train")) == 6


def test_it_is_packed_like_any_data_set(tmp_path):
    write(tmp_path / "source/0.tar", samples(5))
    data, shards = WebDataset(tmp_path / "source"), pack(str(tmp_path / "source"), tmp_path / "out", workers=2)[""]
    assert [shards.read(index) for index in range(5)] == [data.read(index) for index in range(5)]
    again = WebDataset(tmp_path / "out/shard-000000.tar")  # a shard of ours is one of theirs
    assert [again.read(index).data for index in range(5)] == [data.read(index).data for index in range(5)]
    assert again.labels.tolist() == data.labels.tolist()


def test_tar_files_beside_class_folders_are_what_these_came_in(tmp_path):
    for name in ("train/ant", "train/bee"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "0.png").write_bytes(png())
        (tmp_path / name / "1.png").write_bytes(png(1))
        write(tmp_path / f"{name}.tar", samples(2))
    write(tmp_path / "all.tar", samples(2))
    assert open_data(str(tmp_path)).whole == Folder(tmp_path, subset="train")
    with pytest.raises(DataError, match="holds no tar files"):
        len(WebDataset(tmp_path))


def header(name="s0000.png", kind=tarfile.REGTYPE, **fields):
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def raw(*headers, after=b""):
    """Headers as they are, whatever they claim."""
    return b"".join(each.tobuf(tarfile.GNU_FORMAT) for each in headers) + after + bytes(2 * tar.BLOCK)


def pax(content):
    return raw(header(kind=tarfile.XHDTYPE, size=len(content)), after=content + bytes(-len(content) % tar.BLOCK))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (raw(header("../x.png")), "'../x.png' leads out of its folder"),
        (raw(header("/etc/x.png")), "'/etc/x.png' leads out of its folder"),
        (pax(b"16 path=../x.pn\n")[:-1024] + raw(header()), "'../x.pn' leads out of its folder"),
        (raw(header(kind=tarfile.SYMTYPE, linkname="/etc/passwd")), "is a link, not a file"),
        (raw(header(kind=tarfile.LNKTYPE, linkname="../../x")), "is a link, not a file"),
        (raw(header(kind=tarfile.CHRTYPE)), "is a device, not a file"),
        (raw(header(kind=tarfile.BLKTYPE)), "is a device, not a file"),
        (raw(header(kind=tarfile.FIFOTYPE)), "is a pipe, not a file"),
        (raw(header(kind=tarfile.GNUTYPE_SPARSE)), "of an unusual kind"),
        (raw(header(size=1 << 40)), "claims 1,099,511,627,776 bytes"),
        (raw(header(size=-1)), "claims -1 bytes"),
        (raw(header(kind=tarfile.XHDTYPE, size=1 << 20), after=bytes(1 << 20)), "extra header of 1,048,576 bytes"),
        (raw(header(kind=tarfile.GNUTYPE_LONGNAME, size=1 << 20), after=bytes(1 << 20)), "extra header of"),
        (pax(b"10 size=9\n"), "a size in an extra header"),
        (pax(b"22 GNU.sparse.size=99\n"), "a size in an extra header"),
        (pax(b"99 path=x\n"), "extra header that is damaged"),
        (pax(b"1 path=x\n"), "extra header that is damaged"),
        (pax(b"nonsense"), "extra header that is damaged"),
        (b"not a tar file" * 100, "no tar header"),
        (raw(header(size=512), after=bytes(512))[:700], "claims 512 bytes, more than there are"),
        (raw(header(), after=b"\0" * 512)[:100], "cut short"),
        (bytes(0), "holds no images"),
    ],
)
def test_tar_bombs_and_damage_are_refused_by_name_at_once(tmp_path, data, why):
    (tmp_path / "x.tar").write_bytes(data)
    before = contents(tmp_path)
    start, peak = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=why) as error:
        len(WebDataset(tmp_path / "x.tar"))
    assert str(tmp_path / "x.tar") in str(error.value) and error.value.remedy and error.value.exit_code == 2
    assert time.monotonic() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100_000  # in kilobytes
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.TGZ"])
def test_a_compressed_tar_file_is_refused_with_what_to_do(tmp_path, name):
    path = write(tmp_path / "plain.tar", sample(0) + sample(1))
    (tmp_path / name).write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataError, match="is compressed, so that no image in it can be found; gunzip it first"):
        len(open_data(str(tmp_path / name)).train)


def test_more_members_than_a_million_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tar, "MAX_MEMBERS", 6)
    assert len(WebDataset(write(tmp_path / "x.tar", samples(2), format=tarfile.USTAR_FORMAT))) == 2
    with pytest.raises(DataError, match="more than 6 members"):
        len(WebDataset(write(tmp_path / "x.tar", samples(4), format=tarfile.USTAR_FORMAT)))


@pytest.mark.parametrize(
    ("members", "why"),
    [
        (sample(0)[:1] + sample(1), "sample 's0000' has no label"),
        (sample(0) + sample(1)[1:], "sample 's0001' has no image"),
        (sample(0) + sample(0), "sample 's0000' has two images"),
        ([*sample(0), ("s0000.cls", b"1")], "sample 's0000' has two labels"),
        ([("a.png", png()), ("a.cls", b"cat")], r"member 'a.cls' holds b'cat', not the number of a class"),
        ([("a.png", png()), ("a.cls", b"9" * 500)], "not the number of a class"),
        (sample(0, 1) + sample(1, 1), "only one class"),
        ([("readme.txt", b"?")], "holds no images"),
    ],
)
def test_samples_that_are_not_whole_are_refused(tmp_path, members, why):
    with pytest.raises(DataError, match=why):
        len(WebDataset(write(tmp_path / "x.tar", members)))


def test_a_file_that_changes_after_it_was_opened_is_named(tmp_path):
    path = write(tmp_path / "x.tar", samples(3))
    data = WebDataset(tmp_path)
    assert len(data) == 3
    path.write_bytes(b"changed" * 1000)
    with pytest.raises(ImageError, match=r"x\.tar: has changed since it was opened"):
        data.read(1)
    path.unlink()
    with pytest.raises(ImageError, match=r"x\.tar: is missing"):
        pickle.loads(pickle.dumps(data)).read(1)
