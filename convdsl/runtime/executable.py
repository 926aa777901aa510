"""What `convdsl.compile` returns: a callable network."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import InputError
from convdsl.kernel.program import Port
from convdsl.tensor import Symbol, SymDim, TensorType, evaluate, symbols_of

Array = npt.NDArray[Any]
Binding = dict[str, int]
_KEPT = 4  # specialisations kept, the most recently used
_REMEMBERED = 64  # signatures of inputs known to fit

Values: TypeAlias = "Mapping[str, Array]"
_Key: TypeAlias = "tuple[tuple[Any, ...], ...]"


class Runner(Protocol):
    """A program specialised to one full signature."""

    @property
    def results(self) -> Sequence[str]:
        """Names of what it puts out."""
        ...

    def run(self, inputs: Sequence[Array], threads: int) -> list[Array]: ...


@dataclass(frozen=True, slots=True)
class Facts:
    """What travels with a network besides its code."""

    name: str
    preprocessing: Mapping[str, Any] | None
    labels: tuple[str, ...] | None
    notes: tuple[str, ...] = ()  # said to the user: random weights, ignored keys


class Executable:
    """A compiled network. Symbols of the input shapes are bound on the first call with new
    shapes, and so are the values of inputs that decide shapes; the last few specialisations are
    kept. Safe to call from many threads at once."""

    def __init__(
        self,
        facts: Facts,
        inputs: Sequence[Port],
        outputs: Sequence[Port],
        threads: int,
        specialise: Callable[[Binding, Values], Runner],
        save: Callable[[Binding, Values, Path], None],
        deciding: Sequence[str] = (),
    ) -> None:
        self._deciding = tuple(deciding)
        self._facts = facts
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)
        self._specialise = specialise
        self._save = save
        self._runners: OrderedDict[_Key, Runner] = OrderedDict()
        self._fitting: dict[tuple[Any, ...], Binding] = {}
        self._lock = threading.Lock()
        self.threads = threads

    @property
    def name(self) -> str:
        return self._facts.name

    @property
    def inputs(self) -> dict[str, TensorType]:
        return {port.name: port.type for port in self._inputs}

    @property
    def outputs(self) -> dict[str, TensorType]:
        return {port.name: port.type for port in self._outputs}

    @property
    def deciding(self) -> tuple[str, ...]:
        """Inputs whose values decide shapes: for new values there is new code, as for new sizes."""
        return self._deciding

    @property
    def preprocessing(self) -> Mapping[str, Any] | None:
        """As declared in the file (ir.preprocess.Preprocessing.to_json)."""
        return self._facts.preprocessing

    @property
    def labels(self) -> tuple[str, ...] | None:
        return self._facts.labels

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know: random weights, ignored keys."""
        return self._facts.notes

    def __call__(self, *arrays: Array, **named: Array) -> Any:
        """Run on arrays in order of the inputs, or by name. One output comes back as an array,
        several as a dict by name. Inputs are not modified; outputs belong to the caller."""
        given = self._in_order(arrays, named)
        binding = self._binding_of(given)
        inputs = [np.ascontiguousarray(array) for array in given]
        values: Values = {}
        if self._deciding:
            by_name = {port.name: a for port, a in zip(self._inputs, inputs, strict=True)}
            values = {name: by_name.pop(name) for name in self._deciding}
            inputs = list(by_name.values())
        runner = self.runner(binding, values)
        results = runner.run(inputs, self.threads)
        return results[0] if len(results) == 1 else dict(zip(runner.results, results, strict=True))

    def _in_order(self, arrays: Sequence[Array], named: Mapping[str, Array]) -> Sequence[Array]:
        """An array for each input."""
        plain = not named and len(arrays) == len(self._inputs)
        if plain and all(type(array) is np.ndarray for array in arrays):
            return arrays
        given = self._collect(arrays, named)
        return [given[port.name] for port in self._inputs]

    def _binding_of(self, given: Sequence[Array]) -> Binding:
        """Symbols from the arrays' shapes; InputError where shapes or types do not fit. What was
        found to fit is remembered: a small network takes no longer than this check."""
        signature = tuple([(array.shape, array.dtype) for array in given])
        known = self._fitting.get(signature)
        if known is not None:
            return known
        named = {port.name: array for port, array in zip(self._inputs, given, strict=True)}
        binding = self.bind({name: array.shape for name, array in named.items()})
        for port in self._inputs:
            self._check(port, named[port.name])
        if len(self._fitting) >= _REMEMBERED:
            self._fitting.clear()
        self._fitting[signature] = binding
        return binding

    def runner(self, binding: Binding, values: Values | None = None) -> Runner:
        """The specialisation for a binding of all symbols, and for values of the inputs that
        decide shapes, made where there is none yet."""
        values = values or {}
        decided = ((name, a.shape, a.tobytes()) for name, a in values.items())
        key: _Key = (*sorted(binding.items()), *decided)
        with self._lock:
            if key in self._runners:
                self._runners.move_to_end(key)
                return self._runners[key]
            made = self._specialise(binding, values)
            self._runners[key] = made
            if len(self._runners) > _KEPT:
                self._runners.popitem(last=False)
            return made

    def save(self, path: str | Path, **binding: Any) -> None:
        """Write an artifact for one binding of the symbols, e.g. save("net.cdsl", N=1).
        The batch symbol defaults to 1; other free symbols must be given, and so must the values
        of inputs that decide shapes."""
        values = {name: self._decided(name, binding) for name in self._deciding}
        sizes = {name: size for name, size in binding.items() if name not in values}
        self._save(self.complete(sizes), values, Path(path))

    def _decided(self, name: str, given: Mapping[str, Any]) -> Array:
        (port,) = (port for port in self._inputs if port.name == name)
        if name not in given:
            raise InputError(f"shapes depend on the values of {name}: save(path, {name}=...)")
        return self._check(port, np.asarray(given[name]))

    def complete(self, binding: Mapping[str, int]) -> Binding:
        """The binding with the batch symbol defaulting to 1; InputError where one is missing."""
        full = dict(binding)
        symbols = input_symbols(self._inputs)
        if "N" in symbols:
            full.setdefault("N", 1)
        missing = [name for name in symbols if name not in full]
        if missing:
            raise InputError(f"sizes not given: {', '.join(missing)}")
        for name, symbol in symbols.items():
            check_symbol(symbol, full[name])
        return {name: full[name] for name in symbols}

    def bind(self, shapes: Mapping[str, Sequence[int]]) -> Binding:
        """Symbols from concrete input shapes; InputError where they do not fit."""
        return bind_shapes(self._inputs, shapes)

    def _collect(self, arrays: Sequence[Array], named: Mapping[str, Array]) -> dict[str, Array]:
        names = [port.name for port in self._inputs]
        if len(arrays) > len(names):
            raise InputError(f"{len(arrays)} arrays for {len(names)} inputs ({', '.join(names)})")
        given = dict(zip(names, arrays, strict=False))
        for name, array in named.items():
            if name not in names:
                raise InputError(f"no input `{name}`; the inputs are {', '.join(names)}")
            if name in given:
                raise InputError(f"input `{name}` is given twice")
            given[name] = array
        missing = [name for name in names if name not in given]
        if missing:
            raise InputError(f"inputs not given: {', '.join(missing)}")
        for name, array in given.items():
            if not isinstance(array, np.ndarray):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise InputError(f"input `{name}` is a {type(array).__name__}, not a NumPy array")
        return given

    def _check(self, port: Port, array: Array) -> Array:
        wanted = np.dtype(port.type.dtype.numpy)
        if array.dtype != wanted:
            raise InputError(
                f"input `{port.name}` is {array.dtype}, the model takes {wanted}: "
                f"convert with .astype('{wanted}')"
            )
        return np.ascontiguousarray(array)


