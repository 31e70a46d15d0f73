"""Service: the models of a server, what decodes for them, and how one request is attended to."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, TypeVar

import numpy as np
from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

from vitlab.serve.batching import Served
from vitlab.serve.body import Bodies, images_in, kind_of
from vitlab.serve.decoding import Decoder
from vitlab.serve.metrics import Metrics, by_model, heading
from vitlab.serve.predict import Prediction, Predictor
from vitlab.serve.settings import ServeSettings

T = TypeVar("T")


class Service:
    """Models by name, ready between the beginning and the end of `running`; `stopping` once a server takes no more connections."""

    decoder: Decoder

    def __init__(self, predictors: Mapping[str, Predictor], settings: ServeSettings) -> None:
        self.settings, self.metrics, self.bodies = settings, Metrics(), Bodies(settings)
        self.models = {name: Served(name, predictor, settings) for name, predictor in predictors.items()}
        self.ready = self.stopping = False
        self.failed: Exception | None = None

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Start the decoders and run every model once; at the end finish what waits and end them."""
        try:
            await self._begin()
        except Exception as error:
            self.failed = error
            raise
        try:
            yield
        finally:
            self.ready = False
            for served in self.models.values():
                await asyncio.to_thread(served.end)
            await asyncio.to_thread(self.decoder.end)

    async def _begin(self) -> None:
        self.decoder = await asyncio.to_thread(Decoder, self.settings)
        for served in self.models.values():
            await served.run(_warm)
        self.ready = True

    def named(self, name: str | None) -> Served:
        """Return the model of that name, the first for None.

        Raises:
            HTTPException: there is no such model (404).
        """
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise HTTPException(
                HTTPStatus.NOT_FOUND, f"there is no model of that name; there are {', '.join(self.models)}"
            )
        return self.models[name]

    async def predictions(self, request: Request, served: Served) -> list[Prediction]:
        """Return the answers of a model to the images in a request.

        Raises:
            HTTPException: the body holds no images, comes too late or is too long, or the answer takes too long.
            ImageError: an image cannot be decoded, or must not be.
            BusyError: the model has enough to do.
            ClientDisconnect: the client has left.
        """
        kind = kind_of(request)
        async with self.bodies.read(request) as body:
            files = images_in(body, kind, self.settings.max_images)
            with served.room(len(files)):
                return await self.attend(request, self._predict(served, files))

    async def _predict(self, served: Served, files: list[bytes]) -> list[Prediction]:
        return await served.answer(await self.decoder.prepare_all(files, served.spec))

    async def attend(self, request: Request, work: Coroutine[Any, Any, T]) -> T:
        """Return what comes of `work`, which ends when the client leaves or the time for an answer is over.

        The body of `request` has been read.

        Raises:
            HTTPException: it took too long (504).
            ClientDisconnect: the client has left.
            Exception: what `work` raises.
        """
        task, gone = asyncio.create_task(work), asyncio.create_task(_gone(request))
        try:
            seconds = self.settings.answer_seconds
            done, _ = await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if task in done:
                return task.result()
            if gone in done:
                raise ClientDisconnect
            raise HTTPException(HTTPStatus.GATEWAY_TIMEOUT, f"there is no answer within {seconds:g} seconds")
        finally:
            for one in (task, gone):
                one.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)

    def measured(self) -> Iterable[str]:
        """Yield the lines of all metrics."""
        yield from self.metrics.lines()
        models = list(self.models.items())
        for name, kind, what, values in (
            ("vitlab_images_total", "counter", "Images answered.", [served.images for _, served in models]),
            ("vitlab_batches_total", "counter", "Batches run.", [served.batches for _, served in models]),
            (
                "vitlab_accepted_images",
                "gauge",
                "Images that are not answered yet.",
                [one.accepted for _, one in models],
            ),
        ):
            yield from by_model(name, kind, what, zip((name for name, _ in models), values, strict=True))
        yield from heading("vitlab_decoders_replaced_total", "counter", "Processes that an image has ended.")
        yield f"vitlab_decoders_replaced_total {self.decoder.replaced}"
        yield from heading("vitlab_held_bytes", "gauge", "Bytes of requests in memory.")
        yield f"vitlab_held_bytes {self.bodies.held}"


def _warm(predictor: Predictor) -> None:
    predictor.answer([np.zeros((predictor.spec.height, predictor.spec.width, 3), np.uint8)])


async def _gone(request: Request) -> None:
    """Return when the client of `request`, whose body has been read, leaves."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
