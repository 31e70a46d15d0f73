import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.data.test_table import png, value
from vitlab.data.open import open_data
from vitlab.data.table import Table
from vitlab.errors import DataError, ImageError

STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def save(path: Path, labels: object, *, names: list[str] | None = None, images: object = None, **options) -> Path:
    """An Arrow file as `datasets.save_to_disk` writes it; the picture of row i is grey of value i."""
    count = len(labels)
    content = [{"bytes": png(row), "path": None} for row in range(count)] if images is None else images
    table = pa.table({"extra": ["é"] * count, "image": pa.array(content, STRUCT), "label": labels})
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.ipc.new_stream(str(path), table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=3)
    (path.parent / "state.json").write_text("{}")
    (path.parent / "dataset_info.json").write_text("{}")
    return path


def test_a_saved_data_set_is_a_table(tmp_path):
    for number in range(3):
        save(tmp_path / f"data-0000{number}-of-00003.arrow", [0, 1] * 5, names=["dog", "cat"])
    save(tmp_path / "cache-1234.arrow", [5, 6])  # what a map() left there
    table = open_data(str(tmp_path)).whole
    assert table == Table(tmp_path) and table.classes == ("dog", "cat") and table.labels.tolist() == [0, 1] * 15
    order = np.random.default_rng(0).permutation(30).tolist()
    assert [value(table, index) for index in order] == [index % 10 for index in order]
    assert table.read(25).key == "data-00002-of-00003.arrow:5"
    with pytest.raises(IndexError):
        table.read(30)


def test_a_saved_data_set_with_splits(tmp_path):
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    save(tmp_path / "train/data-00000-of-00001.arrow", [0, 1] * 5, names=["dog", "cat"])
    save(tmp_path / "validation/data-00000-of-00001.arrow", [0, 1], names=["dog", "cat"])
    opened = open_data(str(tmp_path))
    assert len(opened.train) == 10 and opened.evals == {"val": Table(tmp_path, subset="validation")}


def test_a_row_may_name_a_file_beside(tmp_path):
    rows = [{"bytes": None, "path": path} for path in ("1.png", "../1.png", "/etc/hostname", None, "")]
    (tmp_path / "1.png").write_bytes(png(7))
    table = Table(save(tmp_path / "x.arrow", ["a", "b", "a", "a", "a"], images=[*rows[:4], None]))
    assert value(table, 0) == 7
    for index, message in ((1, "leads out"), (2, "leads out"), (3, "holds no image"), (4, "holds no image")):
        with pytest.raises(ImageError, match=rf"x\.arrow:{index}: .*{message}"):
            table.read(index)


def test_a_column_whose_name_is_no_text_is_refused(tmp_path):
    path = save(tmp_path / "x.arrow", [0, 1])
    path.write_bytes(path.read_bytes().replace(b"label", b"\xffabel"))
    with pytest.raises(DataError, match=r"x\.arrow: cannot be read as arrow"):
        len(Table(path))


def test_what_cannot_be_mapped_is_refused(tmp_path):
    whole = save(tmp_path / "x.arrow", [0, 1] * 10, names=["a", "b"]).read_bytes()

    def error(data: bytes) -> str:
        (tmp_path / "x.arrow").write_bytes(data)
        with pytest.raises(DataError, match=r"x\.arrow: ") as caught:
            len(Table(tmp_path / "x.arrow"))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    batch = whole.index(b"\xff\xff\xff\xff", 1500)  # a stream that ends between two batches is whole to Arrow
    assert "cut short" in error(whole[:batch]) and "cut short" in error(whole[:-8])
    for length in (0, 3, 200, len(whole) // 2):
        assert "cannot be read as arrow" in error(whole[:length])
    for codec in ("zstd", "lz4"):
        packed = save(tmp_path / "packed.arrow", [0, 1] * 10, names=["a", "b"], compression=codec)
        assert "is compressed" in error(packed.read_bytes())
    names = save(tmp_path / "names.arrow", pa.array(["a", "b"]).dictionary_encode(), names=["a", "b"])
    assert "has dictionaries" in error(names.read_bytes())


def test_offsets_that_lead_out_of_the_file_are_refused(tmp_path):
    path = save(tmp_path / "x.arrow", [0, 1, 0], names=["a", "b"])
    offsets = np.cumsum([0, *(len(png(row)) for row in range(3))]).astype(np.int32)
    data = path.read_bytes()
    assert data.count(offsets.tobytes()) == 1
    for place, wrong in ((3, 1 << 30), (2, -5), (1, int(offsets[3]))):
        changed = offsets.copy()
        changed[place] = wrong
        path.write_bytes(data.replace(offsets.tobytes(), changed.tobytes()))
        with pytest.raises(DataError, match=r"x\.arrow: cannot be read as arrow"):
            len(Table(path))
