"""Thousands of damaged files, in a process of its own under limits of memory and time.

    PYTHONPATH=tests python -m interop.mutations onnx|safetensors COUNT

Exit 0 if each gave a result or an error of ours.
"""

from __future__ import annotations

import random
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save

import convdsl
from convdsl.bound import bind_weights_of
from convdsl.interop.onnx_file import parse
from convdsl.interop.onnx_load import model_of

MEMORY = 1 << 30
"""Bytes of address space beyond what an empty run has taken."""

SECONDS_EACH = 1 / 10
"""Processor time, on average: far more than needed, far less than a hang."""


def small_onnx(size: tuple[int, ...] = (4, 3, 3, 3)) -> onnx.ModelProto:
    weight = np.zeros(size, np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["h"], "conv", pads=[1, 1, 1, 1]),
            helper.make_node("Reshape", ["h", "s"], ["y"], "reshape"),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 256])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.int64([0, -1]), "s")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def mutated(data: bytes, seed: int) -> bytes:
    """A few bytes flipped, cut, doubled or overwritten."""
    rng = random.Random(seed)
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed))
        match rng.randrange(4):
            case 0:
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                changed[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
            case 2:
                del changed[at : at + rng.randint(1, 8)]
            case _:
                changed[at:at] = changed[at : at + rng.randint(1, 8)]
    return bytes(changed)


def read_onnx(data: bytes) -> None:
    """As the parent does when the child has found nothing: it finds less than we try here."""
    model_of(parse(data, "net.onnx"), "net.onnx", {})


def safetensors_reader() -> tuple[bytes, Callable[[bytes], None]]:
    model = convdsl.parse(
        "convdsl 1\nmodel m {\ninput x: f32[N, 3, 8, 8]\nx -> conv(4, 3x3) -> bn -> flatten -> "
        "linear(2)\n}\n"
    )
    path = Path(tempfile.mkdtemp()) / "w.safetensors"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        bind_weights_of(model, path)

    return save(dict(bind_weights_of(model, "random:1"))), read


def main(kind: str, count: int) -> int:
    seed, read = (
        (small_onnx().SerializeToString(), read_onnx) if kind == "onnx" else safetensors_reader()
    )
    read(seed)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    limit = 30 + int(count * SECONDS_EACH)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    refused = 0
    for number in range(count):
        try:
            read(mutated(seed, number))
        except convdsl.Error:
            refused += 1
        except BaseException:
            print(f"mutation {number} of {kind}", flush=True)
            raise
    print(f"{count} mutations of {kind}: {refused} refused, {count - refused} read")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
