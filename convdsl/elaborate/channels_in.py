"""Calls that say the channels that flow in, as those of other libraries do: `conv(64, 128, 3)`,
where the second argument is a kernel here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convdsl.elaborate.scope import Context
from convdsl.elaborate.session import Session
from convdsl.elaborate.values import Given
from convdsl.ir.opdef import OpDef, OpError

FEW = 16
"""A kernel that is as large as this, and larger than the map or even, was meant for channels."""

_BORDER = 3
"""Padding of filters as networks have them, at most; a kernel of FEW would need more."""

KNOWN = "channels that flow in are known: the first argument is those that come out"


def help_of(
    error: OpError, operands: Mapping[str, Given], arguments: Mapping[str, Given]
) -> tuple[str, ...]:
    """Help for a kernel that does not fit, and is likely a number of channels."""
    kernel = arguments.get("kernel")
    if "kernel" not in error.attributes or "channels" not in arguments or kernel is None:
        return ()
    if not _written(kernel) or kernel.value < FEW or "x" not in operands:
        return ()
    space = operands["x"].value.type.shape[2:]
    odd = kernel.value % 2 == 1
    return () if odd and not any(kernel.value > s for s in space if type(s) is int) else (KNOWN,)


def check(
    session: Session,
    context: Context,
    op: OpDef,
    inputs: Mapping[str, Given],
    arguments: Mapping[str, Given],
) -> None:
    """Warn of `conv(64, 128, 3, pad = 1)` on 64 channels: a filter of 128x128 with a stride of 3
    that hardly pads is none that networks have."""
    if not {"channels", "kernel", "pad"} <= arguments.keys() or "x" not in inputs:
        return
    channels, kernel, pad = (arguments[name] for name in ("channels", "kernel", "pad"))
    type = inputs["x"].value.type
    if type.rank < 3 or channels.value != type.shape[1] or not _written(kernel):
        return
    if kernel.value < FEW or kernel.value % 2 or not _is_small(pad.value):
        return
    assert kernel.span is not None
    size = "x".join([str(kernel.value)] * (type.rank - 2))
    text = f"a kernel of {size}, behind as many channels as flow in"
    help = (f"{KNOWN}: {op.name}({kernel.value}, ...); a kernel of this size is written {size}",)
    session.warn("W0501", text, kernel.span, frames=context.frames, help=help)


def _is_small(pad: Any) -> bool:
    return type(pad) is int and pad <= _BORDER


def _written(kernel: Given) -> bool:
    """Whether a kernel stands as one number by its position."""
    span = kernel.span
    if type(kernel.value) is not int or span is None:
        return False
    before = span.source.text[: span.start].rstrip()
    return span.text.isdecimal() and before.endswith((",", "("))
