"""Kernel calls before memory is planned: what they read and write are keys."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from convdsl.schedules.task import Pack
from convdsl.tensor import DType

Key = Hashable
"""A value of the graph, or one of the keys below, or what tells a scratch tensor."""


@dataclass(frozen=True, slots=True)
class Alias:
    """Where a key lies: inside of another one, `offset` bytes from its start. `seen`: no call
    writes it, what reads it sees what the other one holds. `pitch`: as in its layout, where it is a
    piece of every position."""

    owner: Key
    offset: int = 0
    seen: bool = False
    pitch: int = 0


@dataclass(frozen=True)
class PackedWeight:
    """A weight as a kernel wants it: its position among the packings."""

    index: int


@dataclass(frozen=True)
class PackedValue:
    """A value as a kernel wants it, packed in every call, in the type that the kernel reads."""

    source: Key
    pack: Pack
    dtype: DType


@dataclass(frozen=True)
class Part:
    """A piece of a packed value, from an element on: what one step writes of it."""

    whole: PackedValue
    first: int


@dataclass(frozen=True)
class Private:
    """A piece of each thread's own memory, from a byte on."""

    first: int
    bytes: int


@dataclass(frozen=True)
class CopiedOutput:
    """An output that no kernel can write in place."""

    slot: int


@dataclass(frozen=True)
class NewState:
    """The new value of a state that is copied when all is done."""

    name: str


@dataclass(frozen=True)
class OldState:
    """The old value of a state, saved while others are copied."""

    name: str


@dataclass(frozen=True)
class Message:
    """What is summed over ranks at once, by the node's name: operands lie one behind the other, and
    the sums over them."""

    node: str


@dataclass(frozen=True)
class Enclosed:
    """An operand of such a sum that cannot lie there itself, copied: its message and place."""

    message: Message
    operand: int


@dataclass(frozen=True)
class Call:
    """A kernel call whose arguments are still keys; it writes those of `written`, and those of
    `updated` over what it reads there. One without a kernel is a sum over ranks."""

    kernel: str
    arguments: tuple[Key, ...]
    written: frozenset[Key]
    nodes: tuple[str, ...]
    schedule: str
    updated: frozenset[Key] = field(default_factory=frozenset[Key])

    @property
    def exchanges(self) -> bool:
        """Whether it is no kernel's, but a sum over ranks."""
        return not self.kernel
