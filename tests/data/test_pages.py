import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vitlab.data.parquet import ParquetRows, open_parquet
from vitlab.errors import VitlabError

values = st.lists(st.none() | st.binary(max_size=40) | st.just(b"often the same"), min_size=1, max_size=200)
writers = st.fixed_dictionaries(
    {
        "compression": st.sampled_from(["NONE", "SNAPPY", "GZIP", "ZSTD", "BROTLI", "LZ4"]),
        "data_page_version": st.sampled_from(["1.0", "2.0"]),
        "data_page_size": st.sampled_from([64, 1000, 1 << 20]),
        "write_batch_size": st.sampled_from([1, 7, 1024]),
        "row_group_size": st.sampled_from([1, 50, 1000]),
        "write_page_checksum": st.booleans(),
        "dictionary_pagesize_limit": st.sampled_from([100, 1 << 20]),
    }
)
encodings = st.sampled_from(
    [{}, {"image": "PLAIN"}, {"image": "DELTA_LENGTH_BYTE_ARRAY"}, {"image": "DELTA_BYTE_ARRAY"}]
)


def write(path: Path, images: pa.Array, **options) -> ParquetRows:
    pq.write_table(pa.table({"image": images, "label": [row % 2 for row in range(len(images))]}), path, **options)
    return rows_of(path)


def rows_of(path: Path) -> ParquetRows:
    return ParquetRows(open_parquet([path], "image", "label")[0].images)


def cell(rows: ParquetRows, index: int) -> bytes | None:
    try:
        return rows.read(index)[0]
    except VitlabError as error:
        assert "holds no image" in str(error), error
        return None


@given(values, writers, encodings, st.sampled_from([pa.binary(), pa.large_binary()]), st.booleans(), st.randoms())
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_value_is_what_was_written(tmp_path, content, options, encoding, kind, nested, rng):
    images = pa.array(content, kind)
    if nested:
        images = pa.StructArray.from_arrays([images], ["bytes"], mask=pa.array([value is None for value in content]))
        encoding = {f"{name}.bytes": each for name, each in encoding.items()}
    dictionary = not encoding
    column_encoding = {**encoding, "label": "PLAIN"} if encoding else None
    path = tmp_path / "x.parquet"
    rows = write(path, images, use_dictionary=dictionary, column_encoding=column_encoding, **options)
    order = list(range(len(content)))
    rng.shuffle(order)
    for index in order:
        assert cell(rows, index) == (content[index] or None)


@pytest.mark.parametrize("codec", ["NONE", "SNAPPY", "GZIP"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_damage_is_an_error_and_never_another_exception(tmp_path, codec, version):
    rng = random.Random(0)
    content = [rng.randbytes(rng.randrange(60)) if rng.random() < 0.9 else None for _ in range(60)]
    path = tmp_path / "x.parquet"
    write(path, pa.array(content, pa.binary()), compression=codec, data_page_version=version, data_page_size=200)
    whole = path.read_bytes()
    end = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 1, 5])):
            data[rng.randrange(4, end)] = rng.randrange(256)
        path.write_bytes(data)
        try:
            rows = rows_of(path)
        except VitlabError:
            continue  # the labels
        for index in range(len(content)):
            try:
                rows.read(index)
            except VitlabError as error:
                refused += "cannot be read" in str(error)
                assert "\n" not in str(error)
    assert refused > 50


def test_a_checksum_that_was_written_is_checked(tmp_path):
    path = tmp_path / "x.parquet"
    content = [bytes([row]) * 30 for row in range(20)]
    write(path, pa.array(content), write_page_checksum=True, compression="NONE", use_dictionary=False)
    data = path.read_bytes()
    path.write_bytes(data.replace(content[7], b"!" + content[7][1:]))
    with pytest.raises(VitlabError, match=r"x\.parquet:7: cannot be read from .*wrong checksum"):
        rows_of(path).read(7)


def test_a_file_cut_short_while_it_is_in_use_is_an_error(tmp_path):
    path = tmp_path / "x.parquet"
    rows = write(path, pa.array([bytes(1000)] * 20), row_group_size=4, use_dictionary=False, compression="NONE")
    assert rows.read(0)[0] == bytes(1000)
    path.write_bytes(path.read_bytes()[:6000])
    assert rows.read(0)[0] == bytes(1000)  # its page is kept
    with pytest.raises(VitlabError, match=r"x\.parquet:19: cannot be read"):
        rows.read(19)
    path.unlink()
    with pytest.raises(VitlabError, match=r"x\.parquet:12: cannot be read"):
        rows.read(12)


@pytest.mark.parametrize("dictionary", [False, True])
@pytest.mark.parametrize(("codec", "encoding"), [("ZSTD", None), ("ZSTD", "DELTA_LENGTH_BYTE_ARRAY"), ("BROTLI", None)])
def test_a_page_that_swells_is_refused_before_it_is_decoded(tmp_path, codec, encoding, dictionary, monkeypatch):
    images = pa.array([bytes(40_000_000), b"x"])
    options = {"column_encoding": {"image": encoding, "label": "PLAIN"}} if encoding else {}
    rows = write(
        tmp_path / "x.parquet", images, compression=codec, use_dictionary=dictionary and not encoding, **options
    )
    assert (tmp_path / "x.parquet").stat().st_size < 20_000
    monkeypatch.setattr("vitlab.data.parquet.read_page", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(VitlabError, match=r"x\.parquet:1: .*40,0\d\d,\d\d\d"):
        rows.read(1)
