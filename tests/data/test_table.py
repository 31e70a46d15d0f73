import io
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vitlab.config import parse, to_json
from vitlab.data.image import decode
from vitlab.data.table import Table, find_splits
from vitlab.errors import DataError, ImageError

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (2, 2), (value, value, value)).save(file, "PNG")
    return file.getvalue()


def write(path: Path, labels: list, *, names: list[str] | None = None, images: object = None, group: int = 4) -> Path:
    """A parquet file in the Hugging Face layout; the picture of row i is grey of value i."""
    if images is None:
        content = [{"bytes": png(row), "path": None} for row in range(len(labels))]
        images = pa.array(content, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    rows = pa.table({"image": images, "label": labels})
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        rows = rows.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path, row_group_size=group)
    return path


def value(table: Table, index: int) -> int:
    return int(decode(table.read(index).data, "x")[0, 0, 0])


def test_rows_in_the_hugging_face_layout(tmp_path):
    names = ["dog", "cat", "never"]
    table = Table(write(tmp_path / "x.parquet", [0, 1] * 5, names=names))
    assert table.classes == ("dog", "cat", "never")
    assert table.labels.dtype == np.int64 and table.labels.tolist() == [0, 1] * 5
    assert len(table) == 10
    assert [value(table, index) for index in (9, 0, 4, 3)] == [9, 0, 4, 3]
    assert table.read(7).label == 1 and table.read(7).key == "x.parquet:7"
    assert str(table) == f"{tmp_path}/x.parquet"
    with pytest.raises(IndexError):
        table.read(10)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
@pytest.mark.parametrize("labels", [["b", "a", "b"], pa.array(["b", "a", "b"]).dictionary_encode(), [10, 9, 10]])
def test_columns_of_bytes_and_labels_of_every_kind(tmp_path, kind, labels):
    images = pa.array([png(0), png(1), png(2)], kind)
    table = Table(write(tmp_path / "x.parquet", labels, images=images))
    assert table.classes == (("9", "10") if labels == [10, 9, 10] else ("a", "b"))
    assert table.labels.tolist() == [1, 0, 1]
    assert [value(table, index) for index in range(3)] == [0, 1, 2]


def test_a_folder_of_shards_is_one_table_in_order(tmp_path):
    for shard in (1, 0):
        write(tmp_path / f"train-0000{shard}-of-00002.parquet", [shard] * 6, names=["a", "b"])
    write(tmp_path / "validation-00000-of-00001.parquet", [1, 1], names=["a", "b"])
    assert find_splits(tmp_path) == {"train": "train", "val": "validation"}
    table = Table(tmp_path, subset="train")
    assert table.labels.tolist() == [0] * 6 + [1] * 6
    assert [table.read(index).key for index in (0, 5, 6, 11)] == [
        "train-00000-of-00002.parquet:0",
        "train-00000-of-00002.parquet:5",
        "train-00001-of-00002.parquet:0",
        "train-00001-of-00002.parquet:5",
    ]
    assert [value(table, index) for index in (5, 6, 10)] == [5, 0, 4]
    assert len(Table(tmp_path, subset="val")) == 2
    with pytest.raises(DataError, match="ready splits: train, val"):
        len(Table(tmp_path))
    with pytest.raises(DataError, match="no subset 'vla'; did you mean 'val'"):
        len(Table(tmp_path, subset="vla"))


def test_files_in_sub_folders(tmp_path):
    write(tmp_path / "data" / "test-00000.parquet", [0, 1], names=["a", "b"])
    write(tmp_path / "data" / "train-00000.parquet", [0, 1, 1], names=["a", "b"])
    assert len(Table(tmp_path, subset="test")) == 2 and len(Table(tmp_path, subset="train")) == 3


def test_settings_splits_and_pickles(tmp_path):
    table = Table(str(write(tmp_path / "x.parquet", [0, 1] * 20, names=["a", "b"])))
    assert parse(Table, to_json(table), "x") == table == Table(path=tmp_path / "x.parquet")
    train, test = table.split(test=0.25, seed=1)
    assert len(train) == 30 and sorted([*train.indices, *test.indices]) == list(range(40))
    assert value(test, 3) == test.indices[3] and test.read(3).key == f"x.parquet:{test.indices[3]}"
    data = pickle.dumps(train)
    copy = pickle.loads(data)
    assert len(data) < 500
    assert copy == train and value(copy, 7) == value(train, 7)


