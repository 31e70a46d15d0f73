"""What a graph says of itself: the preparation of its images, its class names, and the settings of the model it was made from."""

import json
from collections.abc import Mapping
from pathlib import Path

from vitlab.config import loads, parse
from vitlab.errors import SettingsError, WeightsError
from vitlab.models.classifier import Classifier
from vitlab.weights.save import HEADER, Header
from vitlab.weights.save import metadata as header_of

FORMAT = "1"
"""Of the names and meanings below; a reader refuses another."""
_PREFIX = "vitlab."
_PARTS = ("settings", "image_spec", "classes", "probabilities")


def metadata(model: Classifier) -> dict[str, str]:
    """Return what goes into the file: "vitlab.format", and as JSON "vitlab.settings", "vitlab.image_spec", …"""
    header = json.loads(header_of(model)[HEADER])
    parts = {f"{_PREFIX}{name}": json.dumps(header[name], ensure_ascii=False) for name in _PARTS}
    return {f"{_PREFIX}format": FORMAT, **parts}


def read_metadata(found: Mapping[str, str], path: Path) -> Header:
    """Return what the file `path` says of itself.

    Raises:
        WeightsError: it does not say it, or what it says cannot be.
    """
    written = found.get(f"{_PREFIX}format")
    if written is None:
        raise WeightsError(path, "does not say how its images are prepared", "give a graph that `vitlab export` wrote")
    if written != FORMAT:
        raise WeightsError(path, f"has format {written}, not {FORMAT}", "use the vitlab that wrote it")
    try:
        header = parse(Header, {name: loads(found[f"{_PREFIX}{name}"]) for name in _PARTS}, path)
    except (SettingsError, ValueError, TypeError, KeyError) as error:
        what = error.what if isinstance(error, SettingsError) else error
        raise WeightsError(path, f"is damaged ({what})", "export it again") from None
    size = header.settings.image_size  # whose bounds are known
    return header.model_copy(
        update={"image_spec": header.image_spec.model_copy(update={"height": size.height, "width": size.width})}
    )
