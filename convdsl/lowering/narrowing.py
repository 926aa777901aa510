"""What lies in memory as those who read it take it: rounded once, where it is made.

Tensor units multiply numbers of fewer bits. A value that nobody reads but as a factor of such
products is the same to them whether each of them rounds it again or whoever makes it does so once.
Kept in the narrower type it takes less memory and less time on the way, and no instruction in the
loops of products. Operators that only choose or move elements hand that on: the largest of rounded
numbers is the largest one, rounded. Whoever only asks on which side of zero a value is (the mask of
a ReLU's gradient) is told the same of a rounded one. And the sum of a factor over the depths of its
product (a bias's gradient beside that of filters) is one more column of this, whose other factor is
one: it takes the factor as the other columns do.

What no operator makes and changes from call to call, the weights and the image of a step of
training, is rounded as it is packed in the call, so that the other factor may lie in fewer bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.ir.rules import kernel_of
from convdsl.ir.timing import Timing
from convdsl.kernel.expr import (
    Axis,
    Binary,
    Compare,
    Expr,
    IndexCompare,
    Literal,
    Read,
    Reduce,
    Select,
    reads,
    walk,
)
from convdsl.lowering.layouts import Layouts
from convdsl.schedules.contraction import find_contraction
from convdsl.schedules.emission import extent_of
from convdsl.schedules.machine import Machine
from convdsl.tensor import DType, TensorType

_CHOOSES = ("max", "min")

_KEEP_SIGNS = (DType.TF32, DType.BF16)
"""What has the range of f32: nothing but zero becomes zero."""

_READ_AGAIN = 128
"""Products of an element from which on it is read more than once: a block computes those of so many
rows from one copy. Of fewer, to round it ahead would be to read it, write it and read it again."""


@dataclass(frozen=True)
class Narrowed:
    """values: what they are stored as, where that is not the type that they are of in the graph.
    weights: of operators' operands that no operator makes in the call, what these are packed as,
        when weights are bound or in the call, where it takes less room: rounding alone is up to
        whoever packs them.
    """

    values: Mapping[Value, DType] = field(default_factory=dict[Value, DType])
    weights: Mapping[tuple[OpNode, str], DType] = field(
        default_factory=dict[tuple[OpNode, str], DType]
    )

    def type(self, value: Value) -> TensorType:
        """As which a value is stored."""
        return replace(value.type, dtype=self.values.get(value, value.type.dtype))

    def operand(self, node: OpNode, name: str) -> TensorType:
        """As which an operator's operand is read from memory."""
        value = node.inputs[name]
        dtype = self.weights.get((node, name)) or self.values.get(value, value.type.dtype)
        return replace(value.type, dtype=dtype)


WHOLE = Narrowed()
"""Everything is stored in its own type."""


def find_narrowed(graph: Graph, machine: Machine, layouts: Layouts, timing: Timing) -> Narrowed:
    """The most that can be stored so: of what seems to fit, what does not goes out until all does.

    What leaves the program or is kept by it stays as the model says, and so does what would lie
    otherwise in the narrower type: it could share no kernel with what it is made from.
    """
    factors = {
        node: found
        for node in graph.op_nodes()
        if not timing.is_bound(node) and (found := _factors(node, machine))
    }
    if not factors:
        return WHOLE
    search = _Search(graph, timing, layouts, factors)
    return search.found()


@dataclass
class _Search:
    graph: Graph
    timing: Timing
    layouts: Layouts
    factors: Mapping[OpNode, Mapping[str, DType]]
    signs: dict[OpNode, frozenset[str]] = field(default_factory=dict[OpNode, frozenset[str]])

    def found(self) -> Narrowed:
        values = dict(self._candidates())
        while True:
            wrong = [value for value in values if not self._fits(value, values)]
            if not wrong:
                break
            for value in wrong:
                del values[value]
        weights = {
            (node, name): dtype
            for node, operands in self.factors.items()
            if any(value in values for value in node.inputs.values())
            for name, dtype in operands.items()
            if dtype.bytes < dtype.computed.bytes and self._is_packed(node, name)
        }
        return Narrowed(values, weights)

    def _candidates(self) -> Iterator[tuple[Value, DType]]:
        """Values with what some reader would have them rounded to; whoever hands something on comes
        after its readers."""
        known: dict[Value, DType] = {}
        for node in reversed(self.graph.op_nodes()):
            for value in node.outputs:
                wanted = {
                    self._wanted(value, user, name, known) for user, name in self._users(value)
                }
                dtype = next(iter(wanted), None)
                if len(wanted) == 1 and dtype is not None and self._may(value, dtype):
                    known[value] = dtype
        yield from known.items()

    def _may(self, value: Value, dtype: DType) -> bool:
        node = value.node
        made = isinstance(node, OpNode) and not self.timing.is_bound(node) and not node.op.exchanges
        own = made and value.type.dtype is dtype.computed and not self.graph.is_result(value)
        asked = len(self._users(value)) < len(list(self.graph.users(value)))
        same = dtype in _KEEP_SIGNS or not asked
        return own and same and self.layouts.lies_alike(value, dtype)

    def _users(self, value: Value) -> list[tuple[OpNode, str]]:
        """Who could tell whether a value is rounded."""
        users = self.graph.users(value)
        return [(user, name) for user, name in users if name not in self._signs(user)]

    def _signs(self, user: OpNode) -> frozenset[str]:
        if user not in self.signs:
            self.signs[user] = _only_compared_with_zero(user)
        return self.signs[user]

    def _wanted(
        self, value: Value, user: OpNode, name: str, known: Mapping[Value, DType]
    ) -> DType | None:
        """What a reader takes an operand as, if it takes it rounded."""
        if user in self.factors:
            return self.factors[user].get(name)
        summed = _summed(user, name)
        if summed is not None:
            return self._column(value, summed)
        return known.get(user.outputs[0]) if _hands_on(user) else None

    def _column(self, value: Value, summed: frozenset[int]) -> DType | None:
        """What products take a value as that they sum over the same axes."""
        for user, name in self._users(value):
            dtype = self.factors.get(user, {}).get(name)
            if dtype is not None and summed in _depths(user, name):
                return dtype
        return None

    def _fits(self, value: Value, values: Mapping[Value, DType]) -> bool:
        """Whether all that read a value still take it rounded, and what it is put together from is
        stored alike."""
        dtype = values[value]
        node = value.node
        if isinstance(node, OpNode) and _puts_together(node):
            parts = (v for v in node.inputs.values() if not self.timing.is_bound(v.node))
            if any(values.get(part) is not dtype for part in parts):
                return False
        return all(
            self._wanted(value, user, name, values) is dtype
            and (user not in self.factors or self._meets(user, dtype, values))
            for user, name in self._users(value)
        )

    def _meets(self, user: OpNode, dtype: DType, values: Mapping[Value, DType]) -> bool:
        """Whether the factors of a product are all stored so, or all take the same room."""
        if dtype.bytes == dtype.computed.bytes:
            return True
        names = self.factors[user]
        return all(self._is_packed(user, name) or user.inputs[name] in values for name in names)

    def _is_packed(self, user: OpNode, name: str) -> bool:
        """Whether a factor is rounded as it is packed: when weights are bound; or in the call,
        where no operator makes it and it is read often enough."""
        value = user.inputs[name]
        if self.timing.is_bound(value.node):
            return True
        given = not isinstance(value.node, OpNode) and value.type.dtype is DType.F32
        return given and _uses(user, name) >= _READ_AGAIN


