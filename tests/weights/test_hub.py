"""Weights by name: the table of what was published, the cache, and who may download."""

import io
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch

from tests.server import serve
from vitlab import download
from vitlab.errors import DownloadError, WeightsError
from vitlab.models.catalog import settings_for
from vitlab.weights import hub
from vitlab.weights.convert import convert
from vitlab.weights.hub import cache_folder, published, resolve
from vitlab.weights.load import find, load
from vitlab.weights.save import save


def npz():
    buffer = io.BytesIO()
    np.savez(buffer, a=np.random.default_rng(0).random(999))
    return buffer.getvalue()


NPZ = npz()
PLACE = "owner/name/resolve/main"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.0)
    monkeypatch.setenv("VITLAB_CACHE", str(tmp_path / "cache"))
    for variable in ("VITLAB_OFFLINE", "HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "cache" / "weights"


@pytest.fixture
def server(monkeypatch):
    with serve() as site:
        monkeypatch.setattr(hub, "HUGGING_FACE", site.url(""))
        yield site


@pytest.fixture
def safetensors(make_model, tmp_path):
    """A model and the bytes of its file."""
    model = make_model()
    path = tmp_path / "made" / "model.safetensors"
    path.parent.mkdir()
    save(model, path)
    return model, path.read_bytes()


def kept(cache):
    return sorted(
        str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"
    )


# The table.


def test_every_published_name_and_address_is_there_once():
    rows = published()
    assert len(rows) > 50
    assert len({row.name for row in rows}) == len({row.url for row in rows}) == len(rows)


@pytest.mark.parametrize("row", published(), ids=lambda row: row.name)
def test_a_published_file_is_of_a_model_that_can_be_built(row):
    assert settings_for(row.model, image_size=row.image_size or 224)
    assert row.trained_on in ("ImageNet", "ImageNet-21k", "ImageNet-21k, then ImageNet")
    assert row.top1 is None or (60 < row.top1 < 95 and row.trained_on != "ImageNet-21k")
    assert re.fullmatch(r"https://storage\.googleapis\.com/(vit|bit)_models/[\w%./-]+\.npz", row.url)
    folder, _, file = row.name.rpartition("/")
    stem = Path(unquote(row.url)).stem
    assert stem.startswith(file) and (stem == file or folder.startswith("augreg"))
    assert not Path(row.name).is_absolute() and not os.path.exists(row.name)


@pytest.mark.parametrize(
    "name", [row for row in published() if row.name.startswith("augreg+") and row.image_size], ids=lambda row: row.name
)
def test_a_fine_tuned_augreg_file_comes_from_the_one_of_the_same_name(name):
    before = {row.name: row.url for row in published()}[name.name.replace("+imagenet2012", "")]
    assert name.url.startswith(before.removesuffix(".npz") + "--imagenet2012-")
    assert name.url.endswith(f"-res_{name.image_size}.npz")


# Names.


def test_a_path_that_exists_is_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("augreg").mkdir()
    Path("augreg/S_16").write_bytes(NPZ)
    assert resolve("augreg/S_16") == Path("augreg/S_16")
    assert resolve(tmp_path) == tmp_path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("imagenet21k/ViT-B_15", "no published weights.*did you mean 'imagenet21k/ViT-B_16'"),
        ("nowhere.npz", "No such file.*check the path, or see `vitlab models --weights`"),
        ("x" * 5000, "No such file"),
        ("hf://name", "write hf://owner/name"),
        ("google/vit-base-patch16-224", "write hf://google/vit-base-patch16-224 for Hugging Face"),
        ("hf:google/vit-base", "write hf://google/vit-base for Hugging Face"),
        ("hf://../name/file", "write hf://owner/name"),
        ("hf://owner/name/../../../../file", "no address of a file that can be kept"),
        ("hf://owner/name/.hidden", "no address of a file that can be kept"),
        ("http://example.invalid/file.npz", "not safe.*https://"),
        ("https://example.invalid/a/../../file.npz", "no address of a file"),
        ("https://example.invalid/%2e%2e/file.npz", "no address of a file"),
        ("https://example.invalid/..%2f..%2fvictim.npz", "no address of a file"),
        ("https://example.invalid/", "no address of a file"),
        ("https://example.invalid", "no address of a file"),
        ("https://../file.npz", "no address of a file"),
        ("https:///file.npz", "not safe"),
        ("https://me@example.invalid/file.npz", "user name"),
        ("https://example.invalid/a file.npz", "space"),
        ("https://example.invalid:99999/file.npz", "no address"),
        ("https://[nonsense/file.npz", "no address"),
    ],
)
def test_a_name_of_nothing_is_refused_before_anything_is_asked(name, words, cache):
    with pytest.raises((DownloadError, WeightsError), match=words):
        resolve(name)
    assert not cache.exists()


