import logging
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.test_table import png, value, write
from vitlab.data import parquet
from vitlab.data.open import open_data
from vitlab.data.table import Table, find_splits
from vitlab.errors import DataError, ImageError

STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def test_many_files_are_one_table(tmp_path):
    for number in range(60):
        write(tmp_path / f"data/train-{number:05d}-of-00060.parquet", [number % 3] * 5, names=["a", "b", "c"], group=2)
    table = Table(tmp_path, subset="train")
    assert table.labels.dtype == np.int64 and len(table) == 300 and np.bincount(table.labels).tolist() == [100] * 3
    assert table.read(59 * 5 + 3).key == "train-00059-of-00060.parquet:3"
    order = np.random.default_rng(0).permutation(300).tolist()
    assert [value(table, index) for index in order] == [index % 5 for index in order]
    copy = pickle.loads(pickle.dumps(table))
    assert value(copy, 299) == 4 and "listing" not in vars(pickle.loads(pickle.dumps(table)))


@pytest.mark.parametrize("folder", ["", "data/", "default/", "plain/{}/", "{}/", "data/{}/"])
def test_splits_are_found_where_the_hub_puts_them(tmp_path, folder):
    for split, count in (("train", 6), ("validation", 4)):
        name = "0000.parquet" if "{}" in folder else f"{split}-00000-of-00001.parquet"
        write(tmp_path / folder.format(split) / name, [0, 1] * (count // 2), names=["a", "b"])
    assert find_splits(tmp_path) == {"train": "train", "val": "validation"}
    opened = open_data(str(tmp_path))
    assert len(opened.train) == 6 and len(opened.evals["val"]) == 4


def test_opening_reads_no_image(tmp_path, monkeypatch):
    path = write(tmp_path / "x.parquet", [0, 1] * 50, names=["a", "b"])
    monkeypatch.setattr(parquet, "read_page", lambda *_: pytest.fail("an image was decoded"))
    assert len(Table(path).labels) == 100


def test_a_page_is_decoded_once_while_there_is_room(tmp_path, monkeypatch):
    decoded = []
    read_page = parquet.read_page
    monkeypatch.setattr(parquet, "read_page", lambda chunk, page: decoded.append(page) or read_page(chunk, page))
    images = pa.array([bytes([row]) * 1000 for row in range(20)])
    pq.write_table(
        pa.table({"image": images, "label": [0, 1] * 10}),
        tmp_path / "x.parquet",
        use_dictionary=False,
        data_page_size=2000,
        write_batch_size=1,
    )
    table = Table(tmp_path / "x.parquet")
    for index in (0, 19, 0, 1, 18):
        assert table.read(index).data == bytes([index]) * 1000
    assert len(decoded) == 2 and all(page.rows <= 3 for page in decoded)
    monkeypatch.setattr(parquet, "CACHE_BYTES", 1)
    rows = Table(tmp_path / "x.parquet").listing.rows
    decoded.clear()
    for index in (0, 1, 19, 0):
        rows.read(index)
    assert len(decoded) == 3 and len(rows._cache) == 1


@pytest.mark.parametrize("images", ["path", "both"])
def test_a_path_in_a_row_is_read_beside_the_file(tmp_path, images):
    content = [{"bytes": png(0) if images == "both" else None, "path": "pictures/0.png"}]
    content += [{"bytes": None, "path": "pictures/1.png"}, {"bytes": b"", "path": "pictures/2.png"}]
    (tmp_path / "data/pictures").mkdir(parents=True)
    for row in range(3):
        (tmp_path / f"data/pictures/{row}.png").write_bytes(png(row))
    table = Table(write(tmp_path / "data/x.parquet", ["a", "b", "a"], images=pa.array(content, STRUCT)).parents[1])
    assert [value(table, index) for index in (2, 0, 1)] == [2, 0, 1]
    (tmp_path / "data/pictures/1.png").unlink()
    with pytest.raises(ImageError, match=r"1\.png: cannot be read"):
        table.read(1)


@pytest.mark.parametrize("encoding", ["DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
def test_paths_may_be_in_an_encoding_that_pyarrow_decodes(tmp_path, encoding):
    encodings = {"image.bytes": encoding, "image.path": encoding, "label": "PLAIN"}
    rows = pa.array([{"bytes": png(0), "path": "ä.png"}, {"bytes": None, "path": "ä.png"}], STRUCT)
    table = pa.table({"image": rows, "label": ["a", "b"]})
    pq.write_table(table, tmp_path / "x.parquet", use_dictionary=False, column_encoding=encodings)
    (tmp_path / "ä.png").write_bytes(png(7))
    assert [value(Table(tmp_path), index) for index in (0, 1)] == [0, 7]


@pytest.mark.parametrize("path", ["/etc/hostname", "../secret.png", "a/../../secret.png", "C:\\secret.png"])
def test_a_path_that_leads_out_is_refused(tmp_path, path):
    (tmp_path / "secret.png").write_bytes(png(0))
    rows = pa.array([{"bytes": png(0), "path": None}, {"bytes": None, "path": path}], STRUCT)
    table = Table(write(tmp_path / "in/x.parquet", ["a", "b"], images=rows))
    with pytest.raises(ImageError, match=r"x\.parquet:1: .*leads out of the table's folder"):
        table.read(1)


def test_the_first_file_that_differs_is_named(tmp_path):
    for number in range(4):
        write(tmp_path / f"{number}.parquet", [0, 1], names=["a", "b"])

    def error(name: str) -> str:
        with pytest.raises(DataError) as caught:
            len(Table(tmp_path))
        assert "\n" not in str(caught.value) and str(caught.value).startswith(str(tmp_path / name))
        return str(caught.value)

    write(tmp_path / "2.parquet", [0, 1], names=["a", "c"])
    write(tmp_path / "3.parquet", [0, 1], names=["a"])
    assert "number 1 is 'c', not 'b'" in error("2.parquet")
    write(tmp_path / "2.parquet", [0, 1])
    assert "no in its schema, not 2" in error("2.parquet")
    write(tmp_path / "2.parquet", ["a", "b"])
    assert "labels of another type than 0.parquet: class names, not integers" in error("2.parquet")
    pq.write_table(pa.table({"image": [png(0)], "lable": [0]}), tmp_path / "2.parquet")
    assert "no column 'label'" in error("2.parquet")
    (tmp_path / "2.parquet").write_bytes((tmp_path / "1.parquet").read_bytes()[:-30])
    assert "cannot be read as parquet" in error("2.parquet")
    (tmp_path / "2.parquet").write_bytes(b"")
    assert "cannot be read as parquet" in error("2.parquet")


def test_a_name_of_a_class_is_in_memory_once(tmp_path):
    """Two hundred kilobytes in each of 300,000 rows would be 60 gigabytes."""
    labels = pa.DictionaryArray.from_arrays(np.arange(300_000, dtype=np.int32) % 2, ["a" * 200_000, "b"])
    table = pa.table({"image": pa.array([b"x"] * 300_000), "label": labels})
    pq.write_table(table, tmp_path / "x.parquet", store_schema=False)
    assert (tmp_path / "x.parquet").stat().st_size < 200_000
    assert np.bincount(Table(tmp_path).labels).tolist() == [150_000] * 2


def test_more_rows_than_a_file_can_hold_are_refused(tmp_path):
    rows = pa.table({"image": pa.nulls(9_000_000, pa.binary()), "label": pa.array(np.zeros(9_000_000, np.int64))})
    pq.write_table(rows, tmp_path / "x.parquet", row_group_size=9_000_000)
    with pytest.raises(DataError, match=r"x\.parquet: claims to hold 9,000,000 rows in [\d,]+ bytes"):
        len(Table(tmp_path))


def test_what_is_slow_in_shuffled_order_is_said_once_with_the_remedy(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(parquet, "CACHE_BYTES", 5000)
    caplog.set_level(logging.WARNING, "vitlab")
    slow = write(tmp_path / "slow.parquet", [0, 1] * 50, names=["a", "b"], group=100)
    for _ in range(2):
        len(Table(slow))
    assert len(caplog.messages) == 1
    assert f"{slow}: its pages hold" in caplog.messages[0] and "times what it needs" in caplog.messages[0]
    assert "`vitlab data pack`" in caplog.messages[0]
    len(Table(write(tmp_path / "fast.parquet", [0, 1] * 50, names=["a", "b"], group=4)))
    monkeypatch.setattr(parquet, "CACHE_BYTES", 50_000)
    len(Table(write(tmp_path / "small.parquet", [0, 1] * 50, names=["a", "b"], group=100)))
    assert len(caplog.messages) == 1
