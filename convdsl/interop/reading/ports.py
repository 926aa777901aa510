"""Inputs and outputs of an ONNX model as the file declares them."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from convdsl.diagnostics import InputError
from convdsl.interop.element_types import FROM_ONNX
from convdsl.interop.metadata import symbols_of
from convdsl.interop.reading.names import Names
from convdsl.interop.reading.shape_operands import deciding_inputs
from convdsl.interop.reading.symbols import SymbolNames, word
from convdsl.kernel.program import Port
from convdsl.tensor import Dim, DType, Symbol, TensorType, symbol


def read_ports(
    proto: onnx.ModelProto,
    source: str,
    sizes: Mapping[str, int],
    assumed: Mapping[str, Symbol],
) -> dict[str, Port]:
    """Inputs that are not stored in the file, by their names there; `sizes` binds free sizes,
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
        ports[info.name] = Port(names.unused(info.name), TensorType(dtype, tuple(shape)))
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
        known = ", ".join(map(str, DType))
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
