"""Listening: uvicorn with patience that ends, and an end that waits."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from errno import EADDRINUSE
from types import FrameType

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from convdsl.diagnostics import InputError
from convdsl.serving.app import Service, application
from convdsl.serving.limits import BUSY, Limits

HEAD = 16 << 10
"""Bytes of a request's line and headers."""

_FULL = (
    f"HTTP/1.1 {BUSY} Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
    'connection: close\r\ncontent-length: 32\r\n\r\n{"error":"too many connections"}'
).encode()


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address; port 0 is any that is free. Raises InputError."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, number)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot listen at {host}: {reason}") from None
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.setblocking(False)
    except OSError as error:
        made.close()
        text = f"cannot listen at {host}:{port}: {error.strerror or error}"
        free = "\nhelp: --port 0 takes any that is free" if error.errno == EADDRINUSE else ""
        raise InputError(f"{text}{free}") from None
    return made


def address_of(listening: socket.socket) -> str:
    """Where clients find it."""
    host, port, *_ = listening.getsockname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(service: Service, listening: socket.socket, started: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT; then what is at work is finished, for a while. A second
    signal ends it at once."""
    server(service, started).run(sockets=[listening])


def server(service: Service, started: Callable[[], None]) -> uvicorn.Server:
    """uvicorn's server, with the limits of the service. Outside the main thread it is ended by its
    `should_exit`."""
    limits = service.limits
    config = uvicorn.Config(
        application(service),
        http=_protocol(limits),
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=max(1, round(limits.header)),
        timeout_graceful_shutdown=round(limits.farewell),
        h11_max_incomplete_event_size=HEAD,
    )
    return _Server(config, service, started)


class _Server(uvicorn.Server):
    """uvicorn's, which says when it begins, and ends by returning."""

    def __init__(
        self, config: uvicorn.Config, service: Service, started: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._service, self._tell = service, started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._tell()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.is_ready = False
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        main = threading.current_thread() is threading.main_thread()
        numbers = (signal.SIGTERM, signal.SIGINT) if main else ()
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True


def _protocol(limits: Limits) -> type[H11Protocol]:
    """HTTP/1.1 on one connection. A clock runs while there is no whole head of a request, and
    another while the client does not take what was written; when one rings the connection ends."""

    class Patient(H11Protocol):
        _clock: asyncio.TimerHandle | None = None
        _stalled: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  (as uvicorn's own)
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                transport.write(_FULL)
                transport.close()
            self._wind()

        def data_received(self, data: bytes) -> None:
            if not self.transport.is_closing():
                super().data_received(data)
            self._wind()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._wind()

        def connection_lost(self, exc: Exception | None) -> None:
            for clock in (self._clock, self._stalled):
                if clock is not None:
                    clock.cancel()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stalled = self.loop.call_later(limits.timeout, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._stalled is not None:
                self._stalled.cancel()

        def send_400_response(self, msg: str) -> None:
            text = b'{"error":"this is no HTTP request"}'
            headers = [("content-type", "application/json"), ("connection", "close")]
            headers.append(("content-length", str(len(text))))
            with suppress(h11.LocalProtocolError):  # an answer is on its way already
                for event in (
                    h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                    h11.Data(data=text),
                    h11.EndOfMessage(),
                ):
                    self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

        def _wind(self) -> None:
            """Start the clock, or stop it while a request is at work."""
            at_work = self.cycle is not None and not self.cycle.response_complete  # pyright: ignore[reportUnnecessaryComparison]  (None before the first)
            if at_work and self._clock is not None:
                self._clock.cancel()
                self._clock = None
            elif not at_work and self._clock is None:
                self._clock = self.loop.call_later(limits.header, self.transport.abort)

    return Patient
