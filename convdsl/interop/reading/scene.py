"""The graph as it is read: names of layers, weights that become states."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from convdsl.interop.reading.names import LayerNames, Names
from convdsl.interop.reading.tensors import (
    Array,
    Known,
    ReadError,
    Tensor,
    Undecided,
    dtype_of,
    shape_of,
)
from convdsl.ir.graph import Graph, InputNode, OpNode, StateNode, Value
from convdsl.ir.opdef import OpDef, OpError, Role, StateSpec, Unproven, pointwise
from convdsl.ops import BY_NAME
from convdsl.tensor import DType, TensorType

if TYPE_CHECKING:
    import onnx

LONGEST_CONSTANT = 64
"""Elements of a constant that text would say; longer ones are in weight files."""

_Memory: TypeAlias = "tuple[int, str, tuple[int, ...], tuple[int, ...]]"


def _memory(tensor: Known) -> _Memory:
    """Where elements lie and how they are seen: two views by the same Identity, Reshape or
    transposition of one tensor are one."""
    array = tensor.array
    return (array.ctypes.data, array.dtype.str, array.shape, array.strides)


class Scene:
    """The graph, the arrays of its weights by key, and which names are taken."""

    def __init__(
        self,
        tensor: Callable[[onnx.TensorProto], Known],
        is_spent: Callable[[Value], bool],
        layers: LayerNames,
    ) -> None:
        """`tensor` reads stored tensors; `is_spent` knows what is used once in the file."""
        self.layers = layers
        self.tensor = tensor
        self.is_spent = is_spent
        self.graph = Graph()
        self.weights: dict[str, Array] = {}
        self.names = Names()
        self._states: dict[_Memory, Value] = {}
        self._alone: dict[_Memory, Value] = {}
        self._kept: list[Known] = []  # keeps memory from being used again

    def unknown(self, value: Value, what: str) -> ReadError:
        """The objection to a value that has to be known while reading."""
        message = f"{what} has to be a constant or follow from shapes, not {value.type}"
        return Undecided(message) if follows_from_sizes(value) else ReadError(message)

    def value(self, tensor: Tensor) -> Value:
        """A graph value; a number that is known becomes a constant, an array a parameter."""
        if isinstance(tensor, Value):
            return tensor
        if _memory(tensor) not in self._alone:
            is_odd = dtype_of(tensor) is DType.BOOL or not _has_words(tensor)  # `where(true, x, y)`
            if (shape_of(tensor) and tensor.array.size) or is_odd:
                made = self._parameter(tensor)
            else:
                made = self._add(tensor, self.names.unused("constant"), Role.CONSTANT)
            self._alone[_memory(tensor)] = made
            self._kept.append(tensor)
        return self._alone[_memory(tensor)]

    def _parameter(self, tensor: Known) -> Value:
        """A weight by itself; what nobody named and is short is a constant."""
        dtype = dtype_of(tensor)
        bare = bool(tensor.name) and not tensor.name.endswith(".weight")
        name = self.names.unused(tensor.name.removesuffix(".weight") or "constant")
        is_short = tensor.array.size <= LONGEST_CONSTANT and _has_words(tensor)
        role = Role.CONSTANT if is_short else Role.BUFFER
        role = Role.PARAMETER if tensor.name and dtype.is_float else role
        attributes = {"shape": shape_of(tensor), "dtype": str(dtype), "bare": bare}
        (spec,) = BY_NAME["parameter"].state(BY_NAME["parameter"].call({}, attributes))
        weight = self._add(tensor, name if bare else f"{name}.weight", role, spec.init)
        return self.graph.apply(
            BY_NAME["parameter"], {"weight": weight}, attributes, name=name
        ).output

    def _add(self, tensor: Known, key: str, role: Role, init: str = "zeros") -> Value:
        if tensor.is_symbolic:
            raise Undecided("a free size becomes data; bind it when loading")
        type = TensorType(dtype_of(tensor), shape_of(tensor))
        array = np.asarray(tensor.array, type.dtype.numpy, order="C")
        value = self.graph.add_state(
            key, type, role, init, array if role is Role.CONSTANT else None
        )
        if role is not Role.CONSTANT:
            self.weights[key] = array
        return value

    def _own(self, tensor: Tensor, key: str, spec: StateSpec) -> Value:
        """A layer's weight; the same memory, seen alike, in two layers is one weight."""
        if isinstance(tensor, Value):
            return tensor
        if _memory(tensor) not in self._states:
            state = self._add(tensor, self.names.unused(key), spec.role, spec.init)
            self._states[_memory(tensor)] = state
            self._kept.append(tensor)
        return self._states[_memory(tensor)]

    def apply(
        self,
        proto: onnx.NodeProto,
        op_name: str,
        inputs: Mapping[str, Tensor],
        attributes: Mapping[str, Any],
    ) -> list[Value]:
        """Put an operator into the graph. Raises ReadError where its rules object."""
        op = BY_NAME[op_name]
        inputs = _plain_numbers(inputs) if _broadcasts(op) else inputs
        roles = {operand.name: operand.role for operand in op.operands}
        owned = {k: t for k, t in inputs.items() if roles.get(k, Role.DATA) is not Role.DATA}
        name = self.names.unused(self.layers.of(proto, owned, op_name))
        types = {key: TensorType(dtype_of(t), shape_of(t)) for key, t in inputs.items()}
        try:
            call = op.call(types, attributes)
            specs = {spec.name: spec for spec in op.state(call)}
            for key in owned:
                if key in specs and types[key] != specs[key].type:
                    raise ReadError(f"{key} is {types[key]}, not {specs[key].type}")
            values = {
                key: self._own(x, f"{name}.{key}", specs[key]) if key in owned else self.value(x)
                for key, x in self._with_a_tensor(inputs, owned).items()
            }
            node = self.graph.apply(op, values, attributes, name=name)
        except Unproven as error:
            raise Undecided(error.message, error.condition) from error
        except OpError as error:
            told = (_of_files(help) for help in error.help)
            raise ReadError("; ".join([error.message, *told])) from error
        return list(node.outputs)

    def _with_a_tensor(
        self, inputs: Mapping[str, Tensor], owned: Collection[str]
    ) -> Mapping[str, Tensor]:
        """The inputs, the first of numbers alone as a tensor: text says a number beside tensors."""
        data = [key for key in inputs if key not in owned]
        for key in data:
            x = inputs[key]
            if isinstance(x, Value) or (shape_of(x) and x.array.size):
                return inputs
        if not data:
            return inputs
        first = inputs[data[0]]
        assert isinstance(first, Known)
        return {**inputs, data[0]: first if first.array.ndim else self._parameter(first)}

    def replace_bias(self, node: OpNode, bias: Known) -> Value:
        """A linear layer without bias, and the sum behind it, as one."""
        inputs = dict(node.inputs)
        inputs["bias"] = self._add(bias, self.names.unused(f"{node.name}.bias"), Role.PARAMETER)
        self.graph.remove(node)
        attributes = {**node.attributes, "bias": True}
        return self.graph.apply(node.op, inputs, attributes, name=node.name).output

    def drop_unused(self) -> None:
        """Remove what no output needs (weights too)."""
        for node in reversed(self.graph.nodes()):
            if not isinstance(node, OpNode | StateNode):
                continue
            if not self.graph.is_used(node):
                self.graph.remove(node)
                self.weights.pop(node.name, None)


