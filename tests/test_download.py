"""Downloads from a server that cuts, lies and redirects: a file is whole under its name, or it is not there."""

import base64
import hashlib
import socket
import threading
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest

from tests.server import serve
from vitlab import download as module
from vitlab.download import Known, MissingError, UnreachableError, download
from vitlab.errors import DownloadError, WeightsError

DATA = np.random.default_rng(0).bytes(300_000)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(module, "BACKOFF_SECONDS", 0.0)
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def server():
    with serve() as site:
        yield site


@pytest.fixture
def target(tmp_path):
    return tmp_path / "file.bin"


def assert_nothing(target):
    assert not target.exists()


def test_a_whole_file_comes_at_once_and_leaves_nothing_beside_it(server, target):
    download(server.put("/file", DATA), target)
    assert target.read_bytes() == DATA
    assert len(server.requests) == 1
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_an_empty_file_is_a_file(server, target):
    download(server.put("/file", b""), target)
    assert target.read_bytes() == b""


def test_a_cut_connection_is_continued_where_it_was_cut(server, target):
    download(server.put("/file", DATA, cuts=[1000, 50_000]), target)
    assert target.read_bytes() == DATA
    ranges = [(headers.get("Range"), headers.get("If-Range")) for headers in server.asked("/file")]
    assert ranges == [(None, None), ("bytes=1000-", '"one"'), ("bytes=51000-", '"one"')]


def test_a_connection_that_is_always_cut_keeps_what_has_come_for_the_next_attempt(server, target):
    url = server.put("/file", DATA, cuts=[1000] + [0] * 20)
    with pytest.raises(UnreachableError, match=r"cut after 1,000 of 300,000 bytes.*fetch it elsewhere and put it at"):
        download(url, target)
    assert_nothing(target)
    server.pages["/file"].cuts.clear()
    server.requests.clear()
    download(url, target)
    assert target.read_bytes() == DATA
    assert [headers["Range"] for headers in server.asked("/file")] == ["bytes=1000-"]


@pytest.mark.parametrize("how", [{"ranges": False}, {"tag": None}, {"tag": 'W/"weak"'}], ids=str)
def test_where_a_part_cannot_be_continued_the_file_is_fetched_anew(server, target, how):
    download(server.put("/file", DATA, cuts=[1000], **how), target)
    assert target.read_bytes() == DATA
    assert len(server.requests) == 2
    asked = server.asked("/file")[1]
    assert ("Range" in asked) == ("If-Range" in asked) == ("ranges" in how)  # a weak tag says nothing of bytes


@pytest.mark.parametrize("tag", [b"\xff\xfe\0", b"one", b'"a\nb"', b'W/"one"', b""])
def test_a_tag_that_rotted_beside_the_part_is_none(server, target, tag):
    target.with_name(f".{target.name}.part").write_bytes(DATA[::-1][:1000])
    target.with_name(f".{target.name}.etag").write_bytes(tag)
    download(server.put("/file", DATA, tag=tag.decode("latin-1") if tag.isalnum() else '"one"'), target)
    assert target.read_bytes() == DATA and "Range" not in server.asked("/file")[0]


@pytest.mark.parametrize(
    "how", [{}, {"tag": '"two"', "trusting": True}, {"data": DATA[::-1]}], ids=["same", "tag", "data"]
)
def test_a_part_that_is_all_but_has_no_name_yet_is_not_fetched_again(server, target, how):
    url = server.put("/file", DATA, cuts=[len(DATA) - 1] + [0] * 20)
    with pytest.raises(UnreachableError):
        download(url, target)
    with target.with_name(f".{target.name}.part").open("ab") as part:
        part.write(DATA[-1:])
    server.requests.clear()
    changed = {"data": DATA, "headers": checksum("sha256", how.get("data", DATA))} | how
    server.put("/file", **changed)
    if "data" in how:
        with pytest.raises(DownloadError, match="came damaged"):
            download(url, target)
        return
    download(url, target)
    assert target.read_bytes() == DATA
    assert len(server.requests) == (2 if "tag" in how else 1)  # of another tag it is another file