@pytest.mark.parametrize("piece", ["a%2f..%2f..%2f..%2fb.npz", "a%5c..%5cb.npz", "%00.npz", "ä+b.npz", "~.npz"])
def test_no_name_climbs_out_of_the_cache(piece, cache):
    parts = hub._place(f"https://example.invalid/folder/{piece}").parts
    assert len(parts) == 3 and all(part.isascii() and part.isprintable() and "\\" not in part for part in parts)


def test_different_addresses_are_kept_apart():
    addresses = ["https://a/b/c.npz", "https://a/b%2Fc.npz", "https://a:1/b/c.npz", "https://a/b/c.npz?v=1"]
    addresses += ["https://a/b/c.npz?v=2", "https://a/b/c+d.npz", "https://a/b/c%20d.npz", "https://b/b/c.npz"]
    assert len({hub._place(address) for address in addresses}) == len(addresses)


def test_where_the_cache_is(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("VITLAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/vitlab")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "vitlab"


# Downloads.


def test_an_address_is_downloaded_once(server, cache):
    url = server.put("/folder/file.npz", NPZ)
    path = resolve(url)
    assert path.read_bytes() == NPZ
    assert path == cache / f"127.0.0.1%3A{server.port}" / "folder" / "file.npz"
    assert resolve(url) == path and resolve(Path(url)) == path
    assert len(server.requests) == 1
    assert kept(cache) == [str(path.relative_to(cache))]


def test_a_published_name_is_downloaded(server, cache, monkeypatch):
    row = published()[0]
    url = server.put("/vit_models/imagenet21k/ViT-B_8.npz", NPZ)
    monkeypatch.setattr(hub, "published", lambda: (row._replace(url=url),))
    assert resolve(row.name).read_bytes() == NPZ
    assert resolve(Path(row.name)).name == "ViT-B_8.npz"


def test_hugging_face_gives_the_weights_and_what_stands_beside_them(server, cache, safetensors):
    model, data = safetensors
    server.put(f"/{PLACE}/model.safetensors", data)
    server.put(f"/{PLACE}/config.json", b"{}")
    path = resolve("hf://owner/name")
    assert sorted(each.name for each in path.parent.iterdir() if each.name[0] != ".") == [
        "config.json",
        "model.safetensors",
    ]
    assert torch.equal(load("hf://owner/name").head.weight, model.head.weight)
    assert find(Path("hf://owner/name/model.safetensors")) == path
    asked = [path for path, _ in server.requests]
    assert asked == [f"/{PLACE}/{name}" for name in ("config.json", "preprocessor_config.json", "model.safetensors")]


def test_an_address_of_hugging_face_brings_what_hf_does(server, cache, make_model, tmp_path):
    """Or the file would be read without its config, by its name too, for as long as it is kept."""
    model = make_model(activation="gelu", classes=("ant", "bee", "cat"))
    folder = convert(model, tmp_path / "out", "huggingface")
    for path in folder.iterdir():
        server.put(f"/{PLACE}/{path.name}", path.read_bytes())
    for name in (server.url(f"/{PLACE}/model.safetensors"), "hf://owner/name"):
        back = load(name)
        assert (back.classes, back.settings) == (model.classes, model.settings)
    assert len(server.requests) == 3


def test_weights_that_were_kept_without_their_config_get_it(server, cache, safetensors, monkeypatch):
    _, data = safetensors
    target = cache / hub._place(server.url(f"/{PLACE}/model.safetensors"))
    target.parent.mkdir(parents=True)
    target.write_bytes(data)
    monkeypatch.setenv("VITLAB_OFFLINE", "1")
    assert resolve("hf://owner/name") == target  # it came by hand, and so could the config
    monkeypatch.delenv("VITLAB_OFFLINE")
    assert find("hf://owner/name", fetch=False) == target and server.requests == []
    server.put(f"/{PLACE}/config.json", b"{}")
    assert resolve("hf://owner/name") == target and target.with_name("config.json").read_bytes() == b"{}"
    asked = [path for path, _ in server.requests]
    assert asked == [f"/{PLACE}/config.json", f"/{PLACE}/preprocessor_config.json"]
    target.with_name("config.json").unlink()
    del server.pages[f"/{PLACE}/config.json"]
    assert [resolve("hf://owner/name") for _ in range(3)] and len(
        server.requests
    ) == 4  # what is not there is asked for once


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"error": "Too many requests"}', r"is an error message \(Too many requests\); try again"),
        (b"Too many requests", "is not JSON .*; try again"),
        (b"[1, 2]", "holds no JSON object"),
        (b'{"a": "' + b"x" * (4 << 20) + b'"}', "is larger than 4,194,304 bytes"),
    ],
)
def test_a_config_that_is_none_is_not_kept(server, cache, safetensors, text, words):
    server.put(f"/{PLACE}/model.safetensors", safetensors[1])
    server.put(f"/{PLACE}/config.json", text)
    with pytest.raises(WeightsError, match=words):
        resolve("hf://owner/name")
    server.put(f"/{PLACE}/config.json", b"{}")
    assert resolve("hf://owner/name").with_name("config.json").read_bytes() == b"{}"