def rows(path: Path, lines: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        names = list(lines[0])
        path.write_text("\n".join([",".join(names), *(",".join(str(line[name]) for name in names) for line in lines)]))
    (path.parent / "images").mkdir(exist_ok=True)
    (path.parent / "images" / "1.png").write_bytes(png(1))
    (path.parent / "images" / "2.png").write_bytes(png(2))
    return path


GOOD = [{"file_name": "images/1.png", "label": "dog"}, {"file_name": "images/2.png", "label": "cat"}]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_tables_beside_the_images(tmp_path, name):
    path = rows(tmp_path / name, GOOD)
    for table in (Table(path), Table(tmp_path)):
        assert table.classes == ("cat", "dog") and table.labels.tolist() == [1, 0]
        assert value(table, 0) == 1 and table.read(1).key == "images/2.png"
    (tmp_path / "images/2.png").unlink()
    with pytest.raises(ImageError, match=r"images/2\.png: cannot be read"):
        table.read(1)


def test_a_metadata_file_for_each_split(tmp_path):
    rows(tmp_path / "train/metadata.csv", GOOD)
    rows(tmp_path / "test/metadata.csv", GOOD)
    assert find_splits(tmp_path) == {"train": "train", "test": "test"}
    assert Table(tmp_path, subset="test").read(0).key == "test/images/1.png"


def test_columns_can_be_chosen(tmp_path):
    path = rows(tmp_path / "x.csv", [{"file": "images/1.png", "breed": 2}, {"file": "images/2.png", "breed": 10}])
    table = Table(path, image_column="file", label_column="breed")
    assert table.classes == ("10", "2") and value(table, 1) == 2
    with pytest.raises(DataError, match=r"no column 'file_name'.*from file, breed"):
        len(Table(path))
    parquet = write(tmp_path / "x.parquet", ["a", "b"])
    with pytest.raises(DataError, match=r"no column 'labels'.*from image, label"):
        len(Table(parquet, label_column="labels"))


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x.png", "images/../../x.png", "C:\\x.png", "..\\x.png", "", "a\0b"]
)
def test_a_file_name_stays_in_the_folder(tmp_path, name):
    with pytest.raises(DataError, match=r"x\.jsonl:1: .*(leads out|no file name)"):
        len(Table(rows(tmp_path / "x.jsonl", [GOOD[0], {"file_name": name, "label": "cat"}])))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"file_name": "images/1.png", "label": None}, "x.jsonl:1.*holds None"),
        ({"file_name": "images/1.png", "label": 1.5}, "x.jsonl:1.*holds 1.5"),
        ({"file_name": "images/1.png", "label": True}, "x.jsonl:1.*holds True"),
        ({"file_name": "images/1.png", "label": 3}, "x.jsonl:1.*another type than 'dog'"),
        ({"file_name": "images/1.png"}, "x.jsonl:1.*no column 'label'"),
        ({"file_name": None, "label": "cat"}, "x.jsonl:1.*no file name"),
        ({"file_name": "images/1.png", "label": "dog"}, "only one class"),
        (["images/1.png", "dog"], "x.jsonl:1.*no JSON object"),
    ],
)
def test_a_bad_row_is_named(tmp_path, line, message):
    with pytest.raises(DataError, match=message):
        len(Table(rows(tmp_path / "x.jsonl", [GOOD[0], line])))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "file,label\na,b,c\n", "x.csv:0: has no column 'file_name'; choose .* from file, label$"),
        ("x.csv", "file_name;label\na;b\n", "x.csv:0: has no column 'file_name'; divide .* by commas: .* semicolons"),
        ("x.csv", "file_name\tlabel\na\tb\n", "x.csv:0: has no column 'file_name'; divide .* by commas: .* tabs"),
        ("x.csv", f"file_name,label\na,{'b' * 140_000}\n", "x.csv: cannot be read as csv .field larger"),
        ("x.jsonl", "[" * 100_000, "x.jsonl: cannot be read as jsonl .maximum recursion"),
        ("x.jsonl", '{"file_name": "\\ud800", "label": "a"}', "x.jsonl:0: file name .* none that a file can have"),
    ],
)
def test_a_text_that_makes_no_sense_is_refused_in_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        len(Table(tmp_path / name))


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, None, 1], ["a", "b"], "x.parquet:1.*no label"),
        ([0, 1, 0, 1, 0, -1], ["a", "b"], r"1 labels are outside the 2 class names: -1 in x.parquet:5"),
        ([0, 2], ["a", "b"], "outside"),
        ([0.5, 1.5], None, "holds double, not class names or integers"),
        ([3, 3], None, r"only one class \(3\)"),
        (pa.array([], pa.int64()), ["a", "b"], "no rows"),
    ],
)
def test_a_bad_label_is_named(tmp_path, labels, names, message):
    with pytest.raises(DataError, match=message):
        len(Table(write(tmp_path / "x.parquet", labels, names=names)))