@pytest.mark.parametrize("trusting", [False, True])
def test_a_file_that_has_changed_is_fetched_anew(server, target, trusting):
    url = server.put("/file", DATA, cuts=[1000] + [0] * 20)
    with pytest.raises(UnreachableError):
        download(url, target)
    server.put("/file", DATA[::-1], tag='"two"', trusting=trusting)
    download(url, target)
    assert target.read_bytes() == DATA[::-1]


def test_a_part_longer_than_the_file_is_fetched_anew(server, target):
    url = server.put("/file", DATA, cuts=[1000] + [0] * 20)
    with pytest.raises(UnreachableError):
        download(url, target)
    server.put("/file", DATA[:500])
    download(url, target)
    assert target.read_bytes() == DATA[:500]


def test_a_part_of_another_range_than_asked_for_is_not_taken(server, target):
    url = server.put("/file", DATA, cuts=[1000] + [0] * 20)
    with pytest.raises(UnreachableError):
        download(url, target)
    server.put("/file", DATA, status=206, headers={"Content-Range": "bytes 7-299999/300000"})
    server.pages["/file"].ranges = False
    with pytest.raises(UnreachableError, match="no such range"):
        download(url, target)
    assert_nothing(target)


def test_a_length_that_promises_too_much_is_no_whole_file(server, target):
    with pytest.raises(UnreachableError, match=r"300,000 of 300,001 bytes"):
        download(server.put("/file", DATA, length=len(DATA) + 1, ranges=False), target)
    assert_nothing(target)


