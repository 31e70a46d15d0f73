import random
import struct
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vitlab.data import pages
from vitlab.data.pages import Chunk, Page, find_pages, read_page
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


OPEN = """
import sys
from pathlib import Path
from vitlab.data.parquet import open_parquet
from vitlab.errors import DataError
for path in sys.argv[1:]:
    try:
        open_parquet([Path(path)], "image", "label")
        print("opened")
    except DataError as error:
        print(error)
"""


def test_a_footer_with_one_wrong_byte_never_ends_the_process(tmp_path):
    path = tmp_path / "x.parquet"
    write(path, pa.array([b"image"] * 4), compression="SNAPPY", use_dictionary=False)
    whole = path.read_bytes()
    start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    paths = []
    for place in range(start, len(whole) - 8):
        if whole[place] in (2, 0x1C, 0x16, 0x15):  # the codec SNAPPY among them, and what fields begin with
            for value in (whole[place] ^ 0x50, 0x81 if whole[place] == 2 else 0x8C):
                paths.append(tmp_path / f"{place}-{value}.parquet")
                paths[-1].write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
    done = subprocess.run([sys.executable, "-c", OPEN, *map(str, paths)], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr[-500:]
    assert len(lines) == len(paths) and "which does not exist" in done.stdout


def test_a_file_with_an_encrypted_column_is_refused(tmp_path):
    encryption = pytest.importorskip("pyarrow.parquet.encryption")

    class Keys(encryption.KmsClient):
        def __init__(self, _):
            super().__init__()

        def wrap_key(self, key, _):
            return key

    path = tmp_path / "x.parquet"
    settings = encryption.EncryptionConfiguration(footer_key="f", column_keys={"k": ["image"]}, plaintext_footer=True)
    properties = encryption.CryptoFactory(Keys).file_encryption_properties(encryption.KmsConnectionConfig(), settings)
    table = pa.table({"image": [b"image"] * 4, "label": [0, 1] * 2})
    pq.write_table(table, path, encryption_properties=properties)
    done = subprocess.run([sys.executable, "-c", OPEN, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    assert "encrypted" in done.stdout


def test_a_label_beyond_its_dictionary_is_refused(tmp_path):
    path = tmp_path / "x.parquet"
    table = pa.table({"image": [b"image"] * 6, "label": ["ant", "bee"] * 3})
    pq.write_table(table, path, compression="NONE", use_dictionary=["label"], write_statistics=False)
    whole = path.read_bytes()
    place = whole.index(b"\x01\x03\x2a", whole.index(b"bee"))  # one bit each, one group of eight: 0 1 0 1 0 1
    for several in (2, 3):
        data = whole[:place] + bytes([2, 12, several]) + whole[place + 3 :]  # two bits each, a run of six
        path.write_bytes(data)
        with pytest.raises(VitlabError, match=r"x\.parquet: cannot be read as parquet"):
            rows_of(path)


def test_bytes_after_the_last_value_of_a_page_are_left(tmp_path):
    content = b"".join(struct.pack("<I", len(value)) + value for value in (b"one", b"three")) + bytes(8)
    (tmp_path / "x").write_bytes(content)
    chunk = Chunk(tmp_path / "x", 0, "image", 2, 0, len(content), len(content), "UNCOMPRESSED", 0)
    page = Page(0, 0, 2, 0, len(content), len(content), 0, 0, 1, -1)  # as fastparquet pads it
    assert [bytes(value) for value in read_page(chunk, page)] == [b"one", b"three"]
    with pytest.raises(ValueError, match="beyond"):
        read_page(chunk, page._replace(size=len(content) - 9))


def test_a_page_without_its_dictionary_is_an_error_and_no_allocation(tmp_path):
    path = tmp_path / "x.parquet"
    rows = write(path, pa.array([b"A" * 9, b"B" * 9] * 20), compression="NONE")
    chunk = rows._chunks[0]
    dictionary = Page(*find_pages(chunk)[0].tolist())
    rest = dictionary.start + dictionary.size - chunk.start
    rows = ParquetRows([chunk._replace(start=chunk.start + rest, size=chunk.size - rest)])
    for index in range(4):
        with pytest.raises(VitlabError, match="cannot be read from"):
            rows.read(index)


def test_a_row_group_decoded_as_a_whole_has_a_bound(tmp_path, monkeypatch):
    images = pa.array([bytes([row // 16]) * 1000 for row in range(320)])
    options = {"column_encoding": {"image": "DELTA_BYTE_ARRAY", "label": "PLAIN"}, "use_dictionary": False}
    rows = write(tmp_path / "x.parquet", images, **options)
    assert rows.read(319)[0] == bytes([19]) * 1000
    monkeypatch.setattr(pages, "_MAX_PAGE", 100_000)
    with pytest.raises(VitlabError, match="row group 0 unpacks to more than 100,000 bytes"):
        rows_of(tmp_path / "x.parquet").read(0)
