"""A real server and real clients: under load, with faults, and when it is told to stop."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from serving.conftest import (
    Doubling,
    command,
    listening,
    service_of,
    sized_answer,
    tensor,
)

from convdsl.serving.limits import Limits

SHORT = Limits(header=0.5, timeout=1.5, body=50_000, bodies=200_000, farewell=5)
INFER = "/v2/models/net/infer"
X = np.float32([[1, 2, 3]])


@pytest.fixture(scope="module")
def sized(place: Path) -> Iterator[str]:
    """A server of `sized`, as the command line starts it."""
    arguments = ("sized.cnn", "--weights", "sized.npz", "--threads", 1, "--max-body", 1)
    with command(*arguments, folder=place) as (address, _):
        yield address


@pytest.fixture(scope="module")
def short() -> Iterator[str]:
    """A server without patience."""
    service = service_of(Doubling(), SHORT)
    with listening(service) as address:
        yield address
    assert not service.bugs
    assert service.bodies._all == 0


def opened(address: str) -> socket.socket:
    parts = urlsplit(address)
    return socket.create_connection((parts.hostname, parts.port), timeout=20)


def received(connection: socket.socket) -> bytes:
    """All until the server closes."""
    found = b""
    while True:
        try:
            more = connection.recv(65536)
        except ConnectionResetError:
            return found
        if not more:
            return found
        found += more


def sent(connection: socket.socket, parts: Sequence[bytes], pause: float = 0.0) -> None:
    for part in parts:
        connection.sendall(part)
        time.sleep(pause)


def is_well(address: str) -> bool:
    answer = httpx.post(address + INFER, json={"inputs": [tensor(X)]})
    return answer.json()["outputs"][0]["data"] == [2, 4, 6]


# Load


async def load(address: str, count: int, connections: int = 100) -> set[str]:
    """Ask for `count` images of drawn sizes, one on a connection at a time, and hold every answer
    against its own. A client of our own: httpx takes longer than the server, the more connections
    it has."""
    numbers = iter(range(count))
    seen: set[str] = set()

    async def ask() -> None:
        reader, writer = await asyncio.open_connection(
            urlsplit(address).hostname, urlsplit(address).port
        )
        for number in numbers:
            draw = np.random.default_rng(number)
            x = draw.integers(-99, 99, (4 + number % 3, 5)).astype(np.float32)
            writer.write(request_for(x, str(number), binary=bool(number % 2)))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = re.search(rb"content-length: (\d+)", head)
            assert length is not None
            said = json.loads(await reader.readexactly(int(length[1])))
            assert said["id"] == str(number)
            assert said["id"] not in seen
            seen.add(said["id"])
            found = np.reshape(said["outputs"][0]["data"], said["outputs"][0]["shape"])
            np.testing.assert_array_equal(found[0], sized_answer(x))
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(ask() for _ in range(connections)))
    return seen


def request_for(x: Any, id: str, binary: bool) -> bytes:
    """Of `sized`, for an image [H, W]."""
    entry: dict[str, Any] = tensor(x[None, None])
    more, rest = "", b""
    if binary:
        del entry["data"]
        entry["parameters"] = {"binary_data_size": x.nbytes}
        rest = x.tobytes()
    text = json.dumps({"id": id, "inputs": [entry]}).encode()
    if binary:
        more = f"Inference-Header-Content-Length: {len(text)}\r\n"
    return (
        (
            f"POST /v2/models/sized/infer HTTP/1.1\r\nHost: a\r\n{more}"
            f"Content-Length: {len(text + rest)}\r\n\r\n"
        ).encode()
        + text
        + rest
    )


def figures(address: str) -> dict[str, float]:
    text = httpx.get(address + "/metrics").text
    return {n: float(value) for n, value in re.findall(r"^([^# ].*) (\S+)$", text, re.M)}


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("count", [600, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_answer_is_lost_or_mixed(sized: str, count: int, record_property: Any) -> None:
    """Of images of three sizes at once."""
    asyncio.run(load(sized, 100))
    before = figures(sized)
    begin = time.monotonic()
    seen = asyncio.run(load(sized, count))
    seconds = time.monotonic() - begin
    assert len(seen) == count
    after = figures(sized)
    name = 'convdsl_requests_total{model="sized",status="200"}'
    assert after[name] - before[name] == count
    assert after["convdsl_body_bytes"] == 0
    batches = after['convdsl_batch_samples_count{model="sized"}']
    assert batches < after['convdsl_batch_samples_sum{model="sized"}']
    grown = after["process_resident_memory_bytes"] - before["process_resident_memory_bytes"]
    assert grown < 40e6, f"{grown / 1e6:.0f} MB more after {count} requests"
    record_property("measured", f"{count / seconds:.0f} requests/s, {grown / 1e6:+.1f} MB")


@pytest.mark.dear
def test_memory_is_flat(sized: str) -> None:
    """The third time needs no more than the second did."""
    levels: list[float] = []
    for _ in range(3):
        asyncio.run(load(sized, 300))
        levels.append(figures(sized)["process_resident_memory_bytes"])
    assert levels[2] - levels[1] < 6e6, levels


# Faults


def test_a_head_that_does_not_end(short: str) -> None:
    for said in (b"", b"GET /v2 HT", b"POST " + INFER.encode() + b" HTTP/1.1\r\nHost: a\r\n"):
        with closing(opened(short)) as connection:
            connection.sendall(said)
            begin = time.monotonic()
            assert received(connection) == b""
            assert 0.3 < time.monotonic() - begin < 5
    assert is_well(short)


def test_a_head_that_comes_byte_by_byte(short: str) -> None:
    with closing(opened(short)) as connection:
        begin = time.monotonic()
        head = b"GET /v2 HTTP/1.1\r\nHost: " + b"a" * 200
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            sent(connection, [bytes([byte]) for byte in head], 0.02)
        assert time.monotonic() - begin < 3


def test_a_head_that_is_too_long(short: str) -> None:
    with closing(opened(short)) as connection:
        connection.sendall(b"GET /v2 HTTP/1.1\r\nA: " + b"a" * 100_000 + b"\r\n\r\n")
        assert received(connection).startswith((b"HTTP/1.1 400", b""))
    assert is_well(short)


def half_a_request(body: bytes = b'{"inputs": [', length: int = 1000) -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (
        INFER.encode(),
        length,
        body,
    )


def test_a_body_that_does_not_end(short: str) -> None:
    with closing(opened(short)) as connection:
        connection.sendall(half_a_request())
        found = received(connection)
    assert found.startswith(b"HTTP/1.1 408")
    assert b'{"error":"the body did not come within 1.5 s"}' in found
    assert is_well(short)


def test_clients_that_leave(short: str) -> None:
    for _ in range(20):
        with closing(opened(short)) as connection:
            connection.sendall(half_a_request())
        body = json.dumps({"inputs": [tensor(X)]}).encode()
        with closing(opened(short)) as connection:  # before the answer
            connection.sendall(half_a_request(body, len(body)))
    assert is_well(short)


def test_what_is_no_http(short: str) -> None:
    for said in (b"\x16\x03\x01\x02\x00\x01\x00\x01", b"hello\r\n\r\n"):
        with closing(opened(short)) as connection:
            connection.sendall(said)
            found = received(connection)
        assert found.startswith(b"HTTP/1.1 400")
        assert found.endswith(b'{"error":"this is no HTTP request"}')
    with closing(opened(short)) as connection:  # a chunk whose length is none
        connection.sendall(
            b"POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
            % INFER.encode()
        )
        assert received(connection).startswith(b"HTTP/1.1 400")
    assert is_well(short)


@pytest.mark.parametrize("chunked", [False, True])
def test_too_much_is_413_and_the_client_reads_why(short: str, chunked: bool) -> None:
    body = b" " * 1_000_000
    content: Any = (body[at : at + 10_000] for at in range(0, len(body), 10_000))
    answer = httpx.post(short + INFER, content=content if chunked else body)
    assert answer.status_code == 413
    assert answer.json() == {"error": "the body is larger than 50000 bytes"}
    assert answer.headers["connection"] == "close"
    assert is_well(short)


def test_expecting_to_go_on(short: str) -> None:
    """Who asks first need not send in vain."""
    with closing(opened(short)) as connection:
        head = half_a_request(b"", 10**9).replace(b"Host: a", b"Host: a\r\nExpect: 100-continue")
        connection.sendall(head)
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_a_client_that_does_not_read() -> None:
    service = service_of(Doubling(), SHORT)
    with listening(service) as address, closing(opened(address)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body = json.dumps({"inputs": [tensor(np.full((8, 999), 0.123456789))]}).encode()
        request = half_a_request(body, len(body))
        with pytest.raises((ConnectionResetError, BrokenPipeError, TimeoutError)):
            sent(connection, [request] * 2000)
        assert is_well(address)
    assert not service.bugs


def test_mistakes_leave_the_connection_open(short: str) -> None:
    with httpx.Client(base_url=short) as client:
        for _ in range(3):
            answer = client.post(INFER, content=b"{")
            assert answer.status_code == 400
            assert "connection" not in answer.headers
        assert client.post(INFER, json={"inputs": [tensor(X)]}).status_code == 200


def test_more_connections_than_may_be() -> None:
    service = service_of(Doubling(), Limits(connections=3, header=5))
    with listening(service) as address:
        held = [opened(address) for _ in range(3)]
        time.sleep(0.1)
        answer = httpx.get(address + "/v2")
        assert answer.status_code == 503
        assert answer.json() == {"error": "too many connections"}
        for connection in held:
            connection.close()
        time.sleep(0.1)
        assert is_well(address)


@pytest.mark.dear
def test_two_requests_in_one_breath(short: str) -> None:
    """Pipelined, and answered in order."""
    bodies = [json.dumps({"id": id, "inputs": [tensor(X)]}).encode() for id in "ab"]
    with closing(opened(short)) as connection:
        connection.sendall(b"".join(half_a_request(body, len(body)) for body in bodies))
        found = b""
        while found.count(b'"data"') < 2:
            found += connection.recv(65536)
    assert found.index(b'"id":"a"') < found.index(b'"id":"b"')


# The end


@pytest.mark.dear
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_at_work_is_finished(place: Path, number: signal.Signals) -> None:
    """Every answer that comes is whole and its own; after the signal no new ones are taken."""
    arguments = ("sized.cnn", "--weights", "sized.npz", "--threads", 1)
    with command(*arguments, folder=place) as (address, process):
        asyncio.run(load(address, 50))
        outcomes: list[str] = []
        stop = threading.Event()

        def ask() -> None:
            draw = np.random.default_rng(threading.get_ident() % 1000)
            client = httpx.Client(base_url=address, verify=False)
            while not stop.is_set():
                x = draw.integers(-99, 99, (6, 5)).astype(np.float32)
                try:
                    answer = client.post(
                        "/v2/models/sized/infer", json={"inputs": [tensor(x[None, None])]}
                    )
                except httpx.TransportError as error:
                    outcomes.append(type(error).__name__)
                    if isinstance(error, httpx.ConnectError):
                        return
                    continue
                assert answer.status_code == 200, answer.text
                found = np.reshape(answer.json()["outputs"][0]["data"], (2, 6, 5))
                np.testing.assert_array_equal(found, sized_answer(x))
                outcomes.append("answered")

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        begin = time.monotonic()
        while outcomes.count("answered") < 20:
            assert time.monotonic() - begin < 60
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(30) == 0
        stop.set()
        for thread in threads:
            thread.join(30)
        # none was cut off within its answer
        assert set(outcomes) <= {"answered", "ConnectError", "ReadError", "RemoteProtocolError"}
        assert "Traceback" not in process.stderr.read()  # type: ignore[union-attr]


@pytest.mark.dear
def test_who_waits_when_it_ends_is_answered() -> None:
    go = threading.Event()
    service = service_of(Doubling(step=lambda x: go.wait(10)), Limits(batch=1, farewell=10))
    answers: list[httpx.Response] = []
    with listening(service) as address:

        def ask() -> None:
            answers.append(httpx.post(address + INFER, json={"inputs": [tensor(X)]}, timeout=20))

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        begin = time.monotonic()
        while service.batchers["net"]._count < 6:
            assert time.monotonic() - begin < 30
            time.sleep(0.01)
        threading.Timer(0.3, go.set).start()  # after the server has been told
    for thread in threads:
        thread.join(20)
    assert [answer.status_code for answer in answers] == [200] * 6
    assert {tuple(answer.json()["outputs"][0]["data"]) for answer in answers} == {(2, 4, 6)}
