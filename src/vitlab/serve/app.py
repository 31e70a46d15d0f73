"""App: the API as an ASGI application, where the extra [serve] is installed."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from vitlab.errors import RequestError
from vitlab.serve.examples import Sample
from vitlab.serve.predict import Predictor
from vitlab.serve.settings import ServeSettings


def create_app(
    predictors: Mapping[str, Predictor], settings: ServeSettings | None = None, examples: Sequence[Sample] = ()
) -> Any:
    """Return the API for `predictors` by name as an ASGI application (a `fastapi.FastAPI`), within the limits of `settings`.

    At `/` is a page to try them on `examples` and on images of one's own.

    `vitlab serve` runs it with limits on the time of every connection; another server has to bring its own.

    Raises:
        RequestError: the extra [serve] is missing, or there is no predictor.
    """
    return part("http").create_app(predictors, settings, examples)


def part(name: str) -> Any:
    """Return the module `name` of this folder, which needs the extra.

    Raises:
        RequestError: the extra [serve] is missing.
    """
    try:
        return importlib.import_module(f"vitlab.serve.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "vitlab":
            raise
        raise RequestError("serve", f"needs {error.name}", "pip install 'vitlab[serve]'") from None
