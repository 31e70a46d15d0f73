import io
import os
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from vitlab.data.gallery import Files, open_gallery
from vitlab.data.pack import pack
from vitlab.errors import DataError, ImageError

KNOWN = frozenset(("ant", "bee"))


def png(value=0):
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def put(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png())


def keys(gallery):
    assert [gallery.read(index).key for index in range(len(gallery))] == [
        gallery.key(index) for index in range(len(gallery))
    ]
    return [gallery.key(index) for index in range(len(gallery))]


def shown(gallery):
    return [gallery.shown(index, KNOWN) for index in range(len(gallery))]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files_and_folders_come_in_the_order_given_and_sorted_within(here):
    put(here, "flat/b.png", "flat/a.png", "flat/sub/c.png", "flat/.hidden.png", "flat/a.txt", "z.png")
    gallery = open_gallery(["z.png", "flat", "./z.png"])
    assert keys(gallery) == ["z.png", "flat/a.png", "flat/b.png", "flat/sub/c.png", "z.png"]
    assert shown(gallery) == [None] * 5 and gallery.labelled(KNOWN) is None


def test_a_folder_called_as_a_class_is_a_label_at_any_depth(here):
    put(here, "photos/train/ant/1.png", "photos/val/bee/deep/ant/2.png", "photos/loose.png", "photos/cow/3.png")
    gallery = open_gallery(["photos", "photos/train/ant/1.png"])
    found = dict(zip(keys(gallery)[:4], shown(gallery), strict=False))
    assert found == {
        "photos/cow/3.png": None,
        "photos/loose.png": None,
        "photos/train/ant/1.png": ("ant",),
        "photos/val/bee/deep/ant/2.png": ("bee",),
    }
    assert shown(gallery)[4] is None  # which of the folders above a lone file would it be?
    assert gallery.labelled(KNOWN) == "label" and gallery.labelled(frozenset(("dog",))) is None


def test_a_pattern_that_the_shell_left_alone_is_found_out_here(here):
    put(here, "a/1.png", "a/2.png", "b/c/3.png", "odd[1].png")
    assert keys(open_gallery(["a/*.png"])) == ["a/1.png", "a/2.png"]
    assert keys(open_gallery(["**/*.png"])) == ["a/1.png", "a/2.png", "b/c/3.png", "odd[1].png"]
    assert keys(open_gallery(["odd[1].png"])) == ["odd[1].png"]  # a file of that name is no pattern
    with pytest.raises(DataError, match=r"x/\*: fits no file"):
        open_gallery(["x/*"])


@pytest.mark.parametrize("between", ["\n", "\r\n", "\0"])
def test_paths_are_listed_one_a_line_and_one_that_is_missing_is_a_bad_image(here, between):
    put(here, "a.png", "folder/b.png", "c.png")
    gallery = open_gallery(["c.png", "-"], between.join(["a.png", "gone.png", "folder", ""]))
    assert [gallery.key(index) for index in range(4)] == ["c.png", "a.png", "gone.png", "folder/b.png"]
    with pytest.raises(ImageError, match=r"gone\.png: cannot be read \(No such file"):
        gallery.read(2)


def test_names_that_no_text_can_hold_are_escaped_and_read(here):
    odd = os.fsdecode(b"\xff\xfe.png")
    put(here, "f/ü 猫.png", "f/new\nline.png", f"f/{odd}")
    gallery = open_gallery(["f"])
    assert keys(gallery) == ["f/new\nline.png", "f/ü 猫.png", "f/\\udcff\\udcfe.png"]
    assert all(isinstance(gallery.read(index).data, bytes) for index in range(3))


def write_table(path, count=3, **columns):
    images = [{"bytes": png(index), "path": None} for index in range(count)]
    pyarrow.parquet.write_table(pa.table({"image": images, **columns}), path)


