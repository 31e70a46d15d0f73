import errno
import hashlib
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from tests.data.packed import SMALL, contents, draw, png
from vitlab.data import pack as module
from vitlab.data.digits import Digits
from vitlab.data.folder import Folder
from vitlab.data.image import decode
from vitlab.data.index import JOB, MANIFEST
from vitlab.data.limits import limits_of
from vitlab.data.open import open_data
from vitlab.data.pack import pack
from vitlab.data.shards import Shards
from vitlab.data.table import Table
from vitlab.errors import DataError, ImageError, PackError

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


def spoil(path: Path, *names: str) -> list[str]:
    for name in names:
        (path / name).write_bytes(b"not an image")
    return list(names)


def test_the_bytes_are_the_same_on_every_run_and_from_any_number_of_processes(tmp_path):
    source = str(draw(tmp_path / "source"))
    packs = [contents_of(source, tmp_path / str(run), workers) for run, workers in enumerate((1, 2, 3, 1))]
    assert packs[0] == packs[1] == packs[2] == packs[3]
    assert {"shards.json", "index.bin", "shards.sha256", "shard-000000.tar"} < set(packs[0])
    assert not [name for name in packs[0] if "part" in name or "packing" in name]


def contents_of(source, out, workers=1, **options):
    pack(source, out, SMALL, workers, **options)
    return contents(out)


def test_what_is_packed_needs_nothing_of_ours_to_be_read(tmp_path):
    source = draw(tmp_path / "source")
    shards = pack(str(source), tmp_path / "out", SMALL)[""]
    found = {}
    for path in sorted((tmp_path / "out").glob("*.tar")):
        with tarfile.open(path) as file:
            found |= {info.name: file.extractfile(info).read() for info in file}
    assert list(found)[:3] == ["0000000000.cls", "0000000000.name.txt", "0000000000.jpg"]
    assert [int(found[f"{index:010d}.cls"]) for index in range(18)] == shards.labels.tolist()
    assert found["0000000007.png"] == (source / "bee/1.b.png").read_bytes()
    assert found["0000000007.name.txt"] == b"bee/1.b.png"
    done = subprocess.run(["sha256sum", "--check", "shards.sha256"], cwd=tmp_path / "out", capture_output=True)
    assert done.returncode == 0 and done.stdout.count(b": OK") == shards.listing.manifest.shards + 1
    sums = (tmp_path / "out/shards.sha256").read_bytes()
    assert shards.listing.manifest.sums_sha256 == hashlib.sha256(sums).hexdigest()


def test_shards_have_about_the_size_that_is_asked_for(tmp_path):
    source = str(draw(tmp_path / "source", count=40))
    for size in (20_000, 100_000):
        pack(source, tmp_path / str(size), size, 2)
        sizes = [path.stat().st_size for path in (tmp_path / str(size)).glob("*.tar")]
        assert 0.7 * size < np.median(sizes) < 1.2 * size
    few = str(draw(tmp_path / "few", count=2))
    assert pack(few, tmp_path / "1", 1)[""].listing.manifest.shards == 6  # at least one image in each


def test_progress_is_told_of_every_image(tmp_path):
    told = []
    for split in ("train", "val"):
        draw(tmp_path / "source" / split)
    pack(str(tmp_path / "source"), tmp_path / "out", SMALL, 2, advance=lambda *both: told.append(both))
    assert told == [(done, 36) for done in range(1, 37)]


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_images_are_all_named_and_the_rest_is_kept_until_they_are_repaired(tmp_path, workers):
    for split in ("train", "val"):
        draw(tmp_path / "source" / split)
    wanted = contents_of(str(tmp_path / "source"), tmp_path / "wanted")
    bad = ["train/ant/3.png", "train/cat/1.b.png", "val/bee/3.png"]
    kept = {name: (tmp_path / "source" / name).read_bytes() for name in bad}
    spoil(tmp_path / "source", *bad)
    with pytest.raises(PackError) as error:
        pack(str(tmp_path / "source"), tmp_path / "out", SMALL, workers)
    assert error.value.exit_code == 1
    assert "3 of 36 images cannot be used" in str(error.value) and "--on-bad-image skip" in str(error.value)
    listed = [line.split(": ")[0].strip() for line in str(error.value).splitlines()[1:]]
    assert listed == ["train/ant/3.png", "train/cat/1.b.png", "val/bee/3.png"]
    assert not list((tmp_path / "out").rglob(MANIFEST)) and not list((tmp_path / "out").rglob("*.part"))
    for name in ("out", "out/train"):
        with pytest.raises(DataError):
            open_data(str(tmp_path / name))
    with pytest.raises(DataError, match="is a pack that is not finished; go on with"):
        open_data(str(tmp_path / "out"))
    for name, data in kept.items():
        (tmp_path / "source" / name).write_bytes(data)
    assert contents_of(str(tmp_path / "source"), tmp_path / "out", workers) == wanted


