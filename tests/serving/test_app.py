"""The application, without sockets: what is at each address, and what is said to mistakes."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from serving.conftest import Doubling, client_of, service_of, tensor

from convdsl.classification import prepared
from convdsl.runtime.saved import load_executable
from convdsl.serving.hosting import ladder
from convdsl.serving.limits import Limits

INFER = "/v2/models/net/infer"


def asked(*requests: Any, service: Any = None, **how: Any) -> list[httpx.Response]:
    """Answers to requests (method, path, keywords), made one after the other."""
    service = service or service_of(Doubling(), **how)

    async def all_of_them() -> list[httpx.Response]:
        async with client_of(service) as client:
            return [
                await client.request(method, path, **keywords)
                for method, path, keywords in requests
            ]

    answers = asyncio.run(all_of_them())
    assert not service.bugs
    return answers


def one(**keywords: Any) -> httpx.Response:
    return asked(("POST", INFER, keywords))[0]


X = np.float32([[1, 2, 3], [4, 5, 6]])


def test_what_a_server_says_of_itself() -> None:
    paths = ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models", "/v2/models/net",
             "/v2/models/net/versions/1", "/v2/models/net/ready",
             "/v2/models/net/versions/1/ready"]  # fmt: skip
    found = asked(*(("GET", path, {}) for path in paths))
    assert {answer.status_code for answer in found} == {200}
    said = {path: answer.json() for path, answer in zip(paths, found, strict=True)}
    assert said["/v2"]["name"] == "convdsl"
    assert "binary_tensor_data" in said["/v2"]["extensions"]
    assert said["/v2/models"] == {"models": ["net"]}
    assert said["/v2/models/net"] == {
        "name": "net", "versions": ["1"], "platform": "convdsl",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, -1]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, -1]}],
    }  # fmt: skip
    assert said["/v2/models/net/versions/1"] == said["/v2/models/net"]
    assert said["/v2/models/net/ready"] == {"name": "net", "ready": True}


@pytest.mark.parametrize("path", [INFER, "/v2/models/net/versions/1/infer"])
def test_inference(path: str) -> None:
    said = {"id": "7", "inputs": [tensor(X)]}
    (answer,) = asked(("POST", path, {"json": said}))
    assert answer.status_code == 200
    assert answer.json() == {
        "model_name": "net", "model_version": "1", "id": "7",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 3],
                     "data": [2, 4, 6, 8, 10, 12]}],
    }  # fmt: skip


def test_binary_inference() -> None:
    entry = {"name": "x", "datatype": "FP32", "shape": [2, 3]}
    entry["parameters"] = {"binary_data_size": X.nbytes}
    head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = one(content=head + X.tobytes(), headers=headers)
    assert answer.status_code == 200, answer.text
    length = int(answer.headers["Inference-Header-Content-Length"])
    (row,) = json.loads(answer.content[:length])["outputs"]
    assert "data" not in row
    np.testing.assert_array_equal(np.frombuffer(answer.content[length:], "f4"), 2 * X.ravel())


@pytest.mark.parametrize(
    ("method", "path", "keywords", "status", "said"),
    [
        ("GET", "/", {}, 404, "nothing is at GET /"),
        ("GET", "/v2/models/other", {}, 404, "no model `other`; there is only net"),
        ("GET", "/v2/models/" + "m" * 200, {}, 404, "m" * 80 + "...`; there is only net"),
        ("GET", "/v2/models/net/versions/2", {}, 404, "no version 2 of net; there is 1"),
        ("POST", "/v2/models/other/infer", {"json": {}}, 404, "no model `other`"),
        ("GET", INFER, {}, 405, "is not offered"),
        ("DELETE", "/v2/models/net", {}, 405, "is not offered"),
        ("POST", "/v2/repository/models/net/load", {"json": {}}, 404, "nothing is at"),
        ("POST", INFER, {}, 400, "the body is no JSON"),
        ("POST", INFER, {"content": b"{"}, 400, "the body is no JSON"),
        ("POST", INFER, {"json": {"inputs": [tensor(X[0])]}}, 400, "expected f32[N, W]"),
        (
            *("POST", INFER),
            {"json": {"inputs": [tensor(np.zeros((1, 1001)))]}},
            *(400, "too wide"),
        ),
        (
            *("POST", INFER),
            {"content": b"x", "headers": {"content-encoding": "gzip"}},
            *(415, "a body in gzip: only plain ones are read"),
        ),
    ],
)
def test_mistakes(method: str, path: str, keywords: Any, status: int, said: str) -> None:
    (answer,) = asked((method, path, keywords))
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert said in answer.json()["error"]


@pytest.mark.parametrize("declared", [True, False])
def test_bodies_are_limited(declared: bool) -> None:
    limits = Limits(body=1000, bodies=1000)
    fits = json.dumps({"inputs": [tensor(X)]}).encode()

    async def streamed(body: bytes) -> Any:
        for at in range(0, len(body), 100):
            yield body[at : at + 100]

    def content(size: int) -> Any:
        body = fits + b" " * (size - len(fits))
        return body if declared else streamed(body)

    requests = [("POST", INFER, {"content": content(size)}) for size in (1000, 1001, 9000, 1000)]
    service = service_of(Doubling(), limits)
    found = asked(*requests, service=service)
    assert [answer.status_code for answer in found] == [200, 413, 413, 200]
    assert found[1].json() == {"error": "the body is larger than 1000 bytes"}
    assert service.bodies._all == 0


def test_a_full_queue_is_503_and_says_when_to_come_again() -> None:
    go = threading.Event()
    service = service_of(Doubling(step=lambda x: go.wait(10)), Limits(queue=3, batch=1))

    async def run() -> list[httpx.Response]:
        async with client_of(service) as client:

            def post() -> Any:
                return client.post(INFER, json={"inputs": [tensor(X[:1])]})

            waiting = [asyncio.create_task(post()) for _ in range(3)]
            await asyncio.sleep(0.1)
            refused = await post()
            go.set()
            return [refused, *await asyncio.gather(*waiting), await post()]

    refused, *served = asyncio.run(run())
    assert refused.status_code == 503
    assert refused.json() == {"error": "3 requests wait already"}
    assert int(refused.headers["retry-after"]) >= 1
    assert [answer.status_code for answer in served] == [200] * 4


def test_what_takes_too_long_is_503() -> None:
    go = threading.Event()
    service = service_of(Doubling(step=lambda x: go.wait(10)), Limits(timeout=1.0))

    async def run() -> list[httpx.Response]:
        async with client_of(service) as client:
            late = await client.post(INFER, json={"inputs": [tensor(X)]})
            go.set()
            return [late, await client.post(INFER, json={"inputs": [tensor(X)]})]

    late, served = asyncio.run(run())
    assert late.status_code == 503
    assert late.json() == {"error": "not answered within 1 s"}
    assert served.status_code == 200


def test_bugs_are_told_to_the_server_alone() -> None:
    def step(x: Any) -> None:
        if x[0, 0] == 1:
            raise ZeroDivisionError("secret")

    service = service_of(Doubling(step=step))

    async def run() -> list[httpx.Response]:
        async with client_of(service) as client:
            return [
                await client.post(INFER, json={"inputs": [tensor(x[None])]}) for x in (X[0], X[1])
            ]

    failed, served = asyncio.run(run())
    assert failed.status_code == 500
    assert "secret" not in failed.text
    assert list(failed.json()) == ["error"]
    assert served.status_code == 200
    assert [type(bug) for bug in service.bugs] == [ZeroDivisionError]


@pytest.mark.parametrize("apart", [True, False])
def test_samples_share_batches_where_they_are_apart(apart: bool) -> None:
    network = Doubling(apart=apart, step=lambda x: time.sleep(0.02))
    service = service_of(network)

    async def run() -> None:
        async with client_of(service) as client:

            async def post(number: int) -> None:
                x = np.full((1 + number % 3, 2 + number % 2), float(number))
                answer = await client.post(INFER, json={"inputs": [tensor(x)]})
                (row,) = answer.json()["outputs"]
                assert row["shape"] == [*x.shape]
                assert row["data"] == (2 * x).ravel().tolist()

            await asyncio.gather(*map(post, range(20)))

    asyncio.run(run())
    if apart:
        assert len(network.runs) < 14
        assert set(network.runs) <= {1, 2, 4, 8}
    else:
        assert sorted(network.runs) == sorted(1 + number % 3 for number in range(20))


def test_only_sizes_that_are_served() -> None:
    service = service_of(Doubling(), only=[{"W": 3}, {"W": 5}])
    found = asked(
        *(
            ("POST", INFER, {"json": {"inputs": [tensor(np.ones((1, width)))]}})
            for width in (3, 4, 5)
        ),
        service=service,
    )
    assert [answer.status_code for answer in found] == [200, 400, 200]
    assert found[1].json() == {"error": "W = 4: this server is for W = 3 or W = 5"}


def test_metrics() -> None:
    requests = [("POST", INFER, {"json": {"inputs": [tensor(X)]}})] * 3
    requests += [("POST", INFER, {"content": b"{"})]
    requests += [("POST", f"/v2/models/{name}/infer", {"json": {}}) for name in ("a", "b")]
    *_, answer = asked(*requests, ("GET", "/metrics", {}))
    assert answer.headers["content-type"].startswith("text/plain")
    found = {
        name: float(value) for name, value in re.findall(r"^([^# ].*) (\S+)$", answer.text, re.M)
    }
    assert found['convdsl_requests_total{model="net",status="200"}'] == 3
    assert found['convdsl_requests_total{model="net",status="400"}'] == 1
    assert found['convdsl_requests_total{model="",status="404"}'] == 2
    assert found['convdsl_request_seconds_count{model="net"}'] == 4
    assert found['convdsl_request_seconds_bucket{le="+Inf",model="net"}'] == 4
    assert found['convdsl_batch_samples_sum{model="net"}'] == 6
    assert found['convdsl_waiting_requests{model="net"}'] == 0
    assert found["convdsl_body_bytes"] == 0
    assert found["process_resident_memory_bytes"] > 1e6


def test_requests_are_logged_without_what_steers_terminals() -> None:
    lines: list[str] = []
    service = service_of(Doubling())
    service.log = lines.append
    asked(("GET", "/v2", {}), ("GET", "/" + "x" * 200, {}), service=service)
    assert re.fullmatch(r"GET /v2 200 [\d.]+ ms", lines[0])
    assert re.fullmatch(r"GET /x{79}\.\.\. 404 [\d.]+ ms", lines[1])


@pytest.mark.parametrize(
    ("most", "sizes"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])]
)
def test_batches_are_filled_up_to_twice_their_samples_at_most(most: int, sizes: list[int]) -> None:
    assert ladder(most) == sizes


@pytest.mark.dear
@pytest.mark.parametrize("file", ["photos.cdsl", "four.cdsl"])
def test_images_are_prepared_as_the_model_says(place: Path, file: str) -> None:
    """Artifacts for batches of 1 and 4, and of 4 alone; three images."""
    import base64
    import io

    from PIL import Image

    network = load_executable(place / file)
    draw = np.random.default_rng(0)
    files: list[bytes] = []
    for number in range(3):
        buffer = io.BytesIO()
        pixels = draw.integers(0, 256, (9 + number, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        files.append(buffer.getvalue())
    arrays = np.concatenate(prepared(network, files)[1])
    wanted = network(np.concatenate([arrays, arrays[-1:]]))[:3]
    entry = {"name": "image", "datatype": "BYTES", "shape": [3]}
    entry["data"] = [base64.b64encode(each).decode() for each in files]
    said = {"inputs": [entry], "outputs": [{"name": "logits"}]}
    service = service_of(
        *(network, Limits(batch=8)),
        image_input="image",
        prepare=lambda images: np.concatenate(prepared(network, images)[1]),
    )
    broken = {"inputs": [{**entry, "shape": [1], "data": [base64.b64encode(b"no").decode()]}]}
    classes = {**said, "outputs": [{"name": "logits", "parameters": {"classification": 1}}]}
    found = asked(
        *(("POST", INFER, {"json": each}) for each in (said, broken, classes)),
        ("GET", "/v2/models/net", {}),
        service=service,
    )
    np.testing.assert_array_equal(
        np.float32(found[0].json()["outputs"][0]["data"]).reshape(3, 3), wanted
    )
    assert found[1].status_code == 400
    assert "cannot read the image: it is none of BMP, GIF" in found[1].json()["error"]
    named = [f"{row.max():f}:{row.argmax()}:{network.labels[row.argmax()]}" for row in wanted]
    assert found[2].json()["outputs"][0]["data"] == named
    assert found[3].json()["inputs"][0]["shape"] == [-1, 3, 8, 8]
    assert found[3].json()["parameters"] == {"image_input": "image"}
