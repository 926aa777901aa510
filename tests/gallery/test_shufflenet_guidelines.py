"""Section 2 of arXiv:1807.11164: memory access cost by its equations, and as convdsl counts it."""

from __future__ import annotations

import json
from math import isqrt
from typing import Any

import pytest

from convdsl.cli import main


def kernels(capsys: pytest.CaptureFixture[str], name: str, **given: Any) -> list[dict[str, Any]]:
    """What `convdsl report --machine` says of each; f32, so that four bytes are an element."""
    said = [f"--set={key}={str(value).lower()}" for key, value in given.items()]
    command = ["report", name, "--batch", "1", "--machine", "100/10", "--format", "json"]
    assert main([*command, *said]) == 0
    return json.loads(capsys.readouterr().out)["kernels"]


def access(found: list[dict[str, Any]]) -> int:
    return sum(kernel["bytes"] for kernel in found) // 4


@pytest.mark.parametrize("size", [7, 14, 28])
@pytest.mark.parametrize("ratio", [1, 4, 16])
def test_equal_widths(capsys: pytest.CaptureFixture[str], ratio: int, size: int) -> None:
    """Equation 1: MAC = hw (c1 + c2) + c1 c2 >= 2 sqrt(hw B) + B / hw, equal where c1 = c2."""
    c1, c2, hw = 64 // isqrt(ratio), 64 * isqrt(ratio), size * size
    found = access(kernels(capsys, "equal_widths", channels=c1, width=c2, size=size))
    assert found == hw * (c1 + c2) + c1 * c2
    b = hw * c1 * c2
    least = 2 * isqrt(hw * b) + b // hw
    assert isqrt(hw * b) ** 2 == hw * b
    assert found >= least
    assert (found == least) == (ratio == 1)


def test_groups(capsys: pytest.CaptureFixture[str]) -> None:
    """Equation 2: MAC = hw c1 + B g / c1 + B / hw, which grows with g at the same B and c1."""
    c1, hw = 64, 14 * 14
    found = []
    for groups in (1, 2, 4, 8):
        c2 = 64 * groups
        b = hw * c1 * c2 // groups
        given = {"channels": c1, "width": c2, "groups": groups}
        found.append(access(kernels(capsys, "grouped_widths", **given)))
        assert found[-1] == hw * c1 + b * groups // c1 + b // hw
    assert found == sorted(set(found))


@pytest.mark.parametrize("parallel", [True, False])
def test_fragments(capsys: pytest.CaptureFixture[str], parallel: bool) -> None:
    """The same arithmetic, more operators, more memory access. In a row each of `count` reads and
    writes the map; side by side each reads it, and what is joined is moved once more."""
    channels, hw = 128, 14 * 14
    for count in (1, 2, 4):
        found = kernels(capsys, "fragments", count=count, parallel=parallel)
        convolutions = [kernel for kernel in found if "conv" in kernel["ops"]]
        maps = count + 1 if parallel else 2 * count
        assert len(convolutions) == count
        assert access(convolutions) == maps * hw * channels + channels**2
        moved = sum(k["bytes"] for k in found if k not in convolutions) // 4
        assert moved == (2 * hw * channels if parallel and count > 1 else 0)


def share(capsys: pytest.CaptureFixture[str], name: str, kinds: set[str], size: int = 224) -> float:
    """Of all elements that layers put out, what operators of some kinds do."""
    command = ["report", name, "--batch", "1", "--format", "json"]
    assert main([*command, *(["--set", f"resolution={size}"] if size != 224 else [])]) == 0
    rows = json.loads(capsys.readouterr().out)["layers"]
    sizes = {True: 0, False: 0}
    for row in rows:
        elements = 1
        for extent in row["output_shape"]:
            elements *= extent
        sizes[row["op"] in kinds] += elements
    return sizes[True] / (sizes[True] + sizes[False])


def test_elementwise(capsys: pytest.CaptureFixture[str]) -> None:
    """Table 4: without relu and shortcut there is less to move; the shortcut is what costs."""
    mac = {
        (active, shortcut): access(kernels(capsys, "elementwise", active=active, shortcut=shortcut))
        for active in (True, False)
        for shortcut in (True, False)
    }
    assert mac[True, True] - mac[True, False] == 64 * 14 * 14
    assert mac[True, True] == mac[False, True]  # relu is part of the kernel before it


@pytest.mark.dear
def test_shufflenet_v2_adds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """G4: no additions, where MobileNetV2 has one for each repeated unit."""
    assert share(capsys, "shufflenet_v2_x1_0", {"add"}) == 0
    assert share(capsys, "mobilenet_v2", {"add"}) > 0.01
    v2 = share(capsys, "shufflenet_v2_x1_0", {"relu", "add"})
    assert v2 < share(capsys, "shufflenet_v1", {"relu", "add"})
