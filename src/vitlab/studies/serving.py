"""Serving: models by name, loaded and answering at an address."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitlab.errors import RequestError
from vitlab.serve.app import create_app, part
from vitlab.serve.engine import Choice
from vitlab.serve.examples import Sample
from vitlab.serve.predict import Predictor
from vitlab.serve.settings import ServeSettings
from vitlab.studies.examples import examples_for
from vitlab.studies.plan import choose_device

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})=(.+)")
_ODD = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Serving:
    """Models by name, and the address at which they answer."""

    predictors: Mapping[str, Predictor]
    settings: ServeSettings
    opened: Any
    """The socket, bound already: that a port is in use is said before models are loaded."""
    examples: tuple[Sample, ...] = ()
    """What the page offers to try the models on."""

    @classmethod
    def open(
        cls,
        models: Sequence[str],
        settings: ServeSettings,
        device: str = "auto",
        examples: str | None = None,
        engine: Choice = "auto",
        batch_size: int | None = None,
    ) -> "Serving":
        """Return what serves `models`, each a run folder, a file of weights or a published name, perhaps with "NAME=" before it.

        The page offers images of the data set `examples`; see `examples_for`. With a `batch_size` every batch has that one.

        Raises:
            RequestError: a model is not there or has no head, two have one name, the address is in use, or an extra is missing.
            DataError: there is no data set `examples`.
        """
        server = part("server")
        places = named(models)
        opened = server.listen(settings)
        try:
            chosen = choose_device(device)
            offered = examples_for(places.values(), settings.host, examples)
            predictors = {
                name: Predictor.load(place, chosen, engine, batch_size=batch_size) for name, place in places.items()
            }
            return cls(predictors, settings, opened, offered)
        except BaseException:
            opened.close()
            raise

    @property
    def url(self) -> str:
        """The address."""
        host, port = self.opened.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def models(self) -> list[dict[str, Any]]:
        """Return what a client may want to know of each model."""
        return [part("http").described(name, predictor) for name, predictor in self.predictors.items()]

    def lines(self) -> list[str]:
        """Return in words what is served and where."""
        lines = [f"{self.url}  Ctrl-C stops"]
        for name, one in self.predictors.items():
            size = f"{one.spec.height} × {one.spec.width}"
            lines.append(
                f"  {name}: {len(one.classes)} classes, {size}, {one.engine.name}, batches of {one.batch_size}"
            )
        if self.settings.host not in ("127.0.0.1", "::1", "localhost"):
            lines.append("  whoever reaches this address may ask: there is no password")
        return lines

    def run(self, started: Callable[[], None]) -> None:
        """Answer until told to stop; `started` is called when requests are taken.

        Raises:
            KeyboardInterrupt: Ctrl-C stopped it.
            VitlabError: it was ended before everything was answered.
        """
        app = create_app(self.predictors, self.settings, self.examples)
        part("server").Server(app, self.opened, started).run_until_stopped()


def named(models: Sequence[str]) -> dict[str, str]:
    """Return where each model is by its name: that before "=", or else what its file or folder is called.

    Raises:
        RequestError: two have the same name.
    """
    places: dict[str, str] = {}
    for model in models:
        given = None if Path(model).exists() else _NAMED.fullmatch(model)
        name, place = (given[1], given[2]) if given else (_called(model), model)
        if name in places:
            raise RequestError(model, f"is called '{name}', as another is", f"give it a name: {name}-2={place}")
        places[name] = place
    return places


def _called(model: str) -> str:
    path = Path(model.rstrip("/"))
    name = path.resolve().name if path.exists() else path.name
    if name == "model.safetensors":
        name = path.resolve().parent.name
    for ending in (".safetensors", ".npz", ".bin", ".pth", ".onnx"):
        name = name.removesuffix(ending)
    return _ODD.sub("-", name).strip("-.")[:64] or "model"
