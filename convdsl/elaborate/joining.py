"""What makes two tensors fit that are added or concatenated, and nearly do: a projection, a stride,
an enlargement, a crop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convdsl.elaborate.values import Given
from convdsl.ir.graph import OpNode, Value
from convdsl.ir.opdef import OpDef
from convdsl.ops.elementwise import SIGNS
from convdsl.tensor import Dim, TensorType, ceil_div, format_shape

_JOINS = (*SIGNS, "concat", "min", "max")
_NEAR = 8
"""Pixels that two maps differ in where a border was lost, and no stride."""


def advice(op: OpDef, operands: Mapping[str, Given]) -> tuple[str, ...]:
    """How to make the first two that do not fit fit."""
    given = list(operands.values())
    if op.name not in _JOINS or len(given) < 2:
        return ()
    joins = op.name == "concat"
    first = given[0]
    other = next((g for g in given[1:] if not _fit(first, g, joins)), given[1])
    return _Pair(first, other, joins).advice()


def _fit(a: Given, b: Given, joins_channels: bool) -> bool:
    x, y = _type(a).shape, _type(b).shape
    return len(x) == len(y) and all(
        p == q or (joins_channels and axis == 1) or (not joins_channels and 1 in (p, q))
        for axis, (p, q) in enumerate(zip(x, y, strict=True))
    )


def _type(given: Given) -> TensorType:
    return given.value.type


class _Pair:
    """Two operands; the one that is brought to the other's shape is the skip: what the other was
    made from, else the second."""

    def __init__(self, first: Given, second: Given, joins_channels: bool) -> None:
        self.operands = (first, second)
        self.joins_channels = joins_channels
        self.names = tuple(
            f"`{given.span.text}`" if given.span and given.span.text.isidentifier() else word
            for given, word in ((first, "the first"), (second, "the second"))
        )

    def advice(self) -> tuple[str, ...]:
        a, b = (_type(given) for given in self.operands)
        if a.rank != b.rank:
            return self._ranks(a, b)
        if a.rank < 3:
            return ()
        if all(_covers(x, y) for x, y in zip(a.shape[2:], b.shape[2:], strict=True)):
            return self._channels(a, b)
        return self._space(a, b)

    def _ranks(self, a: TensorType, b: TensorType) -> tuple[str, ...]:
        """One has fewer axes: those that it has not come behind its own, where these are the
        other's; a flat tensor of other channels is brought to as many."""
        flat, wide = (0, 1) if a.rank < b.rank else (1, 0)
        short, long = (a, b) if flat == 0 else (b, a)
        if self.joins_channels and (short.rank != 2 or long.rank < 3):
            return ()
        if self.joins_channels:
            return (f"flatten {self.names[wide]}, or give {self.names[flat]} axes of space",)
        fits = (
            first
            for first in range(long.rank - short.rank)
            if all(map(_covers, short.shape, long.shape[first:]))
            and any(extent != 1 for extent in short.shape)
        )
        first = next(fits, None)
        maker: Any = self.operands[flat].value.node
        table = isinstance(maker, OpNode) and maker.op.name == "parameter"
        if first is not None:
            more = long.rank - first - short.rank
            if table:
                shape = format_shape((*short.shape, *(1,) * more))
                return (
                    f"axes are paired from the last: give {self.names[flat]} the shape {shape}",
                )
            axes = list(range(short.rank, short.rank + more))
            what = "axes of space" if axes[0] >= 2 else "the axes that it lacks"
            return (f"give {self.names[flat]} {what}: -> unsqueeze({axes})",)
        known = all(isinstance(type.shape[1], int) for type in (short, long) if type.rank > 1)
        if table or short.rank != 2 or not known or short.shape[0] != long.shape[0]:
            return ()
        linear, axes = f"linear({long.shape[1]})", list(range(2, long.rank))
        return (f"give {self.names[flat]} axes of space: -> {linear} -> unsqueeze({axes})",)

    def _channels(self, a: TensorType, b: TensorType) -> tuple[str, ...]:
        """Equal in space, or repeated there."""
        if self.joins_channels or not all(isinstance(t.shape[1], int) for t in (a, b)):
            return ()
        if a.shape[1] == b.shape[1]:
            return ()
        skip = self._skip()
        single = [all(x == 1 for x in t.shape[2:]) for t in (a, b)]
        if single[0] != single[1]:
            skip = single.index(True)  # a gate takes the width of what it weighs
        return (f"project {self.names[skip]} with {_conv((a, b)[1 - skip])}",)

    def _space(self, a: TensorType, b: TensorType) -> tuple[str, ...]:
        large = _larger(a.shape[2:], b.shape[2:])
        if large is None:
            return (self._resized(1),)
        big, small = (a, b) if large == 0 else (b, a)
        strides = [_stride(x, y) for x, y in zip(big.shape[2:], small.shape[2:], strict=True)]
        if all(stride is not None for stride in strides):
            return self._strides(large, big, small, [stride or 1 for stride in strides])
        return self._borders(large, big, small)

    def _strides(
        self, large: int, big: TensorType, small: TensorType, strides: list[int]
    ) -> tuple[str, ...]:
        step = _sizes(strides)
        back = [x // y if isinstance(x, int) and isinstance(y, int) else None
                for x, y in zip(big.shape[2:], small.shape[2:], strict=True)]  # fmt: skip
        exact = back == strides
        up = (
            f"resize({step})"
            if exact and "x" not in step
            else (f"resize(size = {self._space_of(large)})")
        )
        if self.joins_channels:
            down = f"maxpool({step})" if exact else f"{_conv(small, step)}"
            enlarged = f"enlarge {self.names[1 - large]} with {up}"
            return (f"{enlarged}, or shrink {self.names[large]} with {down}",)
        if small.shape[1] != big.shape[1]:
            up = f"{_conv(big)} -> {up}"
        down = f"project {self.names[large]} with {_conv(small, step)}"
        return (f"{down}, or enlarge {self.names[1 - large]} with {up}",)

    def _borders(self, large: int, big: TensorType, small: TensorType) -> tuple[str, ...]:
        """A border was lost, or won."""
        apart = [x - y for x, y in zip(big.shape[2:], small.shape[2:], strict=True)]
        missing = [d for d in apart if isinstance(d, int) and d <= _NEAR]
        if len(missing) < len(apart):
            return (self._resized(1 - large),)
        made = _kept_by(self.operands[1 - large].value)
        made = made or _cut_by(self.operands[large].value, missing)
        axes = list(range(2, big.rank))
        if all(m % 2 == 0 for m in missing) and len({*missing}) == 1:
            part = f"slice({axes}, {missing[0] // 2}, {-missing[0] // 2})"
        else:
            part = f"slice({axes}, stop = {self._space_of(1 - large)})"
        crop = f"crop {self.names[large]} with {part}"
        return (f"{made}; or {crop}" if made else crop,)

    def _resized(self, operand: int) -> str:
        size = self._space_of(1 - operand)
        return f"bring {self.names[operand]} to the other's size: resize(size = {size})"

    def _space_of(self, operand: int) -> str:
        """`x.space`, or the sizes."""
        name = self.names[operand].strip("`")
        type = _type(self.operands[operand])
        return f"{name}.space" if name.isidentifier() else format_shape(type.shape[2:])

    def _skip(self) -> int:
        a, b = (given.value for given in self.operands)
        return 0 if _makes(a, b) else 1


