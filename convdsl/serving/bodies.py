"""Reading what clients send, as much as is allowed, for as long as is allowed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from prometheus_client import Gauge
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from convdsl.serving.limits import BUSY, Limits, Refusal, quoted

LINGER = 2.0
"""Seconds in which the rest of a refused body is thrown away: a client that is cut off while it
writes does not get to read why."""

LINGERED = 64 << 20
"""Bytes of it."""


class Bodies:
    """All bodies that are held: together no more than a limit."""

    def __init__(self, limits: Limits, gauge: Gauge) -> None:
        self._limits, self._gauge, self._all = limits, gauge, 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncGenerator[bytes]:
        """The whole body, which counts as held within the `async with`. Raises Refusal."""
        held = _Held()
        try:
            yield await self._whole(request, held)
        finally:
            self._hold(-held.bytes)

    async def _whole(self, request: Request, held: _Held) -> bytes:
        self._check_head(request)
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(self._limits.timeout):
                async for chunk in request.stream():
                    held.bytes += len(chunk)
                    self._hold(len(chunk))
                    self._check(held.bytes, self._all - held.bytes)
                    chunks.append(chunk)
        except TimeoutError:
            seconds = f"{self._limits.timeout:g}"
            raise Refusal(408, f"the body did not come within {seconds} s") from None
        request.state.is_read = True
        return b"".join(chunks)

    def _hold(self, count: int) -> None:
        self._all += count
        self._gauge.set(self._all)

    def _check_head(self, request: Request) -> None:
        coding = request.headers.get("content-encoding", "identity")
        if coding != "identity":
            raise Refusal(415, f"a body in {quoted(coding)}: only plain ones are read")
        length = request.headers.get("content-length")
        if length is not None:  # digits, as h11 has seen
            self._check(int(length), self._all)

    def _check(self, length: int, others: int) -> None:
        if length > self._limits.body:
            raise Refusal(413, f"the body is larger than {self._limits.body} bytes")
        if others and others + length > self._limits.bodies:
            raise Refusal(BUSY, "too many bodies are being read", retry=1)


@dataclass(slots=True)
class _Held:
    """Bytes of one body."""

    bytes: int = 0


def refused(
    request: Request, refusal: Refusal, headers: Mapping[str, str] | None = None
) -> Response:
    """The answer to what is not served. The connection ends with it where a body is left over."""
    said = dict(headers or {})
    if refusal.retry is not None:
        said["Retry-After"] = str(refusal.retry)
    if getattr(request.state, "is_read", False) or not _has_body(request):
        return JSONResponse({"error": refusal.message}, refusal.status, said)
    return _Lingering({"error": refusal.message}, refusal.status, said)


def _has_body(request: Request) -> bool:
    return any(name in request.headers for name in ("content-length", "transfer-encoding"))


class _Lingering(JSONResponse):
    """An answer that waits, a little, for the rest of what was being sent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = {"type": "http.response.start", "status": self.status_code}
        await send({**head, "headers": [*self.raw_headers, (b"connection", b"close")]})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(LINGER):
                await _thrown_away(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _thrown_away(receive: Receive) -> None:
    taken = 0
    while taken < LINGERED:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return
        taken += len(message.get("body", b""))
