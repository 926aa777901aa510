"""An ONNX model as a graph and its weights: opsets 6 to the newest.

Every node becomes operators of ours by its rule; what follows from constants and shapes alone is
computed while reading. What cannot be read is told all at once, by node.
"""

from __future__ import annotations

import re
from collections import ChainMap, Counter
from collections.abc import Callable, Collection, Generator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from convdsl.diagnostics import InputError
from convdsl.interop.correspondence import READING
from convdsl.interop.element_types import FROM_ONNX, HALVES, INTEGERS, NIBBLES
from convdsl.interop.metadata import labels_of, preprocessing_of
from convdsl.interop.onnx_bodies import WITH_GRAPHS, Tensors, read_graphs
from convdsl.interop.onnx_file import ExternalData
from convdsl.interop.onnx_nodes import BRANCHES, needed, used
from convdsl.interop.onnx_ports import read_ports
from convdsl.interop.reading.folding import FOLDS, VIEWS, fold, fold_some
from convdsl.interop.reading.names import LayerNames
from convdsl.interop.reading.node import Reading
from convdsl.interop.reading.scene import Scene
from convdsl.interop.reading.tensors import (
    Known,
    ReadError,
    Tensor,
    Undecided,
    shape_of,
)
from convdsl.ir.graph import Value
from convdsl.ir.model import Model
from convdsl.ops import BY_NAME
from convdsl.tensor import DType, Symbol, SymDim

FIRST_OPSET = 6

_MALFORMED = (ValueError, LookupError, TypeError, ArithmeticError, AttributeError)
"""What rules raise that unpack what every well-formed model has."""

SIZED_BY_DATA = ("NonMaxSuppression", "NonZero", "Unique", "Compress")
"""Kinds that give as many elements as data say, where a graph has exact shapes."""

_INLINING = "onnx.inliner.inline_local_functions(model) puts what functions do in their place"
_LAID_OUT = "com.microsoft.nchwc."
_SAVING = (
    "ONNX Runtime has laid this file out for one kind of processor: "
    "let it save the network at ORT_ENABLE_EXTENDED or below"
)
_KINDS = "docs/onnx-conformance.md lists the kinds of nodes that are read"

_ENDS = ("Constant", "Shape", "Size")
"""Kinds whose rule itself says what is known."""


class SizesNeeded(InputError):
    """A network that has no graph before free sizes are bound, or enough is known of them.

    `condition`, where there is one, is a symbol of which enough more is known.
    """

    def __init__(self, message: str, condition: Symbol | None = None) -> None:
        super().__init__(message)
        self.condition = condition


def convert(
    proto: onnx.ModelProto,
    source: str,
    sizes: Mapping[str, int],
    values: Mapping[str, Any] | None = None,
    external: ExternalData | None = None,
    assumed: Mapping[str, Symbol] | None = None,
) -> Model:
    """A checked model as a graph. `sizes` binds free sizes, `assumed` says what is known of
    them; `values` fixes inputs: they become constants. Raises InputError."""
    with told_as_malformed(source):
        return _Importer(proto, source, sizes, values or {}, external, assumed or {}).model()


@contextmanager
def told_as_malformed(source: str) -> Generator[None]:
    """Whatever fails because a file is not as it should be becomes an InputError."""
    try:
        yield
    except _MALFORMED as error:
        raise InputError(f"{source} is malformed: {type(error).__name__}: {error}") from error