def _covers(a: Dim, b: Dim) -> bool:
    return a == b or 1 in (a, b)


def _larger(a: Sequence[Dim], b: Sequence[Dim]) -> int | None:
    """0 or 1: which of two maps is at least as large along every axis, if one is known to be."""
    pairs = list(zip(a, b, strict=True))
    for which in (0, 1):
        if all(_at_least(p[which], p[1 - which]) for p in pairs):
            return which
    return None


def _at_least(a: Dim, b: Dim) -> bool:
    apart = a - b
    return apart >= 0 if isinstance(apart, int) else _stride(a, b) is not None


def _stride(large: Dim, small: Dim) -> int | None:
    """The stride that makes `small` of `large` with a filter of one pixel."""
    if large == small:
        return 1
    if isinstance(large, int) and isinstance(small, int):
        if small < 1 or large < 2 * small - 1 or large - small < 2:
            return None
        stride = -(-large // small)
        return stride if -(-large // stride) == small else None
    return next((s for s in (2, 4, 8, 16, 32) if ceil_div(large, s) == small), None)


def _sizes(values: Sequence[int]) -> str:
    return str(values[0]) if len({*values}) == 1 else "x".join(map(str, values))


def _conv(type: TensorType, stride: str = "1") -> str:
    """A convolution of single pixels to the channels of another."""
    size = "x".join("1" * (type.rank - 2))
    step = "" if stride == "1" else f", stride = {stride}"
    return f"conv({type.shape[1]}, {size}{step})"


def _maker(value: Value) -> OpNode | None:
    """The operator that gave a map its size: before what works pixel by pixel."""
    node: Any = value.node
    for _ in range(8):
        if not isinstance(node, OpNode) or not node.data_inputs:
            return None
        source = node.data_inputs[0]
        if source.type.shape[2:] != node.outputs[0].type.shape[2:]:
            return node
        node = source.node
    return None


def _kept_by(value: Value) -> str | None:
    """`pad = half` at the convolution that lost a border."""
    node = _maker(value)
    if node is None or node.op.name != "conv" or {*_flat(node.attributes["stride"])} != {1}:
        return None
    kernel, dilation = _flat(node.attributes["kernel"]), _flat(node.attributes["dilation"])
    if all(k % 2 for k in kernel):
        return f"keep the size: `pad = half` at `{node.name}`"
    if len(kernel) > 1:
        return f"keep the size: `pad = same` at `{node.name}`"
    before = f"[[{dilation[0] * (kernel[0] - 1)}, 0]]"
    return f"keep the size: `pad = {before}` at `{node.name}`, which pads before alone, or `same`"


def _cut_by(value: Value, missing: Sequence[int]) -> str | None:
    """`pad = 1, output_pad = 1` at the transposed convolution that made too much."""
    node = _maker(value)
    if node is None or node.op.name != "conv_transpose" or len({*missing}) != 1:
        return None
    attributes = node.attributes
    pads = {*_flat(attributes["pad"])}
    extra = {*_flat(attributes["output_pad"])}
    if len(pads) != 1 or len(extra) != 1:
        return None
    pad = pads.pop() + (missing[0] + 1) // 2
    output_pad = extra.pop() + missing[0] % 2
    also = f", output_pad = {output_pad}" if output_pad else ""
    return f"`pad = {pad}{also}` at `{node.name}`"


def _flat(value: Any) -> list[Any]:
    if not isinstance(value, tuple):
        return [value]
    return [item for part in value for item in _flat(part)]  # pyright: ignore[reportUnknownVariableType]


def _makes(source: Value, value: Value) -> bool:
    """Whether a tensor is made from another."""
    seen = {value.node.id}
    waiting = [value.node]
    while waiting:
        node = waiting.pop()
        if node is source.node:
            return True
        if isinstance(node, OpNode):
            for operand in node.inputs.values():
                if operand.node.id not in seen and operand.node.id >= source.node.id:
                    seen.add(operand.node.id)
                    waiting.append(operand.node)
    return False