def test_a_table_needs_no_labels_and_useless_ones_are_left_out_with_a_word(here, caplog):
    write_table(here / "none.parquet")
    write_table(here / "one.parquet", label=["ant", None, "ant"])
    write_table(here / "good.parquet", label=["ant", "bee", "ant"])
    write_table(here / "several.parquet", label=[["ant"], [], ["ant", "bee"]])
    for name in ("none", "one"):
        gallery = open_gallery([f"{name}.parquet"], labelled=True)
        assert keys(gallery) == [f"{name}.parquet:{row}" for row in range(3)] and shown(gallery) == [None] * 3
    assert "one.parquet: its labels are left out: column 'label' holds no label in this row" in caplog.text
    assert shown(open_gallery(["good.parquet"], labelled=True)) == [("ant",), ("bee",), ("ant",)]
    several = open_gallery(["several.parquet", "good.parquet"], labelled=True)
    assert shown(several)[:4] == [("ant",), (), ("ant", "bee"), ("ant",)] and several.labelled(KNOWN) == "labels"
    assert shown(open_gallery(["good.parquet"])) == [None] * 3


def test_a_list_of_file_names_needs_no_labels_either(here):
    put(here, "d/1.png", "d/2.png")
    (here / "list.csv").write_text("path\nd/2.png\nd/1.png\n")
    (here / "list.jsonl").write_text('{"path": "d/1.png"}\n')
    assert keys(open_gallery(["list.csv", "list.jsonl"], labelled=True)) == ["d/2.png", "d/1.png", "d/1.png"]


def test_every_split_of_a_table_belongs_to_it_and_is_said_in_the_key(here):
    (here / "data/train").mkdir(parents=True)
    (here / "data/test").mkdir()
    write_table(here / "data/train/0.parquet", 2)
    write_table(here / "data/test/0.parquet", 1)
    assert keys(open_gallery(["data"])) == ["train/0.parquet:0", "train/0.parquet:1", "test/0.parquet:0"]


def test_a_parquet_file_beside_images_makes_them_no_table(here):
    put(here, "photos/a.png")
    write_table(here / "photos/predictions.parquet")
    assert keys(open_gallery(["photos"])) == ["photos/a.png"]


def test_tar_files_need_no_labels(here):
    with tarfile.open(here / "x.tar", "w") as tar:
        for name, data in {"0.jpg": png(), "0.json": b"{}", "1.json": b"{}", "2.jpg": png(2)}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    gallery = open_gallery(["x.tar"], labelled=True)
    assert [gallery.read(index).key for index in range(len(gallery))] == ["x.tar:0.jpg", "x.tar:2.jpg"]


def test_a_pack_and_the_data_sets_with_names_are_images_too(here):
    put(here, "photos/ant/1.png", "photos/ant/2.png", "photos/bee/1.png")
    pack("photos", here / "packed")
    gallery = open_gallery(["packed", "digits"], labelled=True)
    assert len(gallery) == 3 + 1797
    assert [gallery.read(index).key for index in range(3)] == ["ant/1.png", "ant/2.png", "bee/1.png"]
    assert shown(gallery)[:3] == [("ant",), ("ant",), ("bee",)]


def test_what_holds_no_image_is_refused(here):
    (here / "empty").mkdir()
    with pytest.raises(DataError, match="empty: holds no images"):
        open_gallery(["empty"])
    with pytest.raises(DataError, match="-: names no images"):
        open_gallery(["-"], "\n\n")
    with pytest.raises(DataError, match="digit: does not exist"):
        open_gallery(["digit"])


def test_the_hash_follows_the_names_the_order_and_the_rows(here):
    put(here, "a.png", "b.png", "f/a.png")
    write_table(here / "t.parquet")
    lists = (["a.png", "b.png"], ["b.png", "a.png"], ["a.png"], ["f"], ["f/a.png"], ["t.parquet"])
    hashes = [open_gallery(names).digest() for names in lists]
    assert len(set(hashes)) == len(lists) and hashes == [open_gallery(names).digest() for names in lists]
    write_table(here / "t.parquet", label=["ant", "bee", "ant"])
    assert open_gallery(["t.parquet"]).digest() != hashes[-1]


def test_a_million_names_are_little_memory():
    files = Files("folder", (f"2024/11/IMG_{number:07d}.jpeg" for number in range(100_000)))
    assert len(files.block) + files.ends.nbytes < 4_000_000
    assert files.key(99_999) == "folder/2024/11/IMG_0099999.jpeg" and len(files) == 100_000
