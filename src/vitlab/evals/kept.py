"""Features that are computed once: kept in files that are found again by what they were computed from.

The name of a file is a hash of the bytes of the weights, the settings, the ImageSpec, the code and the libraries that prepare and
compute, the device, and the content of the images: not their paths or times. So a file is never found for anything else, and data
that moved, were renamed or are given in another subset keep theirs. It costs a read of the images, which is little beside a model.
"""

import hashlib
import json
import logging
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray

from vitlab import files
from vitlab.config import to_json
from vitlab.data.digits import Digits
from vitlab.data.duplicates import DIGEST_BYTES, Digests, digest_of
from vitlab.data.fractals import Fractals
from vitlab.data.labels import Labels
from vitlab.data.loader import bad_images_error
from vitlab.data.preprocess import ImageSpec
from vitlab.data.scan import scan
from vitlab.data.shards import Shards
from vitlab.data.source import Example, Source, Subset, name_of
from vitlab.data.store import is_address
from vitlab.errors import DataError, ImageError, WeightsError
from vitlab.evals.features import Seen, stream
from vitlab.models.classifier import Classifier
from vitlab.weights.format import open_tensors

PIECE = 8192
"""Examples a file: what an interruption loses at most, and what is computed again when one image of many changes."""
_TENSOR, _SUM = "features", "sha256"
_log = logging.getLogger("vitlab")


def kept_features(
    model: Classifier,
    source: Source,
    batch_size: int = 64,
    workers: int = 0,
    seen: Seen = lambda _, __: None,
    folder: Path | None = None,
) -> NDArray[np.float32]:
    """Return the features of every example of `source` in order, float32 [n, r], computing only those that `folder` lacks.

    `folder` is "features" in the cache by default, and may be removed at any time. A file that is damaged is computed again,
    and one that cannot be written is done without; both are logged.

    Raises:
        BadImagesError: some images cannot be read or decoded; each is named.
        DataError: the features of an example are not finite, or it changed meanwhile; it is named.
    """
    folder = files.cache_folder() / "features" if folder is None else folder
    contents, comparable = _contents(source, model.image_spec, workers)
    recipe = _recipe(model, batch_size)
    pieces = [np.arange(start, min(start + PIECE, len(source))) for start in range(0, len(source), PIECE)]
    paths = [folder / f"{_hash(recipe, contents[piece].tobytes())}.safetensors" for piece in pieces]
    out, missing = _found(pieces, paths, len(source))
    if not missing:
        return out
    wanted = np.concatenate([pieces[number] for number in missing])
    ends = np.cumsum([len(pieces[number]) for number in missing]).tolist()
    rest = Subset(Unchanged(source, contents) if comparable else source, wanted)
    done = 0
    for values in stream(model, rest, batch_size, workers):
        out = out if out.size else np.empty((len(source), values.shape[1]), np.float32)
        out[wanted[done : done + len(values)]] = values
        done += len(values)
        while ends and done >= ends[0]:
            number = missing[-len(ends)]
            ends = ends[1:] if _write(paths[number], out[pieces[number]]) else []
        seen(len(source) - len(wanted) + done, len(source))
    return out


def _found(pieces: list[NDArray[np.int64]], paths: list[Path], count: int) -> tuple[NDArray[np.float32], list[int]]:
    """Return the features of all `count` examples as far as they are in files, and the numbers of the pieces that are in none."""
    out, missing = np.empty((0, 0), np.float32), list[int]()
    for number, (piece, path) in enumerate(zip(pieces, paths, strict=True)):
        values = _read(path, len(piece))
        if values is None:
            missing.append(number)
        else:
            out = out if out.size else np.empty((count, values.shape[1]), np.float32)
            out[piece] = values
    return out, missing


