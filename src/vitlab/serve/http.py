"""Http: the addresses of the API, and the answers to what goes wrong there."""

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect

from vitlab.errors import BusyError, ImageError, RequestError
from vitlab.serve.body import BYTES, JSON
from vitlab.serve.examples import Sample
from vitlab.serve.gate import LEFT, Gate
from vitlab.serve.predict import Predictor
from vitlab.serve.service import Service
from vitlab.serve.settings import ServeSettings
from vitlab.serve.website import website


class Named(BaseModel):
    """A class and its probability."""

    name: str
    probability: float


class Top(BaseModel):
    """The most probable classes of an image, best first."""

    top: list[Named]


class Predictions(BaseModel):
    """What a model says of each image of a request, in order."""

    model: str
    predictions: list[Top]


class Embeddings(BaseModel):
    """Of each image of a request, in order, the features that the model's head reads."""

    model: str
    embeddings: list[list[float]]


class Model(BaseModel):
    """A model that can be asked."""

    name: str
    num_classes: int
    probabilities: str
    height: int
    width: int
    engine: str
    batch_size: int


class Models(BaseModel):
    """All models that can be asked; the first answers where none is named."""

    models: list[Model]


class Error(BaseModel):
    """Why there is no answer."""

    error: str


_IMAGE: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_SEVERAL: dict[str, Any] = {
    "type": "object",
    "required": ["images"],
    "additionalProperties": False,
    "properties": {"images": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "byte"}}},
}
_BODY = {"requestBody": {"required": True, "content": {"image/*": _IMAGE, BYTES: _IMAGE, JSON: {"schema": _SEVERAL}}}}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error, "description": what}
    for status, what in (
        (400, "The request is malformed."),
        (404, "There is no such model."),
        (408, "The body did not arrive in time."),
        (413, "The body is too long."),
        (415, "The body is of another type."),
        (422, "An image cannot be decoded, or must not be."),
        (503, "There is too much to do; ask again after the seconds in Retry-After."),
        (504, "There was no answer in time."),
    )
}
ModelName = Annotated[str | None, Query(alias="model", description="A name from /v1/models; the first when left out.")]
Count = Annotated[int, Query(ge=1, le=100_000, description="How many classes to name.")]


def create_app(
    predictors: Mapping[str, Predictor], settings: ServeSettings | None = None, examples: Sequence[Sample] = ()
) -> FastAPI:
    """Return the API as an ASGI application; see `vitlab.create_app`.

    Raises:
        RequestError: there is no predictor.
    """
    if not predictors:
        raise RequestError("create_app", "there is no model to serve", "give one, by a name")
    service = Service(predictors, settings or ServeSettings())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with service.running():
            yield

    app = FastAPI(title="vitlab", docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan)
    app.state.service = service
    app.include_router(_questions(service))
    app.include_router(_state(service))
    app.include_router(website(service, examples))
    app.add_middleware(Gate, service=service)
    _explain(app)
    return app


def _questions(service: Service) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.post("/predict", response_model=Predictions, responses=_REFUSALS, openapi_extra=_BODY)
    async def predict(request: Request, name: ModelName = None, top: Count = 5) -> Response:
        """Name what is on one image (its bytes) or several (JSON)."""
        only(request, "model", "top")
        served = service.named(name)
        found = await service.predictions(request, served)
        named = [[{"name": name, "probability": share} for name, share in one.top(top)] for one in found]
        return answer({"model": served.name, "predictions": [{"top": classes} for classes in named]})

    @router.post("/embed", response_model=Embeddings, responses=_REFUSALS, openapi_extra=_BODY)
    async def embed(request: Request, name: ModelName = None) -> Response:
        """Give the features of one image (its bytes) or several (JSON)."""
        only(request, "model")
        served = service.named(name)
        found = await service.predictions(request, served)
        return answer({"model": served.name, "embeddings": [one.features.tolist() for one in found]})

    @router.get("/models", response_model=Models)
    async def models() -> Response:
        """List the models."""
        return answer({"models": [described(name, served.predictor) for name, served in service.models.items()]})

    return router


def _state(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> Response:
        """Say that the server runs."""
        return answer({"status": "running"})

    @router.get("/readyz", responses={503: {"model": Error}})
    async def readyz() -> Response:
        """Say whether the server takes requests: not while it stops."""
        if service.ready and not service.stopping:
            return answer({"status": "ready"})
        raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, "the server is stopping")

    @router.get("/metrics")
    async def metrics() -> Response:
        """Count and time what was done, for Prometheus."""
        text = "".join(f"{line}\n" for line in service.measured())
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def described(name: str, predictor: Predictor) -> dict[str, Any]:
    """Return what a client may want to know of a model."""
    return {
        "name": name,
        "num_classes": len(predictor.classes),
        "probabilities": predictor.probabilities,
        "height": predictor.spec.height,
        "width": predictor.spec.width,
        "engine": predictor.engine.name,
        "batch_size": predictor.batch_size,
    }


def only(request: Request, *known: str) -> None:
    """Refuse a query with other parameters than these.

    Raises:
        HTTPException: there are others (400).
    """
    unknown = set(request.query_params) - set(known)
    if unknown:
        what = f"{min(unknown)[:100]!r} is no parameter"
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"{what}; there are {', '.join(known) or 'none'}")


def answer(
    content: Mapping[str, Any], status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Response:
    """Return `content` as JSON."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text.encode(errors="replace"), status, dict(headers or {}), JSON)


def _explain(app: FastAPI) -> None:
    """Answer every error with its status and its reason."""

    async def known(_: Request, error: Exception) -> Response:
        match error:
            case AnyHTTPException():
                return answer({"error": error.detail}, error.status_code, error.headers)
            case RequestValidationError():
                first = error.errors()[0]
                return answer({"error": f"{first['loc'][-1]}: {first['msg']}"}, HTTPStatus.BAD_REQUEST)
            case ImageError():
                return answer({"error": f"{error.where}: {error.what}"}, HTTPStatus.UNPROCESSABLE_ENTITY)
            case BusyError():
                return answer({"error": str(error)}, HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "1"})
            case _:
                return Response(status_code=LEFT)

    for kind in (AnyHTTPException, RequestValidationError, ImageError, BusyError, ClientDisconnect):
        app.add_exception_handler(kind, known)
