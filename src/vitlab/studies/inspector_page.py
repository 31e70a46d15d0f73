"""The folder that `inspect` writes: one self-contained page, the figures as pictures, and the arrays."""

import base64
import io
import json
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vitlab import files
from vitlab.config import to_json
from vitlab.data.preprocess import CentralCrop, ImageSpec
from vitlab.data.source import Pixels
from vitlab.errors import VitlabError
from vitlab.inspection import figures
from vitlab.inspection.compact import Cells, cells_within, membership
from vitlab.inspection.distance import even_distance
from vitlab.inspection.drawing import Drawing
from vitlab.inspection.embeddings import filter_components, position_similarity
from vitlab.models.vit import ViT
from vitlab.nn.grid import Grid
from vitlab.studies.inspector import Inspected, Look
from vitlab.studies.report import page_file, render
from vitlab.studies.scoresheet import check_free

TOP = 5
POSITION_WEIGHTS = 300_000
SMALL_PIXELS = 64


def write_inspection(found: Inspected, folder: Path) -> Path:
    """Write `index.html`, `figures/` and `arrays/` into a new folder, which appears when whole; return the path of the page.

    Raises:
        DataError: the folder is there already.
        VitlabError: it cannot be written.
    """
    check_free(folder)
    draft = folder.with_name(f".{folder.name}.part")
    learned = Learned(found)
    try:
        files.remove(draft)  # of an attempt that was cut
        files.make_folder(draft)
        for name in ("figures", "arrays"):
            files.make_folder(draft / name)
        for name, arrays in arrays_of(found, learned).items():
            files.write_bytes(draft / "arrays" / f"{name}.npz", archive(arrays))
        for name, drawing in drawings_of(found, learned).items():
            drawing.save(draft / "figures" / f"{name}.png")
        files.write_bytes(draft / "index.html", page(found, learned).encode())
        check_free(folder)
        files.rename(draft, folder)
        files.flush_folder(folder.absolute().parent)
    except OSError as error:
        raise VitlabError(folder, f"cannot be written ({error.strerror or error})", "choose another --out") from None
    finally:
        with suppress(OSError):
            files.remove(draft)
    return folder / "index.html"


class Learned:
    """What the input layers of a model learned, as far as it can be shown: arrays, or None and the reason."""

    def __init__(self, found: Inspected) -> None:
        self.filters, self.no_filters = _unless(lambda: filter_components(found.model))
        self.positions, self.no_positions = _unless(lambda: position_similarity(found.model).numpy())


def _unless(make: Callable[[], NDArray[np.float32]]) -> tuple[NDArray[np.float32] | None, str]:
    try:
        return make(), ""
    except ValueError as error:
        return None, str(error)


def as_json(found: Inspected, page: Path) -> dict[str, Any]:
    """Return the answers and where they are settled, for programs."""
    compared = found.compared
    return {
        "page": str(page),
        "model": found.name,
        "layers": found.model.settings.depth,
        "images": [
            {
                "path": str(look.path),
                "top": look.prediction.top(TOP),
                "settled_after_layer": look.settled,
                "neighbours": [
                    {"key": near.key, "class": near.label, "cosine": near.cosine} for near in look.neighbours
                ],
            }
            for look in found.looks
        ],
        "bad": [str(error) for error in found.bad],
        "attention_distance": None if found.distance is None else found.distance.tolist(),
        "compared": None if isinstance(compared, str) else {"data": compared.whole, "images": len(compared.source)},
    }


def arrays_of(found: Inspected, learned: Learned) -> dict[str, Mapping[str, NDArray[Any]]]:
    """Return the arrays of each file: of every image, and of the model."""
    known = {"attention_distance": found.distance, "filters": learned.filters, "position_similarity": learned.positions}
    model = {name: value for name, value in known.items() if value is not None}
    return {str(number): _arrays(look) for number, look in enumerate(found.looks, 1)} | (
        {"model": model} if model else {}
    )


def _arrays(look: Look) -> Mapping[str, NDArray[Any]]:
    return {
        "image": look.prepared,
        "probabilities": look.prediction.probabilities,
        "features": look.prediction.features,
        "probabilities_by_layer": look.shares,
        "rollout": look.rollout,
        "relevance": look.relevance,
        "relevance_classes": np.array(look.classes, np.int64),
        "attention": look.output,
    }


