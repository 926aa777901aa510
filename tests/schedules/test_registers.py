"""Main loops as LLVM makes them: sums stay in the registers that a tile was chosen for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from drawn_convolutions import conv_graph
from graphs import Builder

from convdsl.backends.llvm.module import print_module
from convdsl.backends.llvm.objects import emit_assembly, find_target
from convdsl.ir.graph import Graph
from convdsl.lowering.lower import lower
from convdsl.schedules.cpu.machine import cpu_machine

TRIPLE = "x86_64-unknown-linux-gnu"
LABEL = re.compile(r"(\.L\w+):")
MULTIPLY_ADD = re.compile(r"vfn?m(add|sub)\d*[ps]s\b")
MOVED = re.compile(r"vmov[au]p[sd]\s+%[xyz]mm\d+, %[xyz]mm\d+$")
STACK = re.compile(r"\(%rsp\).*%[xyz]mm|%[xyz]mm.*\(%rsp\)")


def innermost_loops(assembly: str) -> Iterator[list[str]]:
    """The instructions from a label to the jump back to it, without labels between them."""
    label, codes = "", list[str]()
    for line in assembly.splitlines():
        if found := LABEL.match(line):
            label, codes = found.group(1), []
        elif line.startswith("\t") and not line.startswith("\t."):
            codes.append(line.strip())
            if label and re.fullmatch(rf"\tj\w+\t{re.escape(label)}", line):
                yield codes


def product_graph(rows: int, depth: int, columns: int) -> Graph:
    b = Builder()
    x, y = b.input("x", rows, depth), b.input("y", depth, columns)
    return b.output(z=b("matmul", x, y))


LAYERS: dict[str, Any] = {
    "strided, 4 x 7": lambda: conv_graph(
        (1, 64, 56, 56), {"channels": 128, "kernel": 3, "stride": 2, "pad": 1}
    ),
    "winograd, 4 x 7": lambda: conv_graph((1, 64, 56, 56), {"channels": 64, "kernel": 3, "pad": 1}),
    "narrow map": lambda: conv_graph((1, 256, 7, 7), {"channels": 512, "kernel": 1}),
    "5 blocks": lambda: conv_graph((1, 64, 25, 25), {"channels": 80, "kernel": 1}),
    "product, 4 x 7": lambda: product_graph(21, 96, 64),
    "3 blocks": lambda: conv_graph((1, 64, 18, 18), {"channels": 48, "kernel": 1}),
}


@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("cpu", ["skylake-avx512", "icelake-server", "znver4"])
@pytest.mark.parametrize("layer", LAYERS)
def test_sums_stay_in_their_registers(layer: str, cpu: str) -> None:
    """4 x 7 sums were 93 instructions for Ice Lake: 28 multiplied, 44 moved sums about."""
    target = find_target(cpu, TRIPLE)
    program = lower(LAYERS[layer](), cpu_machine(target), "t").program
    assembly = emit_assembly(print_module(program, target), target)
    main = [codes for codes in innermost_loops(assembly) if count(codes, MULTIPLY_ADD) >= 12]
    assert main
    for codes in main:
        assert count(codes, MOVED) + count(codes, STACK) < 4, "\n".join(codes)


def count(codes: Sequence[str], kind: re.Pattern[str]) -> int:
    return sum(bool(kind.search(code)) for code in codes)
