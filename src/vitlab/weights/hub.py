"""Weights by name: what was published, where it is, and the folder that keeps what was downloaded."""

import csv
import hashlib
import os
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from vitlab import files
from vitlab.cache import bring, refuse_offline
from vitlab.config import nearest
from vitlab.download import MissingError, UnreachableError, check_address
from vitlab.errors import WeightsError
from vitlab.files import cache_folder
from vitlab.weights.format import open_tensors
from vitlab.weights.layout import config_in

HUGGING_FACE = "https://huggingface.co"
WEIGHTS = "model.safetensors"
COMPANIONS = ("config.json", "preprocessor_config.json")
"""What stands beside weights on Hugging Face and says how to read them."""


class Published(NamedTuple):
    """A published file: the name to ask for it by, what it is, and its top-1 on ImageNet in percent where that was published."""

    name: str
    model: str
    trained_on: str
    image_size: int | None
    top1: float | None
    url: str


@cache
def published() -> tuple[Published, ...]:
    """Return every published file that can be asked for by name."""
    text = resources.files("vitlab.weights").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(
        Published(
            row["name"],
            row["model"],
            row["trained_on"],
            int(row["image_size"]) if row["image_size"] else None,
            float(row["top1"]) if row["top1"] else None,
            row["url"],
        )
        for row in csv.DictReader(text.splitlines())
    )


def resolve(name: str | Path, *, fetch: bool = True) -> Path:
    """Return the file or folder that `name` stands for, after downloading it if need be.

    `name` is a path, a published name, "hf://owner/name" or "hf://owner/name/file", or an https:// address. What was downloaded
    once is not asked for again. Without `fetch` only what is here already is found: for names that come from somewhere else.

    Raises:
        WeightsError: there is nothing of that name, or what came are no weights.
        DownloadError: it cannot be downloaded.
    """
    if os.path.exists(name):  # a name too long for a path is none, and no error
        return Path(name)
    text = re.sub(r"^(hf|https?):/(?!/)", r"\1://", str(name))  # a Path has made one slash of two
    url = _url(text)
    check_address(url, text)
    root = cache_folder() / "weights"
    target = root / _place(url)
    of_hub = url.startswith(f"{HUGGING_FACE}/") and "/resolve/" in url
    try:
        _inside(target, root, text)
        if target.is_file() and (not fetch or not of_hub or _asked(target)):
            return target
        _allowed(url, target, fetch)
        target.parent.mkdir(parents=True, exist_ok=True)
        if of_hub:
            _bring_companions(url, target)
        bring(url, target, _check)
    except UnreachableError as error:
        if target.is_file():  # put there by hand, and all that could be with it
            return target
        if not of_hub:
            raise
        first, beside = error.remedy.partition(", or ")[0], " and ".join(COMPANIONS)
        remedy = f"{first}, or fetch it elsewhere with the {beside} beside it, if there are any, and put them into {target.parent}"
        raise WeightsError(url, error.what, remedy) from None
    except MissingError as error:
        if not of_hub or target.name != WEIGHTS:
            raise
        other = f"{text.removesuffix(f'/{WEIGHTS}')}/pytorch_model.bin"
        raise WeightsError(url, error.what, f"check the name, or ask for what there is instead: {other}") from None
    except OSError as error:
        raise WeightsError(
            target, f"cannot be written ({error.strerror})", "make room, or set VITLAB_CACHE to another folder"
        ) from None
    return target


def _url(name: str) -> str:
    """Return the address of what is called `name`."""
    if name.startswith(("https://", "http://")):
        return name
    if name.startswith("hf://"):
        found = re.fullmatch(r"hf://([\w-][\w.-]*/[\w-][\w.-]*)(?:/(.+))?", name)
        if found is None:
            raise WeightsError(name, "is no model on Hugging Face", "write hf://owner/name or hf://owner/name/file")
        return f"{HUGGING_FACE}/{found[1]}/resolve/main/{quote(found[2] or WEIGHTS)}"
    known = {each.name: each.url for each in published()}
    if name not in known:
        repository = re.fullmatch(r"(?:hf:)?([\w-][\w.-]*/[\w-][\w.-]*)", name)
        hint = f", or write hf://{repository[1]} for Hugging Face" if repository else ""
        otherwise = f"check the path, or see `vitlab models --weights`{hint}"
        what = "No such file, and no published weights of that name"
        raise WeightsError(name, what, nearest(name, list(known), otherwise))
    return known[name]


def _place(url: str) -> Path:
    """Return where in the cache the file at `url` is kept; two addresses never share a place."""
    parts = urlsplit(url)
    pieces = [parts.netloc.lower(), *(unquote(piece) for piece in parts.path.split("/")[1:])]
    if parts.query:
        pieces.insert(-1, "query-" + hashlib.sha256(parts.query.encode()).hexdigest()[:16])
    names = [quote(piece, safe="+=@, ") for piece in pieces]
    if len(names) < 2 or any(not name or name.startswith(".") or len(name) > 240 for name in names):
        raise WeightsError(url, "is no address of a file that can be kept", "give the address of the file itself")
    return Path(*names)


def _inside(target: Path, root: Path, name: str) -> None:
    """Refuse a place that a link leads out of the cache, or where a file is in the way of a folder, or the reverse."""
    taken = next(
        (path for path in (target, *target.parents) if path.exists() and path.is_dir() == (path == target)), None
    )
    if taken is not None and root in taken.parents:
        raise WeightsError(name, f"cannot be kept: {taken} is in the way", "remove it")
    if not target.resolve().is_relative_to(root.resolve()):
        raise WeightsError(name, f"is kept behind a link that leaves the cache ({target})", "remove the link")


def _allowed(url: str, target: Path, fetch: bool) -> None:
    """Refuse to download where that was ruled out."""
    if not fetch:
        raise WeightsError(url, "is not on this computer", "download it first: only what is here is used")
    refuse_offline(url, target)


def _bring_companions(url: str, target: Path) -> None:
    """Download what stands beside weights before the weights, so that where they are, all is."""
    for name in COMPANIONS:
        try:
            bring(f"{url.rpartition('/')[0]}/{name}", target.with_name(name), _check_config)
        except MissingError:  # not every model has it; who needs it will say so
            files.write_bytes(_absent(target, name), b"")


def _asked(target: Path) -> bool:
    """Return whether what stands beside the weights was asked for, or put there: it comes before them, this first."""
    return target.with_name(COMPANIONS[0]).is_file() or _absent(target, COMPANIONS[0]).is_file()


def _absent(target: Path, name: str) -> Path:
    """Return the mark that `name` does not stand beside `target` where that came from."""
    return target.with_name(f".{name}.none")


def is_fetched(path: Path) -> bool:
    """Return whether the file `path` lies in the cache: it stays there until it is removed."""
    return path.resolve().is_relative_to((cache_folder() / "weights").resolve())


def _check_config(path: Path) -> None:
    """Refuse what is no config but a server's complaint."""
    try:
        said = config_in(path.parent, path.name)
    except WeightsError as error:
        raise WeightsError(path, error.what, "try again") from None
    if "error" in said:
        raise WeightsError(path, f"is an error message ({said['error']})", "try again")


def _check(path: Path) -> None:
    """Refuse a file that holds no weights, or whose end is missing."""
    with open_tensors(path):
        pass