def archive(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return `arrays` as the bytes of an .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


def drawings_of(found: Inspected, learned: Learned) -> dict[str, Drawing]:
    """Return every figure by its name."""
    cell, looks = found.model.settings.stem.cell, found.looks
    images = [look.prepared for look in looks]
    shown = [figures.overlay(look.prepared, look.rollout, cell) for look in looks]
    drawn = {"rollout": figures.rollouts(images, shown, [_titled(look, 0) for look in looks])}
    for number, look in enumerate(looks, 1):
        spoke = [figures.overlay(look.prepared, heat, cell) for heat in look.relevance]
        titles = [_titled(look, rank) for rank in range(len(spoke))]
        drawn[f"relevance-{number}"] = figures.rollouts([look.prepared] * len(spoke), spoke, titles)
        drawn[f"attention-{number}"] = figures.attention_grid(look.output)
        drawn[f"lens-{number}"] = lens_of(look)
        if look.neighbours:
            names = [look.path.name, *(f"{near.label} {near.cosine:.2f}" for near in look.neighbours)]
            near = [near.pixels for near in look.neighbours]
            drawn[f"neighbours-{number}"] = figures.neighbours(look.prepared, near, names)
    if found.distance is not None:
        drawn["distance"] = _distances_of(found.model, found.distance)
    if learned.filters is not None:
        drawn["filters"] = figures.filters(learned.filters)
    if learned.positions is not None:
        drawn["positions"] = figures.similarity(learned.positions)
    return drawn


def _titled(look: Look, rank: int) -> str:
    name, share = look.prediction.top(rank + 1)[rank]
    return f"{name[:30]} {100 * share:.1f} %"


def lens_of(look: Look) -> Drawing:
    """Draw what the head says after every layer."""
    return figures.lens_curves(look.shares, look.prediction.classes, look.settled)


def _distances_of(model: ViT, pixels: NDArray[np.float32]) -> Drawing:
    return figures.distances(pixels, even_distance(model))


def page(found: Inspected, learned: Learned) -> str:
    """Return the page: everything is in it, and it asks for nothing."""
    settings = found.model.settings
    data = {
        "grid": settings.grid,
        "cell": settings.stem.cell,
        "layers": settings.depth,
        "heads": settings.num_heads,
        "means": _cells_json(found.mean_cells),
        "single": _cells_json(found.head_cells),
        "images": [_image_json(look) for look in found.looks],
        "positions": None if learned.positions is None else _positions_json(learned.positions),
    }
    context = {
        "title": plain_name(found.name),
        "found": found,
        "learned": learned,
        "settings": settings,
        "parameters": sum(parameter.numel() for parameter in found.model.parameters()),
        "preparation": preparation(found.model.image_spec),
        "model_json": json.dumps(to_json(settings), indent=2, ensure_ascii=False),
        "lenses": [lens_of(look) for look in found.looks],
        "distances": None if found.distance is None else _distances_of(found.model, found.distance),
        "filters": None if learned.filters is None else figures.filters(learned.filters),
        "data": data,
        "top": TOP,
    }
    return render("inspector.html", context | {"script": page_file("inspector.js")})


def preparation(spec: ImageSpec) -> str:
    """Return in words how an image becomes what the model sees."""
    fit = "the whole image, whatever its shape"
    if isinstance(spec.fit, CentralCrop):
        fit = f"the middle, {spec.fit.fraction:.1%} of the shorter side"
    low = [round((0 - mean) / std, 2) for mean, std in zip(spec.mean, spec.std, strict=True)]
    high = [round((1 - mean) / std, 2) for mean, std in zip(spec.mean, spec.std, strict=True)]
    scale = ", ".join(dict.fromkeys(f"{a:g} to {b:g}" for a, b in zip(low, high, strict=True)))
    return f"{fit}, resized to {spec.height}×{spec.width} pixels ({spec.interpolation}); values from {scale}"


def _image_json(look: Look) -> dict[str, Any]:
    top = look.prediction.top(len(look.classes))
    return {
        "name": look.path.name,
        "uri": _embedded(look.prepared),
        "classes": [[name, share] for name, share in top],
        "rollout": _blob(_bytes(look.rollout)),
        "relevance": [_blob(_bytes(heat)) for heat in look.relevance],
        "output": _blob(_bytes(look.output)),
        "peaks": _blob(look.output.max(axis=(2, 3))),
        "means": _blob(np.stack([packed.values for packed in look.means])),
        "meanPeaks": _blob(np.stack([packed.peaks for packed in look.means])),
        "single": _blob(np.stack([packed.values for packed in look.heads])),
        "singlePeaks": _blob(np.stack([packed.peaks for packed in look.heads])),
    }


def _cells_json(cells: Cells) -> dict[str, Any]:
    return {"queries": cells.queries, "query": cells.query, "keys": cells.keys, "key": cells.key}


def _positions_json(similarity: NDArray[np.float32]) -> dict[str, Any]:
    """Return the similarity of positions from -1 to 1 as bytes, where there are many of groups of patches."""
    rows, columns = similarity.shape[:2]
    square = torch.from_numpy(similarity).reshape(rows * columns, -1)
    cells = cells_within(Grid(rows, columns), POSITION_WEIGHTS)
    cells = Cells(cells.grid, cells.query, cells.query)
    member = membership(cells.grid, cells.key)
    member = member / member.sum(dim=1, keepdim=True)
    values = ((member @ square @ member.T).numpy() + 1) * 127.5
    return _cells_json(cells) | {"values": _blob(values.round().clip(0, 255).astype(np.uint8))}


def _bytes(maps: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return maps [..., rows, columns] as bytes, each scaled to its own peak."""
    peaks = np.maximum(maps.max(axis=(-2, -1), keepdims=True), 1e-30)
    return np.rint(np.maximum(maps, 0) / peaks * 255).astype(np.uint8)


def _blob(values: NDArray[Any]) -> str:
    """Return the bytes of an array for a script: compressed (zlib), in base 64; floats are 32 bits, little-endian."""
    kind = values if values.dtype == np.uint8 else values.astype("<f4")
    return base64.b64encode(zlib.compress(np.ascontiguousarray(kind).tobytes(), 9)).decode()


def _embedded(image: Pixels) -> str:
    """Return an image as a data URI: a small one as it is, another as JPEG."""
    buffer, small = io.BytesIO(), max(image.shape[:2]) <= SMALL_PIXELS
    Image.fromarray(image).save(buffer, "PNG" if small else "JPEG", quality=88)
    return f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def default_folder(model: str) -> Path:
    """Return where to write if nobody says."""
    return Path(f"inspect-{plain_name(model)}")


def plain_name(model: str) -> str:
    """Return the last name in the path of a model, or in its address, without what says its format."""
    name = model.rstrip("/").rsplit("/", 1)[-1]
    return name.removesuffix(".safetensors").removesuffix(".npz") or "model"
