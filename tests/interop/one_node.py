"""One ONNX node with what it reads, drawn, in onnxruntime and here."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper
from op_cases.draw import Draw

from convdsl.interop.onnx_load import model_of
from interop.runtimes import run_convdsl, run_onnxruntime
from interop.test_element_types import file_of, integers


class Node:
    """One node with what it reads, drawn: data are inputs, all else is stored."""

    def __init__(self, draw: Draw, kind: str, domain: str = "", **attributes) -> None:
        self.draw, self.kind, self.domain, self.attributes = draw, kind, domain, attributes
        self.names: list[str] = []
        self.data: dict[str, np.ndarray] = {}
        self.stored: dict[str, np.ndarray] = {}

    def reads(self, array, stored=True) -> None:
        name = "" if array is None else f"i{len(self.names)}"
        self.names.append(name)
        if array is not None:
            (self.stored if stored else self.data)[name] = np.asarray(array)

    def tensor(self, shape, name, stored=False, per=()) -> None:
        """Integers, their scale and zero point."""
        self.reads(integers(self.draw, name, shape), stored)
        self.linear(name, per)

    def linear(self, name, per=(), low=0.01, high=0.1) -> None:
        self.reads(self.draw.array(per, low, high).astype("f4"))
        self.reads(self.zero(name, per))

    def zero(self, name, per=()):
        return self.draw.rng.integers(0 if name == "uint8" else -9, 10, per).astype(name)

    def run(self, output, opset=17) -> tuple[np.ndarray, np.ndarray]:
        """What onnxruntime says, and what we say."""
        expected, found = self.run_all({"y": output}, opset)
        return expected["y"], found["y"]

    def run_all(self, outputs, opset=17, order=()):
        """The same of several outputs, by name: `order` says which are left out ("")."""
        proto = self.proto(outputs, opset, order)
        expected = run_onnxruntime(proto, self.data)
        shapes = {name: array.shape for name, array in expected.items()}
        return expected, self.found(outputs, shapes, opset, order)

    def found(self, outputs, shapes, opset=17, order=()):
        """What we say, where the shapes of outputs are known."""
        proto = self.proto(outputs, opset, order, shapes)
        return run_convdsl(model_of(proto, "net.onnx", {}), self.data, cache=False)

    def proto(self, outputs, opset, order=(), shapes=None) -> onnx.ModelProto:
        while self.names[-1] == "":
            self.names.pop()
        node = helper.make_node(
            self.kind, self.names, order or list(outputs), domain=self.domain, **self.attributes
        )
        types = {
            name: (helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for name, a in self.data.items()
        }
        wanted = {name: (t, shapes[name] if shapes else None) for name, t in outputs.items()}
        proto = file_of([node], types, wanted, self.stored, opset)
        if self.domain:
            proto.opset_import.append(helper.make_opsetid(self.domain, 1))
        return proto
