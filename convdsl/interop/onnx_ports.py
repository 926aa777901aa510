"""Inputs and outputs of an ONNX model as the file declares them, and which inputs decide shapes."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import onnx

from convdsl.diagnostics import InputError
from convdsl.interop.correspondence import READING
from convdsl.interop.element_types import FROM_ONNX, HALVES, TO_ONNX
from convdsl.interop.metadata import symbols_of
from convdsl.interop.onnx_nodes import BRANCHES, LOOP, all_nodes, tensors, used
from convdsl.interop.reading.names import Names
from convdsl.interop.reading.symbols import SymbolNames, word
from convdsl.kernel.program import Port
from convdsl.tensor import LANGUAGE_DTYPES, Dim, DType, Symbol, TensorType, symbol

_MOST_INDICES = 4096
"""Elements of an input of indices in several axes."""

_INTEGERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)

_SHAPES_ONLY = ("Shape", "Size")
"""What looks at shapes, not at elements: nothing above it decides by its values."""


_KNOWN_ONLY = {"Range": (0, 1, 2), BRANCHES: (0,), LOOP: (0, 1)}
"""Kinds that are read among constants only, what chooses a branch, and how many rounds."""


def read_ports(
    proto: onnx.ModelProto,
    source: str,
    sizes: Mapping[str, int],
    assumed: Mapping[str, Symbol],
) -> dict[str, Port]:
    """Inputs that are not stored in the file, called as there; `sizes` binds free sizes,
    `assumed` says what is known of them. Raises InputError."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    deciding = set(deciding_inputs(proto.graph))
    symbols, names = SymbolNames(proto.graph, deciding), Names()
    known = {**symbols_of(proto), **assumed}
    ports: dict[str, Port] = {}
    for info in proto.graph.input:
        if info.name in stored or info.name in ports:
            continue
        shape: list[Dim] = []
        dtype = _dtype(info, source)
        for axis, dim in enumerate(info.type.tensor_type.shape.dim):
            if dim.dim_value > 0:
                shape.append(dim.dim_value)
            elif dim.dim_value < -1:
                size = dim.dim_value
                raise InputError(f"{source}: input {info.name} has an axis of size {size}")
            elif info.name in deciding and dim.dim_value == 0 and dim.HasField("dim_value"):
                shape.append(0)  # a list of nothing
            else:  # 0 and -1 stand for free sizes
                name = symbols.name(info.name, axis)
                least = 0 if info.name in deciding else 1
                free = _free(known.get(name, Symbol(name, minimum=least)))
                shape.append(sizes.get(name, free))
        own = info.name or names.unused("")
        ports[info.name] = Port(own, TensorType(dtype, tuple(shape)))
    return ports


def _dtype(info: onnx.ValueInfoProto, source: str) -> DType:
    """The element type of an input, which must be a tensor of some rank."""
    kind = info.type.WhichOneof("value")
    if kind != "tensor_type":
        raise InputError(f"{source}: input {info.name} is a {kind}, not a tensor")
    type = info.type.tensor_type
    dtype = FROM_ONNX.get(type.elem_type)
    if dtype is None:
        name = onnx.TensorProto.DataType.Name(type.elem_type)
        known = ", ".join(map(str, LANGUAGE_DTYPES))
        raise InputError(f"{source}: input {info.name} holds {name}; there are {known}")
    if not type.HasField("shape"):
        raise InputError(f"{source}: input {info.name} has no shape")
    return dtype


def _free(known: Symbol) -> Dim:
    return symbol(known.name, known.minimum, known.divisor, known.remainder, known.maximum)


def declared_outputs(proto: onnx.ModelProto) -> dict[str, TensorType]:
    """Types of the outputs of which the file says enough; sizes without a number are free."""
    found: dict[str, TensorType] = {}
    for info in proto.graph.output:
        type = info.type.tensor_type
        dtype = FROM_ONNX.get(type.elem_type)
        if dtype is None or not type.HasField("shape"):
            continue
        shape: list[Dim] = []
        for axis, dim in enumerate(type.shape.dim):
            free = symbol(word(dim.dim_param or f"{info.name}_{axis}"))
            shape.append(dim.dim_value if dim.dim_value > 0 else free)
        found[info.name] = TensorType(dtype, tuple(shape))
    return found


def halves_of(proto: onnx.ModelProto) -> set[DType]:
    """The half precisions that a file names."""
    numbers = {
        info.type.tensor_type.elem_type for info in (*proto.graph.input, *proto.graph.output)
    }
    numbers |= {tensor.data_type for tensor in tensors(proto)}
    for node in all_nodes(proto.graph):
        numbers |= {a.i for a in node.attribute if node.op_type == "Cast" and a.name == "to"}
    return {half for half in HALVES if TO_ONNX[half] in numbers}


def deciding_inputs(graph: onnx.GraphProto) -> list[str]:
    """Graph inputs, in order, from which operands that decide shapes are computed.

    Numbers, lists and a few indices only: what depends on an image's elements has no program.
    """
    stored = {tensor.name for tensor in graph.initializer}
    lists = [info.name for info in graph.input if info.name not in stored and _is_list(info)]
    if not lists:
        return []  # as of nearly every file: no look at its nodes
    nodes = list(all_nodes(graph))
    makers = {name: node for node in nodes for name in node.output if name}
    pending = [
        node.input[index]
        for node in nodes
        for index in _deciding_operands(node.op_type)
        if index < len(node.input)
    ]
    reached: set[str] = set()
    while pending:
        name = pending.pop()
        if name in reached or name in stored:
            continue
        reached.add(name)
        maker = makers.get(name)
        if maker is not None and maker.op_type not in _SHAPES_ONLY:
            pending += used(maker)
    return [name for name in lists if name in reached]


def _deciding_operands(kind: str) -> tuple[int, ...]:
    """Inputs of a kind of node whose values have to be known while reading."""
    return READING[kind].deciding if kind in READING else _KNOWN_ONLY.get(kind, ())


def _is_list(info: onnx.ValueInfoProto) -> bool:
    """Whether an input is a number or a list, as sizes and axes are, or a few indices."""
    type = info.type.tensor_type
    sizes = [dim.dim_value for dim in type.shape.dim]
    is_small = type.elem_type in _INTEGERS and 0 < prod(sizes) <= _MOST_INDICES
    return type.HasField("shape") and (len(sizes) <= 1 or is_small)