def input_symbols(inputs: Sequence[Port]) -> dict[str, Symbol]:
    """Free symbols of the input shapes, by name, in order of appearance."""
    found: dict[str, Symbol] = {}
    for port in inputs:
        for extent in port.type.shape:
            for symbol in sorted(symbols_of(extent), key=str):
                found.setdefault(symbol.name, symbol)
    return found


def bind_shapes(inputs: Sequence[Port], shapes: Mapping[str, Sequence[int]]) -> Binding:
    """Solve the input shapes for their symbols; every extent must then agree."""
    binding: Binding = {}
    for port in inputs:
        shape = shapes[port.name]
        if len(shape) != port.type.rank:
            raise InputError(f"input `{port.name}` has shape {list(shape)}, expected {port.type}")
        for extent, given in zip(port.type.shape, shape, strict=True):
            name = _plain_symbol(extent)
            if name is not None:
                binding.setdefault(name, int(given))
    symbols = input_symbols(inputs)
    missing = [name for name in symbols if name not in binding]
    if missing:
        raise InputError(f"the input shapes do not determine {', '.join(missing)}")
    for name, symbol in symbols.items():
        check_symbol(symbol, binding[name])
    for port in inputs:
        expected = [int(evaluate(extent, binding)) for extent in port.type.shape]
        if expected != list(shapes[port.name]):
            raise InputError(
                f"input `{port.name}` has shape {list(shapes[port.name])}, expected {port.type}"
                + (f" = {expected}" if binding else "")
            )
    return binding


def _plain_symbol(extent: int | SymDim) -> str | None:
    symbols = symbols_of(extent)
    if isinstance(extent, SymDim) and len(symbols) == 1 and str(extent) == next(iter(symbols)).name:
        return str(extent)
    return None


def check_symbol(symbol: Symbol, value: int) -> None:
    """InputError where a value breaks what was declared of its symbol."""
    if value < symbol.minimum or (symbol.maximum is not None and value > symbol.maximum):
        least = f"at least {symbol.minimum}"
        most = "" if symbol.maximum is None else f" and at most {symbol.maximum}"
        raise InputError(f"{symbol.name} = {value}, but it must be {least}{most}")
    if value % symbol.divisor != symbol.remainder % symbol.divisor:
        rest = symbol.remainder % symbol.divisor
        raise InputError(f"{symbol.name} = {value}, but {symbol.name} % {symbol.divisor} == {rest}")