class _Importer:
    def __init__(
        self,
        proto: onnx.ModelProto,
        source: str,
        sizes: Mapping[str, int],
        values: Mapping[str, Any],
        external: ExternalData | None,
        assumed: Mapping[str, Symbol],
    ) -> None:
        self.proto = proto
        self.source = source
        self.ports = read_ports(proto, source, sizes, assumed)
        self.values = values
        self.opset = self._opset()
        self.nodes = needed(proto.graph)
        self.uses = Counter(name for _, node in self.nodes for name in used(node))
        self.uses.update(output.name for output in proto.graph.output)
        stored = (tensor.name for tensor in proto.graph.initializer)
        layers = LayerNames((node for _, node in self.nodes), stored)
        self.scene = Scene(partial(_known_tensor, external), self._is_spent, layers)
        self.tensors: MutableMapping[str, Tensor] = {}
        self.names: dict[Value, str] = {}

    def _opset(self) -> int:
        for entry in self.proto.opset_import:
            if entry.domain in ("", "ai.onnx"):
                return entry.version
        raise InputError(f"{self.source} names no version of ONNX's operators")

    def _is_spent(self, value: Value) -> bool:
        """Whether a value has exactly one use in the file."""
        return self.uses[self.names.get(value, "")] == 1

    def model(self) -> Model:
        self._refuse_unknown_kinds(self.nodes)
        self.tensors.update(self._stored(self.proto.graph, self.uses))
        for info, port in self.ports.items():
            self.scene.names.unused(port.name)
            if info in self.values:
                self.tensors[info] = Known(np.asarray(self.values[info]))
            else:
                given = self.scene.graph.add_input(port.name, port.type)
                self.tensors[info] = (
                    self._cast(given, DType.F32) if port.type.dtype in HALVES else given
                )
        for number, node in self.nodes:
            self._read(number, node)
        for info in self.proto.graph.output:
            elements = FROM_ONNX.get(info.type.tensor_type.elem_type)
            self.scene.graph.outputs[info.name] = self._output(info.name, elements)
        self.scene.drop_unused()
        return Model(
            name=model_name(self.proto, self.source),
            graph=self.scene.graph,
            preprocessing=preprocessing_of(self.proto),
            labels=labels_of(self.proto),
            weights=self.scene.weights,
        )

    def _stored(self, graph: onnx.GraphProto, wanted: Collection[str]) -> dict[str, Tensor]:
        """What a graph stores, as far as it is wanted."""
        return {
            tensor.name: self._guarded("initialiser", tensor.name, tensor)
            for tensor in graph.initializer
            if tensor.name in wanted
        }

    def _cast(self, x: Value, dtype: DType) -> Value:
        name = self.scene.names.unused("cast")
        return self.scene.graph.apply(
            BY_NAME["cast"], {"x": x}, {"dtype": str(dtype)}, name=name
        ).output

    def _output(self, name: str, elements: DType | None) -> Value:
        """An output, of the element type that the file says."""
        if name not in self.tensors:
            raise InputError(f"{self.source}: nothing computes the output {name}")
        try:
            value = self.scene.value(self.tensors[name])
            if elements in HALVES and value.type.dtype is DType.F32:
                return self._cast(value, elements)
            if elements is not None and value.type.dtype is not elements:
                raise ReadError(f"its elements are {value.type.dtype}, and declared {elements}")
            return value
        except Undecided as error:
            raise SizesNeeded(f"{self.source}: output {name}: {error}") from None
        except ReadError as error:
            raise InputError(f"{self.source}: the output {name}: {error}") from None

    def _guarded(self, what: str, name: str, tensor: onnx.TensorProto) -> Known:
        try:
            return self.scene.tensor(tensor)
        except (ReadError, *_MALFORMED) as error:
            raise InputError(f"{self.source}: {what} {name}: {error}") from None

    def _refuse_unknown_kinds(self, nodes: Sequence[tuple[int, onnx.NodeProto]]) -> None:
        """All operators that cannot be read, with the nodes that need them."""
        missing: dict[str, list[str]] = {}
        before: dict[str, str] = {}
        for number, node in nodes:
            kind = _kind(node.domain, node.op_type)
            is_read = kind in READING or kind in FOLDS or kind in VIEWS or kind in WITH_GRAPHS
            if is_read and self._is_ancient(kind):
                kind = f"{kind} of opset {self.opset} (the oldest read is {FIRST_OPSET})"
                is_read = False
            if not is_read:
                missing.setdefault(kind, []).append(node.name or f"number {number}")
                if kind in SIZED_BY_DATA:
                    known = {tensor.name for tensor in self.proto.graph.initializer}
                    wanted = [name for name in node.input if name and name not in known]
                    before.setdefault(kind, ",".join(wanted))
        if not missing:
            return
        lines = [f"{self.source} needs operators that are not supported:"]
        functions = {_kind(f.domain, f.name) for f in self.proto.functions}
        for kind, names in missing.items():
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            close = get_close_matches(kind, {*READING, *FOLDS}, n=1, cutoff=0.8)
            hint = f" (there is {close[0]})" if close else ""
            if kind in before:
                hint = f" (its size is data; what feeds it is read by --outputs {before[kind]})"
            hint = " (a function of the file's own)" if kind in functions else hint
            lines.append(f"{kind}{hint}: {shown}")
        help = _INLINING if functions.intersection(missing) else _KINDS
        if any(kind.startswith(_LAID_OUT) for kind in missing):
            help = _SAVING
        raise InputError("\n  ".join(lines) + f"\nhelp: {help}")

    def _is_ancient(self, kind: str) -> bool:
        """Whether a kind's meaning has changed between this file's opset and the first read."""
        if self.opset >= FIRST_OPSET:
            return False
        first = onnx.defs.get_schema(kind, FIRST_OPSET).since_version
        return first > self.opset

    # Nodes

    def _read(self, number: int, node: onnx.NodeProto) -> None:
        where = f"node {node.name or number} ({node.op_type})"
        inputs: list[Tensor | None] = []
        try:
            inputs = [self._input(name) for name in node.input]
            results = (
                self._of_graphs(node, inputs)
                if node.op_type in WITH_GRAPHS
                else self._results(node, inputs)
            )
        except Undecided as error:
            raise SizesNeeded(f"{self.source}: {where}: {error}", error.condition) from None
        except ReadError as error:
            refusal = SizesNeeded if _waits(inputs) else InputError
            raise refusal(f"{self.source}: {where}: {error}") from None
        except _MALFORMED as error:
            if _waits(inputs) or _is_free(inputs):
                message = f"{self.source}: {where} is not read for sizes that are free: {error}"
                raise SizesNeeded(message) from error
            raise InputError(f"{self.source}: {where} is malformed: {error}") from error
        for name, tensor in zip(node.output, results, strict=False):
            if name and tensor is not None:
                self.tensors[name] = tensor
                if isinstance(tensor, Value):
                    self._call(tensor, name)

    def _call(self, value: Value, name: str) -> None:
        """Remember a value's name in the file; what is called twice has the uses of both."""
        known = self.names.setdefault(value, name)
        if known != name:
            self.uses[known] += self.uses[name] - 1

    def _input(self, name: str) -> Tensor | None:
        if not name:
            return None
        if name not in self.tensors:
            raise ReadError(f"its input {name} comes from nowhere")
        return self.tensors[name]

    def _of_graphs(self, node: onnx.NodeProto, inputs: Sequence[Tensor | None]) -> Tensors:
        attributes = _attributes(node, self.scene.tensor)
        if node.op_type != BRANCHES:  # what a round uses is used in every round
            self.uses.update(set(used(node)))
        return read_graphs(Reading(self.scene, node, inputs, attributes, self.opset), self)

    def stored(self, graph: onnx.GraphProto) -> dict[str, Tensor]:
        """What a graph inside a node stores, as far as its outputs need it."""
        wanted = {output.name for output in graph.output}
        wanted.update(name for _, inner in needed(graph) for name in used(inner))
        return self._stored(graph, wanted)

    def outputs(self, graph: onnx.GraphProto, given: Mapping[str, Tensor]) -> Tensors:
        """Outputs of a graph inside a node. Names in it are its own, and it sees those outside."""
        outside = self.tensors
        self.tensors = ChainMap[str, Tensor](dict(given), outside)
        try:
            nodes = needed(graph)
            self._refuse_unknown_kinds(nodes)
            for number, inner in nodes:
                self._read(number, inner)
            return [self._input(output.name) for output in graph.output]
        finally:
            self.tensors = outside

    def _results(
        self, node: onnx.NodeProto, inputs: Sequence[Tensor | None]
    ) -> Sequence[Tensor | None]:
        attributes = _attributes(node, self.scene.tensor)
        reading = Reading(self.scene, node, inputs, attributes, self.opset)
        if node.op_type not in _ENDS and _kind(node.domain, node.op_type) == node.op_type:
            found = self._fold(node, inputs, attributes)
            if found is not None:
                return [found]
        read = READING.get(_kind(node.domain, node.op_type))
        if read is None:
            raise ReadError("supported among constants and shapes only")
        result = read.rule(reading)
        return [result] if isinstance(result, Value | Known) else list(result)

    def _fold(
        self, node: onnx.NodeProto, inputs: Sequence[Tensor | None], attributes: Mapping[str, Any]
    ) -> Known | None:
        """What a node comes to, all of whose inputs are known; some may be left out."""
        given = [x for x in inputs if not isinstance(x, Value)]
        if len(given) < len(inputs) or node.op_type == "Split":
            return None
        while given and given[-1] is None:
            given.pop()
        known = [x for x in given if x is not None]
        if not known:
            return None
        if len(known) < len(given):
            return fold_some(node.op_type, given, attributes)
        return fold(node.op_type, known, attributes)