class Unchanged:
    """A source whose examples have to be those whose content was hashed."""

    def __init__(self, source: Source, contents: Digests) -> None:
        self.source, self.contents = source, contents

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of the source."""
        return self.source.classes

    @property
    def labels(self) -> Labels:
        """Labels of the source."""
        return self.source.labels

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int) -> Example:
        """Return the example at `index`.

        Raises:
            DataError: its content is another than before.
        """
        example = self.source.read(index)
        if digest_of(example) != self.contents[index].tobytes():
            raise DataError(example.key, f"changed while {self} was read", "start again when it is written")
        return example

    def key(self, index: int) -> str:
        """Return what the example at `index` is called."""
        return name_of(self.source, index)

    def __str__(self) -> str:
        return str(self.source)


def _contents(source: Source, spec: ImageSpec, workers: int) -> tuple[Digests, bool]:
    """Return a hash of the content of every example [n, 32], and whether it is one of the bytes, so that they can be compared."""
    fixed = _fixed(source)
    if fixed is not None:
        name, places = fixed
        rows = [_hash(name.encode(), str(place).encode()) for place in places.tolist()]
        return np.frombuffer(bytes.fromhex("".join(rows)), np.uint8).reshape(-1, DIGEST_BYTES), False
    contents = np.empty((len(source), DIGEST_BYTES), np.uint8)
    for index, answer in enumerate(scan(source, digest_of, workers)):
        if isinstance(answer, ImageError):
            raise bad_images_error(source, answer, spec.limits, workers)
        contents[index] = np.frombuffer(answer, np.uint8)
    return contents, True


def _fixed(source: Source) -> tuple[str, NDArray[np.int64]] | None:
    """Return a name that fixes the content, and the places of the examples in it, where that is known without reading them.

    It is so of generated images, and of a remote pack, whose manifest has the checksum of its shards' checksums. Those of a pack
    on a disk are read: what is damaged there, and repaired later, is not what its manifest says.
    """
    if isinstance(source, Subset):
        whole = _fixed(source.source)
        return None if whole is None else (whole[0], whole[1][source.indices])
    if isinstance(source, Digits | Fractals):
        return json.dumps(to_json(source)), np.arange(len(source))
    if isinstance(source, Shards) and is_address(source.path):
        manifest = source.listing.manifest
        return f"pack {manifest.index_sha256} {manifest.sums_sha256}", source.indices
    return None


def _recipe(model: Classifier, batch_size: int) -> bytes:
    """Return a hash of everything but the images that features depend on."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        values = parameter.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(cast(Any, values.flatten().view(torch.uint8).numpy()))
    device = next(model.parameters()).device
    how = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    facts = [to_json(model.settings), to_json(model.image_spec), how, batch_size, torch.__version__, _code()]
    digest.update(json.dumps(facts, sort_keys=True).encode())
    return digest.digest()


@cache
def _code() -> str:
    """Return a hash of the code that prepares images and computes features, and the version of the decoder of images."""
    import PIL

    package = Path(__file__).parents[1]
    digest = hashlib.sha256(f"{PIL.__version__} {np.__version__}".encode())
    for folder in ("data", "nn", "models", "evals"):
        for path in sorted((package / folder).rglob("*")):
            if path.suffix in (".py", ".so", ".npz"):
                digest.update(f"{path.relative_to(package)} {files.sha256(path)}\n".encode())
    return digest.hexdigest()


def _hash(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _read(path: Path, count: int) -> NDArray[np.float32] | None:
    """Return the `count` rows in the file `path`; None where there is none, or, which is logged, none that can be used."""
    if not path.is_file():
        return None
    try:
        with open_tensors(path) as file:
            if len(file.shapes.get(_TENSOR, ())) != 2 or file.shapes[_TENSOR][0] != count:
                raise WeightsError(path, "holds something else")
            values = cast(NDArray[np.float32], file.read(_TENSOR).numpy())
            if _hash(values.tobytes()) != file.metadata.get(_SUM) or not np.isfinite(values).all():
                raise WeightsError(path, "has another checksum")
    except (WeightsError, OSError) as error:
        what = error.what if isinstance(error, WeightsError) else error.strerror
        _log.warning("%s cannot be used (%s); these features are computed again", path, what)
        return None
    return values


def _write(path: Path, values: NDArray[np.float32]) -> bool:
    """Keep `values` in the file `path`, and return whether that went well; two processes may do so at once."""
    draft = path.with_name(f".{path.stem}.{os.getpid()}.part")
    data = safetensors.numpy.save({_TENSOR: values}, {_SUM: _hash(values.tobytes())})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(draft, data)
        files.rename(draft, path)
        files.flush_folder(path.parent)
    except OSError as error:
        _log.warning("features are not kept: %s cannot be written (%s)", path.parent, error.strerror or error)
        with suppress(OSError):
            files.remove(draft)
        return False
    return True