def test_a_row_without_an_image_is_named_when_it_is_read(tmp_path):
    images = pa.array([{"bytes": png(0), "path": "0.png"}, {"bytes": b"", "path": None}, None])
    table = Table(write(tmp_path / "x.parquet", ["a", "b", "a"], images=images))
    for index in (1, 2):
        with pytest.raises(ImageError, match=f"x.parquet:{index}: .*no image"):
            table.read(index)


def test_what_is_no_table_is_refused(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1" + bytes(100))
    (tmp_path / "x.txt").write_text("image,label\n")
    (tmp_path / "latin.csv").write_bytes("file_name,label\né.png,a\n".encode("latin-1"))
    (tmp_path / "empty").mkdir()
    cases = {"x.parquet": "as parquet", "latin.csv": "as csv", "x.txt": "is no table"}
    cases |= {"empty": "holds no table", "y.csv": "does not exist"}
    for name, message in cases.items():
        with pytest.raises(DataError, match=message) as error:
            len(Table(tmp_path / name))
        assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(DataError, match="holds int64, not the bytes"):
        len(Table(write(tmp_path / "z.parquet", ["a", "b"], images=[1, 2])))


def test_files_that_disagree_on_the_classes_are_refused(tmp_path):
    write(tmp_path / "1.parquet", [0, 1], names=["a", "b"])
    write(tmp_path / "2.parquet", [0, 1], names=["b", "a"])
    with pytest.raises(DataError, match=r"2.parquet: .*other class names than 1.parquet: number 0 is 'b', not 'a'"):
        len(Table(tmp_path))


def test_a_real_data_set():
    folder = SHARED / "data" / "fashion-mnist"
    if not folder.exists():
        pytest.skip(f"{folder} is not here")
    test = Table(folder, subset="test")
    assert test.classes[:2] == ("T-shirt/top", "Trouser") and np.bincount(test.labels).tolist() == [1000] * 10
    assert decode(test.read(9_999).data, "x").shape == (28, 28, 3)


def several(name: str, *rows: str) -> str:
    return "\n".join([name, *rows]) + "\n"


CELLS = [(1, 2), (), (0,)]


@pytest.mark.parametrize("shape", [{"feature": {"names": ["a", "b", "c"]}}, [{"names": ["a", "b", "c"]}]])
@pytest.mark.parametrize("kind", [pa.list_, pa.large_list])
def test_lists_of_class_numbers_in_parquet(tmp_path, kind, shape):
    labels = pa.array([[2, 1, 2], [], [0]], kind(pa.int16()))
    path = write(tmp_path / "x.parquet", labels, group=2)
    rows = pq.read_table(path)
    features = json.dumps({"info": {"features": {"label": shape}}})
    pq.write_table(rows.replace_schema_metadata({"huggingface": features}), path, row_group_size=2)
    table = Table(path)
    assert table.classes == ("a", "b", "c")
    assert table.labels.dtype == np.int64 and table.labels.tolist() == [[1, 2], [-1, -1], [0, -1]]
    assert [table.read(index).label for index in range(3)] == CELLS
    train, test = Table(write(tmp_path / "y.parquet", [["a"], ["b"], ["a", "b"]] * 10)).split(0.2)
    assert len(train) + len(test) == 30 and test.labels.ndim == 2


def test_lists_of_names_over_several_files(tmp_path):
    write(tmp_path / "1.parquet", [["b"], ["a", "b"]])
    write(tmp_path / "2.parquet", [[], ["c"]])
    table = Table(tmp_path)
    assert table.classes == ("a", "b", "c")
    assert table.labels.tolist() == [[1, -1], [0, 1], [-1, -1], [2, -1]]
    write(tmp_path / "3.parquet", ["a"])
    with pytest.raises(DataError, match="labels of another type"):
        len(Table(tmp_path))


def test_a_long_name_in_lists_of_many_rows_is_in_memory_once(tmp_path):
    names = pa.DictionaryArray.from_arrays(pa.array([0, 1] * 2000, pa.int32()), pa.array(["x" * 100_000, "y"]))
    labels = pa.ListArray.from_arrays(pa.array(range(4001), pa.int32()), names)
    table = pa.table({"image": [b"image"] * 4000, "labels": labels})
    pq.write_table(table, tmp_path / "x.parquet", store_schema=False, row_group_size=2000)
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    kept = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        assert [len(name) for name in Table(tmp_path / "x.parquet").classes] == [100_000, 1]
    finally:
        pa.set_memory_pool(kept)
    assert pool.max_memory() < 20_000_000


def test_vectors_of_class_numbers_may_have_one_length(tmp_path):
    labels = pa.array([[0, 2], [1, 2], [0, 1]], pa.list_(pa.int64(), 2))
    assert Table(write(tmp_path / "x.parquet", labels)).labels.tolist() == [[0, 2], [1, 2], [0, 1]]


def test_a_column_called_labels_in_csv_is_divided(tmp_path):
    rows(tmp_path / "x.csv", GOOD).write_text(
        several("path,labels", "images/1.png,dog|cat", "images/2.png,", "images/1.png, cat | cat")
    )
    table = Table(tmp_path / "x.csv")
    assert table.classes == ("cat", "dog") and table.labels.tolist() == [[0, 1], [-1, -1], [0, -1]]
    assert table.read(0).label == (0, 1) and table.read(1).label == () and value(table, 1) == 2
    assert parse(Table, to_json(table), "x") == table


def test_path_and_label_in_csv(tmp_path):
    rows(tmp_path / "x.csv", GOOD).write_text(several("path,label", "images/1.png,dog", "images/2.png,cat"))
    table = Table(tmp_path / "x.csv")
    assert table.labels.tolist() == [1, 0] and value(table, 1) == 2


def test_another_separator_and_column_can_be_chosen(tmp_path):
    rows(tmp_path / "x.csv", GOOD).write_text(several("path,tags", "images/1.png,a;b|c", "images/2.png,a"))
    table = Table(tmp_path / "x.csv", label_column="tags", separator=";")
    assert table.classes == ("a", "b|c") and table.labels.tolist() == [[0, 1], [0, -1]]


def test_lists_in_json_lines(tmp_path):
    lines = [{"file_name": "images/1.png", "labels": labels} for labels in (["b", "a"], [], ["a"])]
    table = Table(rows(tmp_path / "x.jsonl", lines))
    assert table.classes == ("a", "b") and table.labels.tolist() == [[0, 1], [-1, -1], [0, -1]]
    lines = [{"file_name": "images/1.png", "label": labels} for labels in ([7, 3], [3])]
    assert Table(rows(tmp_path / "y.jsonl", lines)).classes == ("3", "7")


def test_one_class_that_some_images_do_not_show_can_be_learnt(tmp_path):
    lines = [{"path": "images/1.png", "labels": ["cat"]}, {"path": "images/2.png", "labels": []}]
    assert Table(rows(tmp_path / "x.jsonl", lines)).labels.tolist() == [[0], [-1]]
    with pytest.raises(DataError, match=r"only one class \(cat\)"):
        len(Table(rows(tmp_path / "x.jsonl", lines[:1])))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (several("path,label", "images/1.png,a|b"), "x.csv:0: .*'a|b': one class, or several"),
        (several("path,labels", "images/1.png,a||b"), "x.csv:0: .*name is empty"),
        (several("path,labels", "images/1.png,a", "images/2.png"), "x.csv:1: .*holds None"),
        (several("path,labels", "images/1.png,", "images/2.png,"), "has no labels"),
    ],
)
def test_a_bad_cell_of_csv_is_named(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        len(Table(tmp_path / "x.csv"))


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([["a"], "b"], "x.jsonl:1: .*no list in this row"),
        (["a", ["b"]], "x.jsonl:1: .*a list in this row"),
        ([["a"], ["b", 1]], "x.jsonl:1: label 1 is of another type than 'a'"),
        ([["a", None]], "x.jsonl:0: .*holds None"),
        ([["a", ""]], "x.jsonl:0: .*holds ''"),
        ([[2**70]], "x.jsonl:0: .*not a class name or an integer"),
        ([[0, 1, 0], [1, 1, 0]], "rows of 3 zeros and ones"),
        ([[0, 1], [1, 1]], "rows of 2 zeros and ones"),
    ],
)
def test_a_bad_list_of_json_lines_is_named(tmp_path, cells, message):
    lines = [{"path": "images/1.png", "labels": cell} for cell in cells]
    with pytest.raises(DataError, match=message):
        len(Table(rows(tmp_path / "x.jsonl", lines)))


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([["a"], None, ["b"]], None, "x.parquet:1: .*no label"),
        ([["a"], [], ["b", None]], None, "x.parquet:2: .*no label"),
        ([[0], [], [1, 2]], ["a", "b"], r"1 labels are outside the 2 class names: 2 in x.parquet:2"),
        ([[0.5]], None, "holds list<.*double>, not class names or integers"),
        ([[1, 0, 0], [0, 0, 0]], ["a", "b", "c"], "zeros and ones"),
        ([[], []], None, "has no labels"),
    ],
)
def test_a_bad_list_of_parquet_is_named(tmp_path, labels, names, message):
    with pytest.raises(DataError, match=message):
        len(Table(write(tmp_path / "x.parquet", labels, names=names)))