def _kind(domain: str, name: str) -> str:
    return name if domain in ("", "ai.onnx") else f"{domain}.{name}"


def _waits(inputs: Sequence[Tensor | None]) -> bool:
    """Whether an operand's values are decided when sizes are bound: so is what they lead to."""
    return any(isinstance(x, Known) and x.is_symbolic for x in inputs)


def _is_free(inputs: Sequence[Tensor | None]) -> bool:
    """Whether an operand has a size that is free."""
    shapes = [shape_of(x) for x in inputs if x is not None]
    return any(isinstance(size, SymDim) for shape in shapes for size in shape)


def _attributes(
    proto: onnx.NodeProto, tensor: Callable[[onnx.TensorProto], Known]
) -> dict[str, Any]:
    """Attributes as Python values: text decoded, dense tensors as arrays that are known."""
    found: dict[str, Any] = {}
    for attribute in proto.attribute:
        value = helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif attribute.type == onnx.AttributeProto.STRINGS:
            value = [part.decode("utf-8", "replace") for part in value]
        elif isinstance(value, onnx.TensorProto):
            value = tensor(value)
        elif attribute.type == onnx.AttributeProto.FLOAT:
            value = _shortest(value)
        found[attribute.name] = value
    return found


def _shortest(value: float) -> float:
    """The shortest decimal that single precision tells from its neighbours: 1e-05."""
    return float(str(np.float32(value)))