def test_a_repository_without_safetensors_is_asked_for_by_its_file(server, cache):
    server.put(f"/{PLACE}/config.json", b"{}")
    with pytest.raises(WeightsError, match=r"no such file; check the name, .*: hf://owner/name/pytorch_model\.bin$"):
        resolve("hf://owner/name")
    with pytest.raises(DownloadError, match=r"pytorch_model\.bin: there is no such file; check the address"):
        resolve("hf://owner/name/pytorch_model.bin")


def test_a_repository_that_may_be_misspelt_or_gated_is_said_to_be_either(server, cache):
    server.put(f"/{PLACE}/config.json", status=401)
    with pytest.raises(
        DownloadError, match="not there, or may not be read without permission; check the address, or set HF"
    ):
        resolve("hf://owner/name")


def test_a_file_that_rotted_in_the_cache_is_to_be_removed(server, cache, safetensors, tmp_path):
    _, data = safetensors
    url = server.put("/folder/model.safetensors", data)
    path = resolve(url)
    path.write_bytes(data[:-10])
    with pytest.raises(WeightsError, match=f"is a damaged safetensors file .*; remove {path}, and ask for it again"):
        load(url)
    (tmp_path / "mine.safetensors").write_bytes(data[:-10])
    with pytest.raises(WeightsError, match="; get the file again"):
        load(tmp_path / "mine.safetensors")


def test_a_place_that_is_taken_is_named(server, cache):
    for first, second in (("/e/x", "/e/x/y.npz"), ("/g/x/y.npz", "/g/x")):
        resolve(server.put(first, NPZ))
        taken = cache / hub._place(server.url(min(first, second)))
        with pytest.raises(WeightsError, match=f"{taken} is in the way; remove it"):
            resolve(server.put(second, NPZ))


def test_a_file_of_hugging_face_can_be_named(server, cache):
    server.put(f"/{PLACE}/folder/some.npz", NPZ)
    assert resolve("hf://owner/name/folder/some.npz").read_bytes() == NPZ
    assert server.asked(f"/{PLACE}/folder/config.json")


def test_a_file_that_holds_no_weights_or_half_of_them_is_not_kept(server, cache, safetensors):
    _, data = safetensors
    for short in (NPZ[:-100], data[:-10], b"nonsense", b"\x80\x02pickle"):
        url = server.put("/file", short)
        with pytest.raises(WeightsError, match=url):
            resolve(url)
        assert kept(cache) == []


