"""Website: the web page's files, and the addresses at which it asks; nothing of a request is kept."""

import json
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from http import HTTPStatus
from importlib import resources
from typing import TypeVar

from fastapi import APIRouter, HTTPException, Request, Response

from vitlab.data.preprocess import ImageSpec
from vitlab.data.source import Pixels
from vitlab.serve import looking
from vitlab.serve.abilities import describe
from vitlab.serve.batching import Served
from vitlab.serve.body import BYTES, JSON, images_in, kind_of
from vitlab.serve.examples import Sample
from vitlab.serve.predict import Predictor
from vitlab.serve.service import Service

T = TypeVar("T")
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page/style.css": ("style.css", "text/css; charset=utf-8"),
    "/page/script.js": ("script.js", "text/javascript; charset=utf-8"),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""Where a file of the page is found, its name in the package, and its kind: there are no others, whatever a request asks for."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""The page asks this server alone, and no other page may hold it in a frame."""


def website(service: Service, examples: Sequence[Sample]) -> APIRouter:
    """Return the routes of the page, with `examples` to try its models on."""
    router = APIRouter(include_in_schema=False)
    for path, (name, kind) in FILES.items():
        router.add_api_route(path, _fixed(_file(name), kind))
    _add_listings(router, service, examples)
    _add_learned(router, service)
    _add_looks(router, service)
    return router


def _add_listings(router: APIRouter, service: Service, examples: Sequence[Sample]) -> None:
    """Add what is known before there is an image."""
    limit = {"max_bytes": service.settings.max_bytes}
    models = [describe(name, served.predictor) | limit for name, served in service.models.items()]
    labels = [{"label": example.label} for example in examples]

    router.add_api_route("/page/models", _fixed(_text(models), JSON))
    router.add_api_route("/page/examples", _fixed(_text(labels), JSON))

    @router.get("/page/examples/{number:int}")
    async def example(number: int) -> Response:
        if number >= len(examples):
            raise HTTPException(HTTPStatus.NOT_FOUND, f"there is no example {number}; there are {len(examples)}")
        return Response(examples[number].data, headers=HEADERS, media_type=examples[number].kind)


def _add_learned(router: APIRouter, service: Service) -> None:
    """Add what a model learned, whatever the image."""

    @router.get("/page/positions")
    async def positions(request: Request) -> Response:
        work = _run(_named(service, request), lambda predictor: looking.similarity_map(predictor.inside))
        grid, maps = await service.attend(request, work)
        return Response(maps, headers=HEADERS | {"Vitlab-Grid": f"{grid.rows},{grid.columns}"}, media_type=BYTES)

    @router.get("/page/filters")
    async def filters(request: Request) -> Response:
        work = _run(_named(service, request), lambda predictor: looking.filter_sheet(predictor.inside))
        return Response(await service.attend(request, work), headers=HEADERS, media_type="image/png")


def _add_looks(router: APIRouter, service: Service) -> None:
    """Add what a model makes of an image: that of the request's body."""

    @router.post("/page/look")
    async def look(request: Request) -> Response:
        served = _named(service, request)
        found = await _see(service, request, served, served.spec, looking.look)
        return Response(_text(found), headers=HEADERS, media_type=JSON)

    @router.post("/page/attention")
    async def attention(request: Request) -> Response:
        served = _named(service, request)
        asked = {"layer": _number(request, "layer"), "head": _number(request, "head")}
        work = partial(looking.attention_maps, **asked)
        maps = await _see(service, request, served, looking.as_seen(served.spec), work)
        heads = {"Vitlab-Heads": ",".join(map(str, maps.heads))}
        return Response(maps.to_bytes(), headers=HEADERS | heads, media_type=BYTES)

    @router.post("/page/relevance")
    async def relevance(request: Request) -> Response:
        served = _named(service, request)
        work = partial(looking.relevance_map, number=_number(request, "class"))
        heat = await _see(service, request, served, looking.as_seen(served.spec), work)
        return Response(heat, headers=HEADERS, media_type=BYTES)

    @router.post("/page/depth")
    async def depth(request: Request) -> Response:
        served = _named(service, request)
        found = await _see(service, request, served, looking.as_seen(served.spec), looking.answers_by_depth)
        return Response(_text(found), headers=HEADERS, media_type=JSON)


async def _see(
    service: Service, request: Request, served: Served, spec: ImageSpec, work: Callable[[Predictor, Pixels], T]
) -> T:
    """Return what `work` makes of the image in a request, which `spec` prepares; under the same bounds as a prediction."""

    async def see(data: bytes) -> T:
        with served.room(1):
            pixels = await service.decoder.prepare(data, spec)
        return await _run(served, lambda predictor: work(predictor, pixels))

    kind = kind_of(request)
    async with service.bodies.read(request) as body:
        (data,) = images_in(body, kind, 1)
        return await service.attend(request, see(data))


async def _run(served: Served, work: Callable[[Predictor], T]) -> T:
    """Return what `work` makes of a model; that it cannot be shown is an answer too, and no failure of the model's thread."""

    def tried(predictor: Predictor) -> T | looking.CannotShowError:
        try:
            return work(predictor)
        except looking.CannotShowError as error:
            return error

    found = await served.run(tried)
    if isinstance(found, looking.CannotShowError):
        raise HTTPException(HTTPStatus.NOT_FOUND, found.what)
    return found


def _text(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(errors="replace")


def _fixed(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    """Return an endpoint whose answer is always the same."""

    async def send() -> Response:
        return Response(content, headers=HEADERS, media_type=kind)

    return send


def _file(name: str) -> bytes:
    return resources.files("vitlab.serve").joinpath("page", name).read_bytes()


def _named(service: Service, request: Request) -> Served:
    return service.named(request.query_params.get("model"))


def _number(request: Request, name: str) -> int:
    try:
        return int(request.query_params.get(name, "")[:8])
    except ValueError:
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"{name} is no whole number; ask as ?{name}=0") from None