def checksum(kind, data):
    if kind == "md5":
        return {"x-goog-hash": "crc32c=AAAAAA==,md5=" + base64.b64encode(hashlib.md5(data).digest()).decode()}
    return {"X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"'}


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_length_that_promises_too_little_is_found_by_the_checksum(server, target, kind):
    with pytest.raises(DownloadError, match=rf"came damaged \(its {kind} is .*try again"):
        download(server.put("/file", DATA, length=1000, headers=checksum(kind, DATA)), target)
    assert list(target.parent.iterdir()) == []


def test_a_length_that_promises_too_little_is_found_by_the_check_of_the_content(server, target):
    def check(path):
        if path.read_bytes() != DATA:
            raise WeightsError(path, "is short")

    url = server.put("/file", DATA, length=1000)
    with pytest.raises(WeightsError, match=f"{url}: is short"):
        download(url, target, check)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_the_checksum_is_that_of_all_pieces_together(server, target, kind):
    download(server.put("/file", DATA, cuts=[1000], headers=checksum(kind, DATA)), target)
    assert target.read_bytes() == DATA


def test_a_checksum_named_on_the_way_counts(server, target):
    server.put("/file", DATA)
    url = server.put("/first", status=302, headers={"Location": "/file"} | checksum("sha256", DATA[1:]))
    with pytest.raises(DownloadError, match="sha256"):
        download(url, target)


def test_what_is_no_checksum_is_not_taken_for_one(server, target):
    headers = {"x-goog-hash": "md5=nonsense", "X-Linked-Etag": '"0123456789abcdef"'}
    download(server.put("/file", DATA, headers=headers), target)
    assert target.read_bytes() == DATA


def test_a_file_in_chunks_is_whole_when_its_end_has_come(server, target):
    download(server.put("/file", DATA, chunked=True), target)
    assert target.read_bytes() == DATA


def test_a_file_in_chunks_without_its_end_is_not_whole(server, target):
    with pytest.raises(UnreachableError, match="cut"):
        download(server.put("/file", b"5\r\nhel", chunked=True, cuts=[6] * 20), target)
    assert_nothing(target)


NINES = "9" * 5000


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (f"HTTP/1.1 200 OK\r\nContent-Length: {NINES}\r\n\r\nabc", "does not say how long"),
        (f"HTTP/1.1 206 OK\r\nContent-Range: bytes 0-{NINES}/{NINES}\r\nContent-Length: 3\r\n\r\nabc", "no such range"),
        (f"HTTP/1.1 416 No\r\nContent-Range: bytes */{NINES}\r\nContent-Length: 0\r\n\r\n", "no such range"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc", "cut"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc", "cut"),
        ("HELLO\r\nerror: of another line\r\n\r\n", "HELLO"),
    ],
    ids=range(6),
)
def test_an_answer_that_makes_no_sense_is_one_line(target, answer, words):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve_forever():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer.encode())

        thread = threading.Thread(target=serve_forever)
        thread.start()
        try:
            with pytest.raises(DownloadError, match=words) as error:
                download(f"http://127.0.0.1:{listener.getsockname()[1]}/file", target)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
    assert "\n" not in str(error.value)
    assert_nothing(target)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"data": b"<!DOCTYPE html><p>Sign in"}, "is a web page"),
        ({"data": b"\n <html>"}, "is a web page"),
        ({"data": DATA, "headers": {"Content-Type": "text/html; charset=utf-8"}}, "is a web page"),
        ({"data": DATA, "headers": {"Content-Encoding": "gzip"}}, "compressed"),
        ({"data": DATA, "silent": True}, "does not say how long"),
        ({"data": DATA, "length": (16 << 30) + 1}, "more than 16 GiB"),
        ({"status": 401}, "permission.*HF_TOKEN"),
        ({"status": 403}, "permission"),
        ({"status": 418}, "answers 418"),
        ({"status": 302, "headers": {"Location": "http://[nonsense"}}, "no address"),
        ({"status": 302, "headers": {"Location": "http://example.invalid/file"}}, "not safe.*https://"),
        ({"status": 302, "headers": {"Location": "file:///etc/passwd"}}, "not safe"),
        ({"status": 302, "headers": {"Location": "ftp://127.0.0.1/file"}}, "not safe"),
        ({"status": 302, "headers": {"Location": "https://me:secret@example.invalid/"}}, "password"),
        ({"status": 302, "headers": {"Location": "/file"}}, "redirects more than 5 times"),
    ],
    ids=str,
)
def test_what_is_no_file_is_refused_without_another_attempt(server, target, how, words):
    with pytest.raises(DownloadError, match=words):
        download(server.put("/file", **how), target)
    assert_nothing(target)
    assert len(server.requests) == (6 if "more than 5" in words else 1)


def test_a_page_that_is_not_there_is_an_error_of_its_own(server, target):
    with pytest.raises(MissingError, match="no such file"):
        download(server.url("/file"), target)
    assert list(target.parent.iterdir()) == []


def test_a_server_in_trouble_is_asked_again(server, target):
    download(server.put("/file", DATA, statuses=[500, 503, 429]), target)
    assert target.read_bytes() == DATA


def test_a_server_that_stays_in_trouble_is_given_up(server, target):
    with pytest.raises(UnreachableError, match="answers 500"):
        download(server.put("/file", status=500), target)
    assert len(server.requests) == module.RETRIES + 1


def test_redirects_are_followed(server, target):
    server.put("/file", DATA)
    for number in range(1, module.REDIRECTS + 1):
        after = f"/{number + 1}" if number < module.REDIRECTS else server.url("/file", "localhost")
        server.put(f"/{number}", status=307, headers={"Location": after})
    download(server.url("/1"), target)
    assert target.read_bytes() == DATA


def test_no_other_server_may_send_one_to_this_computer():
    with pytest.raises(DownloadError, match="redirects to this computer"):
        module.check_address("http://127.0.0.1/file", "https://example.invalid/", local=False)


