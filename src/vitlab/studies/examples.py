"""Examples: images to try a served model on, of what its run was evaluated on."""

import ipaddress
from collections.abc import Iterable
from pathlib import Path

from vitlab.config import parse, read_json
from vitlab.data.hub import Hub
from vitlab.data.open import AnySource
from vitlab.data.shards import Shards
from vitlab.data.store import is_address
from vitlab.errors import VitlabError
from vitlab.serve.examples import Sample, choose
from vitlab.studies.plan import evaluation_source
from vitlab.studies.recipe import InProgram, RunSettings


def examples_for(models: Iterable[str], host: str, data: str | None = None) -> tuple[Sample, ...]:
    """Return the images to try `models` (paths) on: of `data`, else of what the first run evaluated on, else generated ones.

    The images of a run are shown to this computer alone: where `host` is another address they are left out, because nobody said
    that they may be seen by others. Nor is anything fetched over a network.

    Raises:
        DataError: there is no data set `data`.
    """
    if data is not None:
        return choose(evaluation_source(data))
    sources = (source for model in models if _is_loopback(host) and (source := _evaluated_on(Path(model))) is not None)
    return choose(next(sources, None))


def _evaluated_on(run: Path) -> AnySource | None:
    """Return what a run was evaluated on, None where it is not known, not there any more, or not on this computer."""
    try:
        folder = run if run.is_dir() else run.parent
        source = next(iter(parse(RunSettings, read_json(folder / "config.json"), folder).evals.values()), None)
        if (
            source is None
            or isinstance(source, Hub | InProgram)
            or (isinstance(source, Shards) and is_address(source.path))
        ):
            return None
        return source if len(source) else None
    except (VitlabError, OSError, UnicodeDecodeError):
        return None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
