"""Long lists of numbers, read in pieces: what Python's reader would have read, or refused."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from serving.test_protocol import one

from convdsl.serving import json_text, protocol
from convdsl.serving.limits import Limits, Refusal
from convdsl.tensor import DType

READERS: list[Any] = [pytest.param(json.loads, id="json")]
"""What reads the pieces. Of Python's own what is done with them is tested where orjson is not."""

try:
    import orjson

    READERS.append(pytest.param(orjson.loads, id="orjson"))
except ImportError:
    pass

HEAD = b'{"inputs": [{"name": "x", "datatype": "%s", "shape": [%d], "data": '
NAMES = {DType.F32: b"FP32", DType.F64: b"FP64", DType.I64: b"INT64"}
NUMBERS = [
    "0", "-0", "1", "-0.0", "1.5", "1e400", "-1e-400", "5e-324", "1E5", "0.1", "9007199254740993",
    "18446744073709551616", "-9223372036854775809", "123456789012345678901234567890", "NaN",
    "-Infinity", "1.7976931348623158e308", "0.30000000000000004", "2.2250738585072011e-308",
]  # fmt: skip
BROKEN = [
    "",
    " ",
    "01",
    "1.",
    ".5",
    "+1",
    "true",
    "null",
    '"NaN"',
    "[1]",
    "{}",
    "1 2",
    "0x1",
    "1e",
    "]",
]


def outcome(body: bytes, dtype: DType, count: int) -> Any:
    try:
        x = protocol.parse(body, None, one(dtype, count), Limits()).arrays["x"]
    except Refusal as refusal:
        return refusal.status, refusal.message
    return x.dtype, x.tobytes()


@pytest.mark.parametrize("loads", READERS)
@pytest.mark.parametrize("dtype", NAMES, ids=str)
def test_pieces_are_the_whole(
    loads: Callable[[bytes], Any], dtype: DType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bits and the same words, of lists with mistakes in every second one."""
    draw = random.Random(str(dtype))
    for turn in range(80):
        count = draw.randrange(1, 90)
        words = [number(draw, dtype) for _ in range(count)]
        if turn % 2:
            words[draw.randrange(count)] = draw.choice(BROKEN)
        said = draw.choice([",", ", ", " ,\n"]).join(words).encode()
        body = HEAD % (NAMES[dtype], count) + b"[" + said + b"]}]}"
        if draw.random() < 0.1:
            body = body[: draw.randrange(len(body))]
        monkeypatch.setattr(json_text, "PIECE", draw.choice([4, 11, 40, 1000]))
        monkeypatch.setattr(json_text, "_loads", lambda: None)
        wanted = outcome(body, dtype, count)
        monkeypatch.setattr(json_text, "_loads", lambda: loads)
        assert outcome(body, dtype, count) == wanted, body


def number(draw: random.Random, dtype: DType) -> str:
    if dtype is DType.I64:
        return str(draw.randrange(-(10**19), 10**19))
    return draw.choice(NUMBERS) if draw.random() < 0.4 else repr(draw.uniform(-9, 9))


GOOD = b'"name": "x", "datatype": "FP32"'
PLACES = {
    "twice": b'{"inputs": [{GOOD, S, "data": [LONG], "data": [LONG]}]}',
    "also elsewhere": b'{"inputs": [{GOOD, S, "data": [LONG], "p": {"data": [7, LONG]}}]}',
    "outside": b'{"data": [LONG], "inputs": [{GOOD, "shape": [2], "data": [1, 2]}]}',
    "looks like one": b'{"inputs": [{GOOD, S, "data" : [LONG]}], "id": "\\"data\\": [1"}',
    "a list": b'[{"data": [LONG]}]',
    "no inputs": b'{"inputs": {"data": [LONG]}}',
    "nested": b'{"inputs": [{GOOD, "data": [[LONG]], "shape": [1, 200]}]}',
    "torn": b'{"inputs": [{GOOD, "data": [LONG',
    "no UTF-8": b'\xff{"data": [LONG]}',
}


@pytest.mark.parametrize("loads", READERS)
@pytest.mark.parametrize("name", PLACES)
def test_wherever_lists_stand(
    loads: Callable[[bytes], Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_text, "PIECE", 50)
    body = (
        PLACES[name]
        .replace(b"GOOD", GOOD)
        .replace(b" S,", b' "shape": [200],')
        .replace(b"LONG", b", ".join([b"0.5", b"7"] * 100))
    )
    sizes = (1, 200) if name == "nested" else (2,) if name == "outside" else (200,)

    def outcome() -> Any:
        try:
            asked = protocol.parse(body, None, one(DType.F32, *sizes), Limits())
        except Refusal as refusal:
            return refusal.message
        return asked.id, {name: x.tobytes() for name, x in asked.arrays.items()}

    monkeypatch.setattr(json_text, "_loads", lambda: None)
    wanted = outcome()
    assert isinstance(wanted, tuple) == (name in [*list(PLACES)[:4], "nested"])
    monkeypatch.setattr(json_text, "_loads", lambda: loads)
    assert outcome() == wanted


@pytest.mark.dear(share=4)
def test_what_looks_like_many_lists_is_passed_over_once() -> None:
    """Each byte of a body is looked at a few times, however many lists seem to begin in it."""
    body = b'{"inputs": [' + b'{"data": [1, "' * 500_000 + b"]"
    begin = time.process_time()
    assert not list(json_text._long_lists(body))
    assert time.process_time() - begin < 2


@pytest.mark.dear(share=4)
def test_others_have_their_turn_while_a_long_list_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """No piece is much longer than it is to be."""
    pieces: list[int] = []

    def loads(text: bytes) -> Any:
        pieces.append(len(text))
        return json.loads(text)

    monkeypatch.setattr(json_text, "_loads", lambda: loads)
    x = np.random.default_rng(0).standard_normal(200_000)
    body = HEAD % (b"FP64", x.size) + json.dumps(x.tolist()).encode() + b"}]}"
    found = protocol.parse(body, None, one(DType.F64, x.size), Limits()).arrays["x"]
    assert found.tobytes() == x.tobytes()
    assert max(pieces) < json_text.PIECE + 100
    assert len(pieces) == 1 + -(-len(body) // json_text.PIECE)