def test_the_token_goes_to_its_own_host_and_nowhere_else(server, target, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr(module, "TOKEN_HOST", "127.0.0.1")
    server.put("/file", DATA)
    url = server.put("/first", status=302, headers={"Location": server.url("/file", "localhost")})
    download(url, target)
    assert [headers.get("Authorization") for headers in server.asked("/first")] == ["Bearer secret"]
    assert [headers.get("Authorization") for headers in server.asked("/file")] == [None]
    monkeypatch.setattr(module, "TOKEN_HOST", "huggingface.co")
    download(url, target)
    assert "Authorization" not in server.asked("/first")[-1]


def test_a_token_may_have_the_end_of_its_line_with_it(server, target, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", " secret\r\n")
    monkeypatch.setattr(module, "TOKEN_HOST", "127.0.0.1")
    download(server.put("/file", DATA), target)
    assert server.asked("/file")[0]["Authorization"] == "Bearer secret"


@pytest.mark.parametrize("token", ["sec\nret", "sec ret", "secret’", "sec\x1bret"])
def test_what_is_no_token_is_refused_without_being_shown(server, target, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr(module, "TOKEN_HOST", "127.0.0.1")
    with pytest.raises(DownloadError, match="HF_TOKEN: holds a character that no token has; set it again") as error:
        download(server.put("/file", DATA), target)
    assert "sec" not in str(error.value).replace("set it", "") and server.requests == []


def test_nobody_listening_is_said_at_once_with_what_to_do(target):
    with serve() as site:
        url = site.url("/file")
    with pytest.raises(UnreachableError) as error:
        download(url, target)
    assert str(error.value).startswith(f"{url}: cannot be downloaded (127.0.0.1: Connection refused)")
    assert str(error.value).endswith(f"fetch it elsewhere and put it at {target}")
    assert "\n" not in str(error.value)


def test_ctrl_c_leaves_what_has_come_for_the_next_attempt(server, target, monkeypatch):
    interrupt = Mock(side_effect=KeyboardInterrupt)
    url = server.put("/file", DATA, cuts=[1000])
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=interrupt, monotonic=float))
    with pytest.raises(KeyboardInterrupt):
        download(url, target)
    assert_nothing(target)
    download(url, target)
    assert target.read_bytes() == DATA
    assert server.asked("/file")[-1]["Range"] == "bytes=1000-"


def test_a_link_in_the_place_of_the_part_is_not_written_through(server, target):
    victim = target.with_name("victim")
    victim.write_text("mine")
    target.with_name(f".{target.name}.part").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        download(server.put("/file", DATA), target)
    assert victim.read_text() == "mine"


def test_a_long_download_is_announced_on_standard_error(server, target, monkeypatch, capsys):
    monkeypatch.setattr(module, "QUIET_BYTES", 100)
    monkeypatch.setattr(module, "PLAIN_SECONDS", -1.0)
    url = server.put("/file", DATA)
    download(url, target)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"downloading {url}, 0 MiB\n") and "downloading: 0 of 0 MiB" in said.err


# What was published of a file beforehand.


def test_a_file_that_is_as_published_is_kept(server, target):
    download(server.put("/file", DATA), target, known=Known(len(DATA), hashlib.sha256(DATA).hexdigest()))
    assert target.read_bytes() == DATA


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (Known(size=len(DATA) + 1), "has 300,000 bytes, not 300,001 as published"),
        (Known(size=len(DATA) - 1), "more than 299,999 bytes"),
        (Known(most=1000), "more than 1,000 bytes"),
        (Known(sha256="0" * 64), "came damaged .its sha256 is"),
    ],
    ids=str,
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_that_is_not_as_published_is_not_kept(server, target, known, words, chunked):
    with pytest.raises(DownloadError, match=words):
        download(server.put("/file", DATA, chunked=chunked), target, known=known)
    assert_nothing(target)


def test_a_known_checksum_makes_an_address_without_encryption_good_enough():
    with pytest.raises(DownloadError, match="not safe"):
        module.check_address("http://example.invalid/file", "name")
    module.check_address("http://example.invalid/file", "name", plain=True)
    with pytest.raises(DownloadError, match="not safe"):
        module.check_address("ftp://example.invalid/file", "name", plain=True)
