"""Statistics of groups of elements, as stages: lines are added up, then the lines of each group."""

from __future__ import annotations

from dataclasses import dataclass

from convdsl.ir.opdef import Call
from convdsl.kernel.expr import (
    Axis,
    Expr,
    IndexValue,
    Literal,
    Read,
    Reduce,
    Stage,
    TensorVar,
    positions_of,
)
from convdsl.tensor import Dim, TensorType, floor_div


@dataclass(frozen=True)
class Lines:
    """Which elements of x share statistics: `lines` are added up first, over the axes `over`, which
    come last in x; then the lines of a group, if that has several.

        layer_norm  a line for each position of the leading axes, which is a group by itself
        group_norm  a line for each channel of each image, groups of `member` channels
    """

    lines: tuple[Axis, ...]
    over: tuple[Axis, ...]
    groups: tuple[Axis, ...]
    member: Axis | None = None

    @property
    def count(self) -> Dim:
        """Elements of a group."""
        each = positions_of(self.over)
        return each if self.member is None else each * self.member.extent

    def group_of(self, line: tuple[Axis, ...]) -> tuple[Dim, ...]:
        """Where the statistics of a line are."""
        if self.member is None:
            return tuple(axis.i for axis in line)
        return line[0].i, floor_div(line[1].i, self.member.extent)


class LineStages:
    """The stages of one expression as they grow, in the dtype of x."""

    def __init__(self, call: Call, lines: Lines) -> None:
        self.lines = lines
        self.made: list[Stage] = []
        self._call = call
        self._dtype = call.type("x").dtype
        at = (*lines.lines, *lines.over)
        self._at = tuple(axis.i for axis in at)

    @property
    def count(self) -> Expr:
        size, dtype = self.lines.count, self._dtype
        return Literal(size, dtype) if isinstance(size, int) else IndexValue(size, dtype)

    def read(self, operand: str) -> Read:
        """An operand like x at one position of a line."""
        return Read(self._call.var(operand), self._at)

    def statistic(self, operand: str) -> Read:
        """An operand with one element for each group, at the group."""
        return Read(self._call.var(operand), tuple(axis.i for axis in self.lines.groups))

    def add(self, name: str, axes: tuple[Axis, ...], body: Expr) -> Read:
        """A new stage, and the read of it at its own position."""
        type = TensorType(self._dtype, tuple(axis.extent for axis in axes))
        target = TensorVar(name, type)
        self.made.append(Stage(target, axes, body))
        return Read(target, tuple(axis.i for axis in axes))

    def along(self, term: Expr) -> Expr:
        """The sum of a term over a line, for each line."""
        return Reduce("sum", self.lines.over, term) if self.lines.over else term

    def over_group(self, line: Read) -> Expr:
        """The sum over the lines of a group, for each group."""
        member, groups = self.lines.member, self.lines.groups
        if member is None:
            return line
        index = (groups[0].i, groups[1].i * member.extent + member.i)
        return Reduce("sum", (member,), Read(line.tensor, index))

    def total(self, name: str, term: Expr) -> Expr:
        """The sum of a term over a group, for each group."""
        if self.lines.member is None:
            return self.along(term)
        return self.over_group(self.add(name, self.lines.lines, self.along(term)))

    def at_lines(self, name: str, statistic: TensorVar) -> Read:
        """What a group has, for each of its lines."""
        read = Read(statistic, self.lines.group_of(self.lines.lines))
        return read if self.lines.member is None else self.add(name, self.lines.lines, read)
