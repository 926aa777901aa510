"""What is said of a model's free sizes: by shapes, the batch, values by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias, cast

from convdsl.diagnostics import InputError, expect
from convdsl.ir.model import Model
from convdsl.kernel.program import Port
from convdsl.kernel.signature import (
    Binding,
    batch_symbol,
    bind_shapes,
    check_symbol,
    input_symbols,
    whole,
)
from convdsl.spelling import those
from convdsl.tensor import Dim, TensorType

Shape: TypeAlias = "Sequence[int]"
Shapes: TypeAlias = "Shape | Mapping[str, Shape] | None"


def bind(
    model: Model,
    inputs: Shapes = None,
    batch: int | None = None,
    symbols: Mapping[str, int] | None = None,
) -> Binding:
    """What is said of the free symbols: by input shapes, the batch and values by name.

    A shape may leave out the batch (`3x224x224`), which then is `batch`, by default 1.
    Symbols that nothing is said of stay free. Raises InputError.
    """
    ports = ports_of(model)
    free = input_symbols(ports)
    binding: Binding = {}
    if inputs is not None:
        shapes = _complete_shapes(ports, inputs, batch)
        given = [port for port in ports if port.name in shapes]
        try:
            binding |= bind_shapes(given, shapes)
        except InputError as error:
            raise InputError(f"{error}{_how_to_resize(model, given, shapes)}") from None
    if batch is not None:
        batch = whole("the batch", batch)
    samples = batch_symbol(free)
    if batch is not None and samples is None:
        open = ", ".join(free)
        fixed = f"no size is called one ({open})" if free else "the model fixes its sizes"
        raise InputError(f"a batch of {batch} cannot be chosen: {fixed}")
    if batch is not None and samples is not None and binding.setdefault(samples, batch) != batch:
        raise InputError(f"the batch is {batch}, but the input shapes say {binding[samples]}")
    expect("symbols", symbols or {}, Mapping)
    for name, value in (symbols or {}).items():
        if name not in free:
            raise InputError(f"no free size is called {name}; {those(free)}")
        if binding.setdefault(name, value) != value:
            raise InputError(f"{name} = {value}, but the input shapes say {binding[name]}")
    for name, value in binding.items():
        check_symbol(free[name], value)
    return binding


def bound(types: Mapping[str, TensorType], inputs: Shapes) -> Binding:
    """What shapes say of the symbols of these inputs, of which some may be left out. Raises
    InputError."""
    ports = tuple(Port(name, type) for name, type in types.items())
    if not ports or inputs is None:
        return {}
    shapes = _complete_shapes(ports, inputs, None)
    return bind_shapes([port for port in ports if port.name in shapes], shapes)


def _how_to_resize(
    model: Model, ports: Sequence[Port], shapes: Mapping[str, tuple[int, ...]]
) -> str:
    """Help for a shape that the text fixes otherwise: the parameters that have its sizes, or how to
    leave them open."""
    for port in ports:
        wanted = dict(zip(port.type.shape, shapes[port.name], strict=False))
        fixed = {old: new for old, new in wanted.items() if isinstance(old, int) and old != new}
        if len(shapes[port.name]) != port.type.rank or not fixed:
            continue
        settings = [
            f"{name}={fixed[value]}"
            for name, value in model.parameters.items()
            if type(value) is int and value in fixed and _sizes_name(model, port.name, name)
        ]
        if settings:
            return f"\nhelp: its sizes are parameters: --set {' --set '.join(settings)}"
        pairs = list(zip(port.type.shape, shapes[port.name], strict=True))
        moving = [isinstance(old, int) and old != new for old, new in pairs]
        first = ""
        if moving[1:2] == [True]:
            first, moving[1] = _channels(*pairs[1], shapes[port.name]), False
            if not any(moving) or shapes[port.name][-1] == pairs[1][0]:
                return first
        names = iter(("H", "W", "D") if port.type.rank > 3 else ("L",))
        letters = ["N" if axis == 0 else next(names, "S") for axis, at in enumerate(moving) if at]
        left = iter(letters)
        sizes = [next(left) if at else str(old) for at, (old, _) in zip(moving, pairs, strict=True)]
        declared = f"input {port.name}: {port.type.dtype}[{', '.join(sizes)}]"
        return f"{first}\nhelp: its text fixes its sizes; to leave them open, write `{declared}`"
    return ""


def _channels(wanted: Dim, given: int, shape: Sequence[int]) -> str:
    """Help for another number of channels, which no text leaves open."""
    if len(shape) > 2 and shape[-1] == wanted:
        first = "x".join(map(str, (shape[-1], *shape[1:-1])))
        return f"\nhelp: channels come first: {first}"
    what = "channels" if len(shape) > 2 else "numbers a sample"
    return f"\nhelp: it takes {wanted} {what}, not {given}"


def _sizes_name(model: Model, port: str, parameter: str) -> bool:
    """Whether the text of a model says sizes of an input by a parameter, or where there is no text
    to look at: one may be as large by chance, as the width of a layer."""
    text = "" if model.source is None else model.source.text
    declared = re.findall(rf"\binput\b[^\n\[]*\b{re.escape(port)}\b[^\[]*\[([^\]]*)\]", text)
    word = re.compile(rf"\b{re.escape(parameter)}\b")
    return not declared or any(word.search(sizes) for sizes in declared)


def _complete_shapes(
    ports: Sequence[Port], inputs: Shapes, batch: int | None
) -> dict[str, tuple[int, ...]]:
    if isinstance(inputs, Mapping):
        given = {name: _shape(shape) for name, shape in inputs.items()}
    else:
        if len(ports) != 1:
            names = ", ".join(port.name for port in ports)
            raise InputError(f"the model has several inputs ({names}): give a shape for each name")
        given = {ports[0].name: _shape(inputs)}
    by_name = {port.name: port for port in ports}
    for name, shape in given.items():
        if name not in by_name:
            raise InputError(f"no input `{name}`; the inputs are {', '.join(by_name)}")
        wanted = by_name[name].type
        if len(shape) == wanted.rank - 1:
            given[name] = (1 if batch is None else batch, *shape)
        elif len(shape) != wanted.rank:
            text = f"input `{name}` has shape {list(shape)}, expected {wanted}"
            raise InputError(f"{text}\nhelp: without the batch {_sizes_of(wanted)}")
    return given


def _sizes_of(type: TensorType) -> str:
    """The sizes of an input without its batch, as they are said: `3xHxW`."""
    said = (str(d) if " " not in str(d) else f"({d})" for d in type.shape[1:])
    return "x".join(said) or "none"


def _shape(given: object) -> tuple[int, ...]:
    if hasattr(given, "shape"):
        raise InputError(f"a {type(given).__name__} is no shape: its own is .shape")
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise InputError(f"{given!r} is no shape: a tuple of sizes is")
    return tuple(whole("a size", size) for size in cast("Sequence[object]", given))


def ports_of(model: Model) -> tuple[Port, ...]:
    """What a caller may say the sizes of."""
    types = {**model.inputs, **model.accepts}
    return tuple(Port(name, type) for name, type in types.items())
