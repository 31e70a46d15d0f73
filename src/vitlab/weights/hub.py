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

from vitlab.cache import bring, refuse_offline
from vitlab.config import nearest
from vitlab.download import MissingError, UnreachableError, check_address
from vitlab.errors import WeightsError
from vitlab.files import cache_folder
from vitlab.weights.format import open_tensors

HUGGING_FACE = "https://huggingface.co"
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
    try:
        _inside(target, root, text)
        if target.is_file():
            return target
        _allowed(url, target, fetch)
        target.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("hf://"):
            _bring_companions(url, target)
        bring(url, target, _check)
    except UnreachableError as error:
        if not text.startswith("hf://"):
            raise
        both = f"try again, or fetch it and the config.json beside it elsewhere and put both into {target.parent}"
        raise WeightsError(url, error.what, both) from None
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
        return f"{HUGGING_FACE}/{found[1]}/resolve/main/{quote(found[2] or 'model.safetensors')}"
    known = {each.name: each.url for each in published()}
    if name not in known:
        otherwise = "check the path, or see `vitlab models --weights`"
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
    """Refuse a place that a link leads out of the cache."""
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
            bring(f"{url.rpartition('/')[0]}/{name}", target.with_name(name))
        except MissingError:
            continue  # not every model has it; who needs it will say so


def _check(path: Path) -> None:
    """Refuse a file that holds no weights, or whose end is missing."""
    with open_tensors(path):
        pass