def _factors(node: OpNode, machine: Machine) -> dict[str, DType]:
    """The operands that an operator reads as rounded factors, and nowhere else."""
    found: dict[str, DType] = {}
    apart: set[str] = set()
    for stage in kernel_of(node.call).stages:
        rounded = machine.rounded(stage)
        for read in reads(stage.body):
            name = read.tensor.name
            dtype = rounded.get(name)
            if dtype is None or found.setdefault(name, dtype) is not dtype:
                apart.add(name)
    both = {name: dtype for name, dtype in found.items() if name in node.inputs}
    return {} if apart & both.keys() or len(both) < len(found) else both


def _summed(node: OpNode, name: str) -> frozenset[int] | None:
    """The axes of an operand that an operator adds up, if that is all it does."""
    stages = kernel_of(node.call).stages
    match stages[0].body:
        case Reduce("sum", axes, Read() as read) if len(stages) == 1 and read.tensor.name == name:
            return _along(read, axes)
        case _:
            return None


def _depths(node: OpNode, name: str) -> set[frozenset[int] | None]:
    """The axes of a factor that products of an operator are summed over."""
    products = filter(None, map(find_contraction, kernel_of(node.call).stages))
    return {
        _along(read, found.k)
        for found in products
        for read in (found.a, found.b)
        if read.tensor.name == name
    }


def _uses(node: OpNode, name: str) -> int:
    """Products of an element of a factor, on average."""
    found = filter(None, map(find_contraction, kernel_of(node.call).stages))
    return sum(
        prod(extent_of(axis) for axis in (*each.batch, *each.m, *each.n, *each.k))
        // prod(node.inputs[name].type.sizes)
        for each in found
        if name in (each.a.tensor.name, each.b.tensor.name)
    )


def _along(read: Read, axes: Sequence[Axis]) -> frozenset[int] | None:
    """The axes of a tensor that axes of a loop run along, each as it is, of more than one
    position."""
    sizes = read.tensor.type.sizes
    moved = {axis.i: axis.extent for axis in axes if axis.extent != 1}
    along = frozenset(at for at, index in enumerate(read.index) if index in moved)
    whole = all(sizes[at] == moved[read.index[at]] for at in along)
    return along if whole and len(along) == len(moved) else None


def _only_compared_with_zero(node: OpNode) -> frozenset[str]:
    """The operands of which an operator reads on which side of zero they are, and nothing else."""
    all_reads: list[Read] = []
    compared: list[Read] = []
    for stage in kernel_of(node.call).stages:
        all_reads += reads(stage.body)
        for e in walk(stage.body):
            if isinstance(e, Compare):
                sides = ((e.a, e.b), (e.b, e.a))
                compared += [a for a, b in sides if isinstance(a, Read) and _is_zero(b)]
    names = {read.tensor.name for read in compared}
    return frozenset(
        name
        for name in names & node.inputs.keys()
        if sum(read.tensor.name == name for read in all_reads)
        == sum(read.tensor.name == name for read in compared)
    )


def _is_zero(e: Expr) -> bool:
    return isinstance(e, Literal) and e.value == 0


def _hands_on(node: OpNode) -> bool:
    """Whether an operator's result is some element of its only floating operand, wherever it finds
    it, or of several; of rounded ones the rounded one."""
    stages = kernel_of(node.call).stages
    return len(node.outputs) == 1 and all(_chooses(e) for stage in stages for e in walk(stage.body))


def _chooses(e: object) -> bool:
    match e:
        case Read() | Select() | IndexCompare():
            return True
        case Literal():
            return e.value in (0, e.type.lowest, e.type.highest)
        case Reduce() | Binary():
            return e.op in _CHOOSES
        case _:
            return False


def _puts_together(node: OpNode) -> bool:
    """Whether parts may be written where the whole lies (`slices`)."""
    return len(node.inputs) > 1 and _hands_on(node)