def test_bad_images_are_left_out_where_that_is_asked_for_and_the_manifest_says_which(tmp_path):
    source = draw(tmp_path / "source")
    bad = spoil(source, "ant/3.png", "cat/0.jpg", "cat/5\n.png")
    with pytest.raises(PackError):
        pack(str(source), tmp_path / "out", SMALL, 2)
    shards = pack(str(source), tmp_path / "out", SMALL, 2, skip_bad=True)[""]
    skipped = [each.name for each in shards.listing.manifest.skipped]
    assert skipped == [name.replace("\n", "\\n") for name in bad] and shards.listing.manifest.skipped[0].reason
    folder = Folder(source)
    kept = [index for index in range(18) if folder.read(index).key not in skipped]
    assert [shards.read(index) for index in range(15)] == [folder.read(index) for index in kept]
    assert shards.labels.tolist() == folder.labels[kept].tolist()
    assert contents(tmp_path / "out") == contents_of(str(source), tmp_path / "again", skip_bad=True)
    assert "15 images, 3 left out, 3 classes" in shards.describe()


def test_without_any_good_image_there_is_nothing_to_pack(tmp_path):
    source = draw(tmp_path / "source", count=1)
    spoil(source, "ant/0.jpg", "bee/0.jpg", "cat/0.jpg")
    with pytest.raises(PackError, match="no image that can be decoded"):
        pack(str(source), tmp_path / "out", skip_bad=True)
    assert not (tmp_path / "out").exists()