def _known_tensor(external: ExternalData | None, proto: onnx.TensorProto) -> Known:
    """An initialiser's or constant's elements; halves widen, and integers that we have not."""
    if proto.data_location == onnx.TensorProto.EXTERNAL:
        if external is None:
            raise ReadError("its data is in another file, and there is none")
        proto = external.resolve(proto)
    array = numpy_helper.to_array(proto)
    kind = array.dtype.kind
    dtype = FROM_ONNX.get(proto.data_type)
    if dtype is not None and dtype not in HALVES:
        return Known(array, proto.name)
    if proto.data_type in NIBBLES:
        return Known(array.astype(NIBBLES[proto.data_type].numpy), proto.name)
    if proto.data_type in INTEGERS:
        if kind == "u" and array.max(initial=0) > DType.I64.highest:
            raise ReadError("integers beyond 64 bits with a sign are not supported")
        return Known(array.astype(np.int64), proto.name)
    if array.dtype.name in ("float16", "bfloat16"):
        return Known(array.astype(np.float32), proto.name)
    raise ReadError(f"elements of type {array.dtype} are not supported")


def model_name(proto: onnx.ModelProto, source: str) -> str:
    """The graph's name, or the file's, as a word."""
    plain = re.sub(r"\W+", "_", proto.graph.name or Path(source).stem).strip("_").lower()
    return plain if plain[:1].isalpha() else f"model_{plain}" if plain else "model"
