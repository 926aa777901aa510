"""The protocol over HTTP, as an ASGI application."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from convdsl import __version__
from convdsl.diagnostics import Error
from convdsl.serving import protocol
from convdsl.serving.batching import Arrays, Batcher, QueueFullError
from convdsl.serving.bodies import Bodies, refused
from convdsl.serving.hosting import VERSION, Array, Hosted
from convdsl.serving.limits import BUSY, Limits, Refusal, quoted
from convdsl.serving.metrics import Metrics, Watch
from convdsl.spelling import those

GONE = 499
"""What a request is counted as whose client left before its answer (nginx's number)."""


LONG = 1 << 16
"""Bytes of a body that is read in a thread of its own: shorter ones are read in less time than a
thread takes to have its turn."""


class Service:
    """Networks by name, each with its queue and the thread that it runs on."""

    def __init__(
        self,
        hosted: Sequence[Hosted],
        limits: Limits,
        report: Callable[[BaseException], None],
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.hosted = {one.name: one for one in hosted}
        self.limits, self.report, self.log = limits, report, log
        self.metrics = Metrics()
        self.bodies = Bodies(limits, self.metrics.bodies)
        self.batchers: dict[str, Batcher] = {}
        self.decoding = ThreadPoolExecutor(1, "convdsl-images")
        self.reading = ThreadPoolExecutor(1, "convdsl-bodies")
        self._being_decoded = 0
        self.is_ready = False

    @asynccontextmanager
    async def running(self, _: Starlette) -> AsyncGenerator[None]:
        """From the first request to the last."""
        tasks: list[asyncio.Task[None]] = []
        pools: list[ThreadPoolExecutor] = [self.decoding, self.reading]
        for name in self.hosted:
            pools.append(ThreadPoolExecutor(1, f"convdsl-{name}"))
            watch = Watch.of(self.metrics, name)
            batcher = Batcher(pools[-1], self.limits.queue, self.limits.delay, watch)
            self.batchers[name] = batcher
            tasks.append(asyncio.create_task(batcher.work()))
        self.is_ready = True
        try:
            yield
        finally:
            self.is_ready = False
            for task in tasks:
                task.cancel()
            for pool in pools:
                pool.shutdown(wait=True, cancel_futures=True)

    # What is asked of a server

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        return JSONResponse({"ready": self.is_ready}, 200 if self.is_ready else 400)

    async def server(self, request: Request) -> Response:
        said = {"name": "convdsl", "version": __version__}
        return JSONResponse({**said, "extensions": list(protocol.EXTENSIONS)})

    async def models(self, request: Request) -> Response:
        return JSONResponse({"models": list(self.hosted)})

    async def model(self, request: Request) -> Response:
        return JSONResponse(self.find(request).metadata())

    async def model_ready(self, request: Request) -> Response:
        name = self.find(request).name
        said = {"name": name, "ready": self.is_ready}
        return JSONResponse(said, 200 if self.is_ready else 400)

    async def measured(self, request: Request) -> Response:
        return Response(self.metrics.text(), media_type=self.metrics.content_type)

    def find(self, request: Request) -> Hosted:
        """The network that a path names. Raises Refusal."""
        name = request.path_params["model"]
        version = request.path_params.get("version", VERSION)
        if name not in self.hosted:
            raise Refusal(404, f"no model `{quoted(name)}`; {those(self.hosted)}")
        if version != VERSION:
            raise Refusal(404, f"no version {quoted(version)} of {name}; there is {VERSION}")
        return self.hosted[name]

    # Inference

    async def infer(self, request: Request) -> Response:
        begin, status = time.perf_counter(), 500
        name = request.path_params["model"]
        try:
            response = await self._infer(request)
            status = response.status_code
        except Refusal as refusal:
            status = refusal.status
            raise
        except ClientDisconnect:
            status = GONE
            raise
        finally:
            known = name if name in self.hosted else ""
            self.metrics.answered(known, status, time.perf_counter() - begin)
        return response

    async def _infer(self, request: Request) -> Response:
        hosted = self.find(request)
        async with self.bodies.read(request) as body:
            header = request.headers.get(protocol.HEADER_LENGTH)
            asked = await self._parsed(body, header, hosted)
            results = await self._in_time(request, self._computed(hosted, asked))
        said = {"model_name": hosted.name, "model_version": VERSION}
        parts, headers = protocol.answer(said, asked, results, hosted)
        return Response(b"".join(parts), headers=headers)

    async def _parsed(self, body: bytes, header: str | None, hosted: Hosted) -> protocol.Request:
        """What a body says: a long one is read beside what else there is to do. Raises Refusal."""
        parse = partial(protocol.parse, body, header, hosted, self.limits)
        if len(body) <= LONG:
            return parse()
        return await asyncio.get_running_loop().run_in_executor(self.reading, parse)

    async def _in_time(self, request: Request, work: Coroutine[Any, Any, Arrays]) -> Arrays:
        """The result of some work. Raises Refusal."""
        try:
            async with asyncio.timeout(self.limits.timeout):
                return await self._until_gone(request, work)
        except TimeoutError:
            seconds = f"{self.limits.timeout:g}"
            raise Refusal(BUSY, f"not answered within {seconds} s", retry=1) from None
        except QueueFullError:
            said = f"{self.limits.queue} requests wait already"
            raise Refusal(BUSY, said, retry=1) from None
        except Error as error:
            # what to do about it follows, for who has the server's files
            raise Refusal(400, str(error).partition("\n")[0]) from None

    async def _computed(self, hosted: Hosted, asked: protocol.Request) -> Arrays:
        arrays = dict(asked.arrays)
        if asked.images and hosted.image_input is not None:
            arrays[hosted.image_input] = await self._decoded(hosted, asked.images)
        key, way = hosted.way(arrays)
        return await self.batchers[hosted.name].submit(key, way, arrays)

    async def _decoded(self, hosted: Hosted, images: Sequence[bytes]) -> Array:
        assert hosted.prepare is not None
        if self._being_decoded >= self.limits.queue:
            raise QueueFullError
        self._being_decoded += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self.decoding, hosted.prepare, images)
        finally:
            self._being_decoded -= 1

    async def _until_gone(self, request: Request, work: Coroutine[Any, Any, Arrays]) -> Arrays:
        """The result of some work, which is given up when the client goes."""
        task = asyncio.create_task(work)
        leaving = asyncio.create_task(_left(request))
        try:
            await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ClientDisconnect
            return task.result()
        finally:
            for one in (task, leaving):
                if not one.done():
                    one.cancel()
                    with suppress(asyncio.CancelledError):
                        await one

    # What goes wrong

    async def refuse(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return refused(request, error)

    async def no_route(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        what = f"{request.method} {quoted(request.url.path)}"
        asked = request.method != "POST" and request.url.path.endswith("/infer")
        said = {
            404: f"nothing is at {what}: /v2/models says what is served, /v2/models/NAME answers",
            405: f"{what} is not offered{': POST sends a request' if asked else ''}",
        }
        refusal = Refusal(error.status_code, said.get(error.status_code, error.detail))
        return refused(request, refusal, error.headers)

    async def left(self, request: Request, error: Exception) -> Response:
        return Response(status_code=GONE)  # nobody reads it

    async def failed(self, request: Request, error: Exception) -> Response:
        return JSONResponse({"error": "a bug in convdsl: the server's log says more"}, 500)


async def _left(request: Request) -> None:
    """Until the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Watched:
    """An ASGI application whose requests are logged, and whose bugs are told to `report` alone:
    the client has been told that there is one."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begin, status = time.perf_counter(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:  # noqa: BLE001  (whatever gets here is a bug)
            self._service.report(error)
        if self._service.log is not None and scope["type"] == "http":
            seconds = time.perf_counter() - begin
            what = f"{scope['method']} {quoted(scope['path'])}"
            self._service.log(f"{what} {status} {seconds * 1e3:.1f} ms")


def application(service: Service) -> ASGIApp:
    """The ASGI application."""
    one = "/v2/models/{model}"
    routes: list[Route] = [
        Route("/v2", service.server),
        Route("/v2/", service.server),
        Route("/v2/health/live", service.live),
        Route("/v2/health/ready", service.ready),
        Route("/v2/models", service.models),
        Route("/metrics", service.measured),
    ]
    for path in (one, one + "/versions/{version}"):
        routes += [
            Route(path, service.model),
            Route(path + "/ready", service.model_ready),
            Route(path + "/infer", service.infer, methods=["POST"]),
        ]
    app = Starlette(
        routes=routes,
        lifespan=service.running,
        exception_handlers={
            Refusal: service.refuse,
            HTTPException: service.no_route,
            ClientDisconnect: service.left,
            Exception: service.failed,
        },
    )
    app.router.redirect_slashes = False
    return Watched(app, service)