def test_a_disk_that_is_full_from_the_beginning_keeps_nothing(tmp_path, monkeypatch):
    def full(path, data):
        path.with_name(f".{path.name}.part").write_bytes(data[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.files, "write_atomic", full)
    with pytest.raises(PackError, match="make room; the same command goes on"):
        pack(str(draw(tmp_path / "source")), tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_was_there_stays_where_nothing_can_be_packed(tmp_path):
    source = draw(tmp_path / "source", count=1)
    spoil(source, "ant/0.jpg", "bee/0.jpg", "cat/0.jpg")
    (tmp_path / "out").mkdir()
    for skip_bad in (False, True):
        with pytest.raises(PackError):
            pack(str(source), tmp_path / "out", skip_bad=skip_bad)
        assert not list((tmp_path / "out").iterdir())


def test_with_a_split_without_any_good_image_the_others_are_gone_on_with(tmp_path):
    for split in ("train", "val"):
        draw(tmp_path / "source" / split, count=1)
    kept = (tmp_path / "source/val/ant/0.jpg").read_bytes()
    spoil(tmp_path / "source/val", "ant/0.jpg", "bee/0.jpg", "cat/0.jpg")
    with pytest.raises(PackError, match="no image that can be decoded"):
        pack(str(tmp_path / "source"), tmp_path / "out", skip_bad=True)
    before = (tmp_path / "out/train/shard-000000.tar").stat().st_ino
    (tmp_path / "source/val/ant/0.jpg").write_bytes(kept)
    packs = pack(str(tmp_path / "source"), tmp_path / "out", skip_bad=True)
    assert [len(packs["train"]), len(packs["val"])] == [3, 1]
    assert (tmp_path / "out/train/shard-000000.tar").stat().st_ino == before


def test_images_that_cannot_be_read_do_not_make_shards_of_one(tmp_path, monkeypatch):
    def fail(self, index):
        raise ImageError(self.key(index), "cannot be read (Stale file handle)")

    source = draw(tmp_path / "source")
    monkeypatch.setattr(Folder, "read", fail)
    packer = module.Packer(Folder(source), tmp_path, tmp_path, module.SHARD_BYTES, skip_bad=True)
    assert packer.per_shard == 2500 and packer.shards == 1


def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path):
    with pytest.raises(DataError, match=r"/proc/x: cannot be made or written \(.+\); choose another folder"):
        pack("digits", Path("/proc/x"))


def test_data_that_are_pixels_become_png(tmp_path):
    shards = pack("digits", tmp_path / "out", 100_000, 2)[""]
    digits = Digits()
    assert shards.classes == digits.classes and shards.labels.tolist() == digits.labels.tolist()
    for index in (0, 1796, 900):
        ours, theirs = shards.read(index), digits.read(index)
        assert ours.data[:4] == b"\x89PNG" and (ours.label, ours.key) == (theirs.label, theirs.key)
        assert np.array_equal(decode(ours.data, "x"), theirs.data)


def test_a_table_is_packed_and_a_pack_is_packed_again(tmp_path):
    source = draw(tmp_path / "source")
    names = [Folder(source).read(index).key for index in range(18) if "\\n" not in Folder(source).read(index).key]
    (source / "metadata.csv").write_text("\n".join(["file_name,label", *(f"{name},{name[:3]}" for name in names)]))
    shards = pack(str(source), tmp_path / "out", SMALL)[""]
    table = Table(source)
    assert [shards.read(index) for index in range(len(table))] == [table.read(index) for index in range(len(table))]
    again = pack(str(tmp_path / "out"), tmp_path / "again", 2 * SMALL)[""]
    assert [again.read(index) for index in range(len(table))] == [table.read(index) for index in range(len(table))]


def test_a_lone_training_split_stays_one(tmp_path):
    draw(tmp_path / "source/train")
    assert list(pack(str(tmp_path / "source"), tmp_path / "out")) == ["train"]
    assert open_data(str(tmp_path / "out")).whole == Shards(tmp_path / "out", subset="train")


def unfinished(tmp_path):
    """Return a source and the folder where its packing stopped."""
    source = draw(tmp_path / "source")
    good = (source / "cat/3.png").read_bytes()
    spoil(source, "cat/3.png")
    with pytest.raises(PackError):
        pack(str(source), tmp_path / "out", SMALL)
    (source / "cat/3.png").write_bytes(good)
    return source, tmp_path / "out"


@pytest.mark.parametrize("change", ["source", "size", "file"])
def test_a_packing_of_something_else_is_not_gone_on_with(tmp_path, change):
    source, out = unfinished(tmp_path)
    if change == "file":
        (source / "ant/7.png").write_bytes((source / "ant/3.png").read_bytes())
    name = str(draw(tmp_path / "other")) if change == "source" else str(source)
    before = contents(out)
    with pytest.raises(DataError, match=r"out: holds an unfinished pack of other data, or with another --shard-size"):
        pack(name, out, SMALL + (change == "size"))
    assert contents(out) == before


def test_finished_shards_are_kept_and_spoiled_ones_made_again(tmp_path, monkeypatch):
    source, out = unfinished(tmp_path)
    (first, second, *_) = sorted(out.glob("shard-*.tar"))
    first_inode = first.stat().st_ino
    second.write_bytes(second.read_bytes()[:-600] + bytes(600))
    assert contents_of(str(source), out) == contents_of(str(source), tmp_path / "fresh")
    assert first.stat().st_ino == first_inode


def test_a_repair_that_changes_the_size_of_shards_starts_them_anew(tmp_path, monkeypatch):
    source, out = unfinished(tmp_path)
    (out / "shard-000099.tar").write_bytes(b"of a packing into smaller shards")
    monkeypatch.setattr(module.Packer, "per_shard", 4)
    wanted = contents_of(str(source), tmp_path / "fresh")
    assert contents_of(str(source), out) == wanted and len(wanted) == 5 + 3


def _swap_files(source):
    one, other = source / "ant/0.jpg", source / "ant/2\n.jpg"
    one.rename(source / "ant/x")
    other.rename(one)
    (source / "ant/x").rename(other)


def _rewrite(source):
    (source / "ant/1.b.png").write_bytes((source / "bee/1.b.png").read_bytes())


CHANGES = {
    "renamed": lambda source: (source / "ant/4.b.jpg").rename(source / "ant/00.jpg"),
    "replaced": _rewrite,
    "swapped": _swap_files,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_in_the_source_since_it_was_interrupted_is_packed_again(tmp_path, change):
    source, out = unfinished(tmp_path)
    CHANGES[change](source)
    assert contents_of(str(source), out, 2) == contents_of(str(source), tmp_path / "fresh")


@pytest.mark.slow
def test_what_changed_in_a_table_of_images_is_packed_again(tmp_path):
    rows = {"image": [png(number) for number in range(40)], "label": ["ant", "bee"] * 20}
    path, bad = tmp_path / "photos.parquet", b"not an image"
    write_table(path, rows | {"image": [*rows["image"][:-1], bad]})
    with pytest.raises(PackError, match="1 of 40 images"):
        pack(str(path), tmp_path / "out", SMALL)
    rows["image"][0], rows["image"][2] = rows["image"][2], rows["image"][0]
    write_table(path, rows)
    assert contents_of(str(path), tmp_path / "out", SMALL) == contents_of(str(path), tmp_path / "fresh", SMALL)


def write_table(path, rows):
    parquet.write_table(pa.table(rows), path)


@pytest.mark.parametrize("change", CHANGES)
def test_a_ready_split_that_is_done_is_made_again_where_it_changed(tmp_path, change):
    source = tmp_path / "source"
    for split in ("train", "val"):
        draw(source / split)
    good = (source / "val/cat/3.png").read_bytes()
    spoil(source, "val/cat/3.png")
    with pytest.raises(PackError):
        pack(str(source), tmp_path / "out", SMALL)
    assert (tmp_path / "out/train" / MANIFEST).exists()
    (source / "val/cat/3.png").write_bytes(good)
    CHANGES[change](source / "train")
    assert contents_of(str(source), tmp_path / "out") == contents_of(str(source), tmp_path / "fresh")


def test_images_that_are_allowed_or_repaired_later_are_not_left_out(tmp_path):
    for split in ("train", "val"):
        draw(tmp_path / "source" / split)
    source = str(tmp_path / "source")
    small = limits_of(119)  # every image has 120 pixels
    Image.new("RGB", (4, 4)).save(tmp_path / "source/train/ant/1.b.png")
    with pytest.raises(PackError):  # train is made of the one that is allowed, val cannot be
        pack(source, tmp_path / "out", SMALL, skip_bad=True, limits=small)
    assert contents_of(source, tmp_path / "out", limits=limits_of(120)) == contents_of(source, tmp_path / "fresh")


def test_narrower_limits_hold_for_what_was_packed_in_wider_ones(tmp_path):
    source, out = unfinished(tmp_path)
    with pytest.raises(PackError, match="18 of 18 images"):
        pack(str(source), out, SMALL, limits=limits_of(119))


@pytest.mark.parametrize(
    ("taken", "words"),
    [
        (lambda out: out.write_text("mine"), "is a file; choose another folder"),
        (lambda out: (out / "mine").mkdir(parents=True), "is not empty; choose another folder"),
        (lambda out: pack(str(draw(out.with_name("source"))), out), "is packed already"),
    ],
)
def test_a_folder_of_something_else_is_never_written_into(tmp_path, taken, words):
    out = tmp_path / "out"
    taken(out)
    before = contents(tmp_path)
    with pytest.raises(DataError, match=words):
        pack("digits", out)
    assert contents(tmp_path) == before


def test_a_pack_is_not_put_into_its_own_source(tmp_path):
    source = draw(tmp_path / "source")
    with pytest.raises(DataError, match="is inside the data set"):
        pack(str(source), source / "packed")
    assert not (source / "packed").exists()


def test_two_processes_do_not_pack_into_one_folder(tmp_path):
    source, out = unfinished(tmp_path)

    def second(done, total):
        with pytest.raises(DataError, match="is being packed by another process"):
            pack(str(source), out, SMALL)

    pack(str(source), out, SMALL, advance=second)
    assert len(Shards(out)) == 18


def test_a_disk_that_will_not_hold_it_is_said_before(tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: module.shutil._ntuple_diskusage(10, 9, 1_200_000))
    with pytest.raises(PackError, match=r"would take about 6 MB more, and 1 MB are free; make room"):
        pack("digits", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_notes_are_swept_away_last_and_that_too_can_be_gone_on_with(tmp_path):
    source, out = unfinished(tmp_path)
    identity = (out / JOB).read_bytes()
    wanted = contents_of(str(source), out)
    (out / JOB).parent.mkdir()
    (out / JOB).write_bytes(identity)
    assert contents_of(str(source), out) == wanted


def test_real_photos(tmp_path):
    source = SHARED / "data/photos/clothing/val"
    if not source.is_dir():
        pytest.skip(f"no reference data: {source} does not exist")
    shards, folder = pack(str(source), tmp_path / "out", 2_000_000, 2)[""], Folder(source)
    assert shards.labels.tolist() == folder.labels.tolist() and shards.classes == folder.classes
    assert all(shards.read(index) == folder.read(index) for index in range(len(folder)))