def _of_files(help: str) -> str:
    """A help for text, in ONNX's terms."""
    is_cast = help.startswith("make it so before: cast(")
    return "in the file a Cast to FLOAT before it would make it so" if is_cast else help


def _has_words(tensor: Known) -> bool:
    """Whether text can say every element: of 64 bits it has not the least."""
    whole = dtype_of(tensor) is DType.I64 and not tensor.is_symbolic
    return not whole or bool(np.all(tensor.array > DType.I64.lowest))


def follows_from_sizes(value: Value) -> bool:
    """Whether free sizes, and no elements of an input, decide a value: bound, it is known."""
    pending, seen, is_open = [value], set[Value](), False
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        is_open = is_open or bool(value.type.symbols())
        if isinstance(value.node, InputNode):
            return False
        if isinstance(value.node, OpNode):
            pending += value.node.inputs.values()
    return is_open


def _broadcasts(op: OpDef) -> bool:
    """Whether several tensors meet position by position: an array of one number is that number."""
    return len(op.data_operands) > 1 and op.window is pointwise


def _plain_numbers(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A single number in an array, where it broadcasts as the number itself would."""
    ranks = {key: len(shape_of(x)) for key, x in inputs.items()}
    found = dict(inputs)
    for key, x in inputs.items():
        others = (rank for other, rank in ranks.items() if other != key)
        if isinstance(x, Known) and x.array.size == 1 and ranks[key] <= max(others, default=0):
            found[key] = Known(x.array.reshape(()), x.name)
            ranks[key] = 0
    return found