def test_two_processes_download_a_file_once(server, cache):
    go = threading.Event()
    url = server.put("/file.npz", NPZ, wait=go)
    code = f"from vitlab.weights.hub import resolve; print(resolve({url!r}))"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"NO_PROXY": "*"}, **pipes)]
    try:
        both.append(subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"NO_PROXY": "*"}, **pipes))
        said = []
        readers = [threading.Thread(target=lambda each=each: said.append(each.stderr.readline())) for each in both]
        for reader in readers:
            reader.start()
        while not any("waiting" in line for line in said):  # one has the lock, the other says that it waits
            assert all(each.poll() is None for each in both)
        go.set()
        outs = [each.stdout.read() for each in both]
        assert [each.wait() for each in both] == [0, 0]
        for reader in readers:
            reader.join()
    finally:
        go.set()
        for each in both:
            each.kill()
            each.wait()
            each.stdout.close()
            each.stderr.close()
    assert outs[0] == outs[1] and Path(outs[0].strip()).read_bytes() == NPZ
    assert len(server.requests) == 1


def test_a_link_that_leaves_the_cache_is_refused(server, cache, tmp_path):
    url = server.put("/folder/file.npz", NPZ)
    host = cache / hub._place(url).parts[0]
    host.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (host / "folder").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WeightsError, match=r"link that leaves the cache.*remove the link"):
        resolve(url)
    (host / "folder").unlink()
    (host / "folder").mkdir()
    (tmp_path / "victim.npz").write_bytes(NPZ)
    (host / "folder" / "file.npz").symlink_to(tmp_path / "victim.npz")
    with pytest.raises(WeightsError, match="link that leaves the cache"):
        resolve(url)
    assert server.requests == [] and list((tmp_path / "elsewhere").iterdir()) == []


def test_a_cache_that_is_itself_a_link_is_used(server, tmp_path, monkeypatch):
    (tmp_path / "large-disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "large-disk")
    monkeypatch.setenv("VITLAB_CACHE", str(tmp_path / "link"))
    assert resolve(server.put("/file.npz", NPZ)).read_bytes() == NPZ


def test_a_cache_that_cannot_be_written_is_an_error_with_a_remedy(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("VITLAB_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"cannot be written.*VITLAB_CACHE"):
        resolve(server.put("/file.npz", NPZ))


# Without a network.


@pytest.mark.parametrize("variable", ["VITLAB_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_nothing_is_asked_and_the_file_may_come_by_hand(variable, server, cache, monkeypatch):
    monkeypatch.setenv(variable, "1")
    url = server.put("/folder/file.npz", NPZ)
    with pytest.raises(DownloadError) as error:
        resolve(url)
    place = cache / hub._place(url)
    assert str(error.value) == (
        f"{url}: cannot be downloaded ({variable} is set); unset it, or fetch it elsewhere and put it at {place}"
    )
    assert server.requests == []
    place.parent.mkdir(parents=True)
    place.write_bytes(NPZ)
    assert resolve(url) == place


def test_without_a_network_hugging_face_needs_the_file_beside_the_weights_too(monkeypatch, cache):
    with serve() as site:
        monkeypatch.setattr(hub, "HUGGING_FACE", site.url(""))
    with pytest.raises(WeightsError) as error:
        resolve("hf://owner/name")
    message = str(error.value)
    assert "Connection refused" in message and "\n" not in message
    assert f"/{PLACE}/model.safetensors: cannot be downloaded" in message
    assert message.endswith(
        "; try again, or fetch it elsewhere with the config.json and preprocessor_config.json beside it, if there are any, "
        f"and put them into {cache / hub._place(site.url(f'/{PLACE}/x')).parent}"
    )


def test_names_that_came_from_elsewhere_download_nothing(server, cache):
    url = server.put("/file.npz", NPZ)
    for name in (url, "hf://owner/name", "augreg/S_16"):
        with pytest.raises(WeightsError, match="is not on this computer"):
            find(name, fetch=False)
    assert server.requests == [] and not cache.exists()
    assert find(resolve(url), fetch=False) == find(url, fetch=False)
