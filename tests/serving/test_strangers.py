"""Whatever strangers send to a real network: an answer, or what is wrong, and never a failure."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving.conftest import client_of, service_of

import convdsl
from convdsl.runtime.executable import Executable
from convdsl.serving import protocol
from convdsl.serving.hosting import Hosted
from convdsl.serving.limits import Limits

TEXT = """
model several {
    input a: f32[N, 2, H]
    input b: i64[N, 3]
    input c: bool[N]
    conv(a, 2, 3, bias = false) as conv -> output convolved
    b * 3 -> output tripled
    c -> output flags
}
"""
INFER = "/v2/models/net/infer"


@pytest.fixture(scope="module")
def network() -> Executable:
    made = convdsl.compile(convdsl.parse(TEXT), "random:0", threads=1)
    made.kept = 100
    return made


GOOD: dict[str, Any] = {
    "id": "1",
    "inputs": [
        {"name": "a", "datatype": "FP32", "shape": [2, 2, 3], "data": [[[1.5, 2, 3]] * 2] * 2},
        {"name": "b", "datatype": "INT64", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]},
        {"name": "c", "datatype": "BOOL", "shape": [2], "data": [True, False]},
    ],
    "outputs": [{"name": "tripled", "parameters": {"classification": 2}}, {"name": "convolved"}],
    "parameters": {"binary_data_output": False},
}

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.sampled_from([2**31, 2**63, -(2**63), 10**30, 1e39, -0.5, float("nan"), float("inf")]),
    st.sampled_from(["", "a", "b", "NaN", "FP32", "FP64", "BYTES", "BOOL", "tripled", "\x00"]),
    st.lists(st.integers(0, 3), max_size=4),
    st.dictionaries(st.sampled_from(["name", "shape", "binary_data"]), st.integers(0, 2)),
)


def places(said: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a value stands, of all values in a document."""
    found = [here] if here else []
    if isinstance(said, dict | list):
        for key, value in said.items() if isinstance(said, dict) else enumerate(said):
            found += places(value, (*here, key))
    return found


@st.composite
def requests(draw: Any) -> bytes:
    """A request with up to three values replaced, left out or doubled, perhaps cut off."""
    said = copy.deepcopy(GOOD)
    for _ in range(draw(st.integers(0, 2))):
        *way, last = draw(st.sampled_from(places(said)))
        holder: Any = said
        for key in way:
            holder = holder[key]
        match draw(st.sampled_from(["replace", "leave out", "double"])):
            case "replace":
                holder[last] = draw(VALUES)
            case "leave out":
                del holder[last]
            case _ if isinstance(holder, list):
                holder.insert(last, copy.deepcopy(holder[last]))
    body = json.dumps(said).encode()
    return body[: len(body) - draw(st.sampled_from([0] * 9 + [1, 40]))]


@pytest.mark.dear
@settings(max_examples=80)
@given(st.lists(requests(), min_size=1, max_size=4))
def test_strangers(network: Executable, bodies: list[bytes]) -> None:
    """At once, so that right ones and wrong ones meet in a queue."""
    service = service_of(network)

    async def run() -> list[httpx.Response]:
        async with client_of(service) as client:
            posts = (client.post(INFER, content=body) for body in (*bodies, json.dumps(GOOD)))
            return await asyncio.gather(*posts)

    *answers, good = asyncio.run(run())
    assert not service.bugs
    assert good.status_code == 200
    for body, answer in zip(bodies, answers, strict=True):
        assert answer.status_code in (200, 400), answer.text
        said = json.loads(answer.text, parse_constant=pytest.fail)
        if answer.status_code == 400:
            assert list(said) == ["error"]
            assert 0 < len(said["error"]) < 1000
        else:
            check(network, body, said)


def check(network: Executable, body: bytes, said: dict[str, Any]) -> None:
    """Against the network called with what the request says."""
    asked = protocol.parse(body, None, Hosted("net", network, 8), Limits())
    wanted = network.by_name(**asked.arrays)
    for row in said["outputs"]:
        if row["datatype"] == "BYTES":
            continue
        expected = wanted[row["name"]]
        assert row["shape"] == [*expected.shape]
        found = np.array(row["data"], expected.dtype).reshape(expected.shape)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
