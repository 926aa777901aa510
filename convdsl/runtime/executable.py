"""What `convdsl.compile` returns: a callable network."""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import InputError, expect
from convdsl.forking import compiling, open_lock, sheltered
from convdsl.kernel.program import Port
from convdsl.kernel.signature import (
    Binding,
    array_of,
    bind_shapes,
    check_symbol,
    input_symbols,
    one_sample,
)
from convdsl.runtime.cpu.team import team_size
from convdsl.runtime.device import HOST, Device
from convdsl.runtime.state import State
from convdsl.spelling import by_words, nearest, those
from convdsl.tensor import DType, TensorType

Array = npt.NDArray[Any]
_KEPT = 4  # specialisations, unless more are asked for
_REMEMBERED = 64  # signatures of inputs known to fit

Values: TypeAlias = "Mapping[str, Array]"
_Key: TypeAlias = "tuple[tuple[Any, ...], ...]"


class Runner(Protocol):
    """A program specialised to one full signature."""

    @property
    def results(self) -> Sequence[str]:
        """Names of what it puts out."""
        ...

    @property
    def states(self) -> Sequence[Port]:
        """What a call changes."""
        ...

    def run(self, inputs: Sequence[Any], threads: int, states: Sequence[Any] = ()) -> list[Any]:
        """The outputs; arrays of the states, as the device lends them, are changed in place."""
        ...


@dataclass(frozen=True, slots=True)
class Facts:
    """What travels with a network besides its code."""

    name: str
    preprocessing: Mapping[str, Any] | None
    labels: tuple[str, ...] | None
    notes: tuple[str, ...] = ()  # said to the user: random weights, ignored keys
    winograd: bool = True  # whether its convolutions might be computed with fewer products
    apart: bool = False  # whether samples are known not to depend on each other


def _key(binding: Binding, values: Values) -> _Key:
    decided = ((name, a.shape, a.tobytes()) for name, a in values.items())
    return (*sorted(binding.items()), *decided)


def _scalar(port: Port, value: Any) -> Array:
    """A number as the array of an input of rank 0, where the input's type holds it."""
    dtype = port.type.dtype
    if port.type.rank or dtype is DType.BF16:
        raise InputError(f"input `{port.name}` is one number, the model takes {port.type}")
    is_flag = isinstance(value, bool | np.bool_)
    number: Any = cast("Any", value).item() if isinstance(value, np.generic) else value
    fits = is_flag if dtype is DType.BOOL else not is_flag
    if fits and dtype.is_integer:
        fits = isinstance(number, int) and dtype.lowest <= number <= dtype.highest
    elif fits and not isinstance(number, complex):
        fits = not math.isfinite(number) or abs(number) <= dtype.largest
    if not fits or isinstance(number, complex):
        raise InputError(f"input `{port.name}` is {value!r}, which is no {dtype}")
    return np.asarray(number, dtype.numpy)


def _each(sizes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The bindings that sizes, and sequences of sizes of one length, stand for."""
    many = {n: list(s) for n, s in sizes.items() if isinstance(s, list | tuple | range)}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    counts = {len(given) for given in many.values()} or {1}
    if len(counts) > 1 or 0 in counts:
        said = ", ".join(f"{len(given)} of {name}" for name, given in many.items())
        raise InputError(f"sizes that go together are equally many: {said}")
    return [
        {**sizes, **{name: given[at] for name, given in many.items()}} for at in range(max(counts))
    ]


def _how(inputs: Sequence[Port], missing: Sequence[str]) -> str:
    """How sizes are given, on the command line and in Python."""
    port = next(p for p in inputs if {s.name for s in p.type.symbols()} & set(missing))
    sizes = "x".join(str(extent) for extent in port.type.shape[1:])
    named = f"{port.name}=" if len(inputs) > 1 else ""
    settings = " ".join(f"--set {name}=..." for name in missing)
    keywords = ", ".join(f"{name}=..." for name in missing)
    said = f"help: --input {named}{sizes} with numbers, or {settings}"
    return f"{said}; in Python save(path, {keywords})"


class Executable:
    """A compiled network. Symbols of the input shapes are bound on the first call with new
    shapes, and so are the values of inputs that decide shapes; the last few specialisations are
    kept. Safe to call from many threads at once: while one waits for a new specialisation, others
    run on those that there are. A network with state serves one call at a time: all its
    specialisations work on the same arrays."""

    def __init__(
        self,
        facts: Facts,
        inputs: Sequence[Port],
        outputs: Sequence[Port],
        threads: int,
        specialise: Callable[[Binding, Values], Runner],
        save: Callable[[Sequence[Binding], Values, Path], None],
        deciding: Sequence[str] = (),
        state: State | None = None,
        device: Device = HOST,
        apart: Callable[[], bool] | None = None,
    ) -> None:
        self._device = device
        self._apart: Callable[[], bool] | bool | None = apart
        self._deciding = tuple(deciding)
        self._facts = facts
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)
        self._specialise = specialise
        self._save = save
        self._runners: OrderedDict[_Key, Runner] = OrderedDict()
        self._making: dict[_Key, Event] = {}
        self._names = tuple(port.name for port in inputs)
        self._sorted = sorted(self._names)
        self._fitting: dict[tuple[Any, ...], tuple[Binding, _Key]] = {}
        self._lock = open_lock()
        self._state = State((), {}) if state is None else state
        self.threads = threads
        self.kept = _KEPT  # specialisations, the most recently used
        self.remedy = ""  # what to do about other sizes, where there is no code for them
        self.made_for: tuple[Binding, ...] = ()  # of an artifact: all sizes of each of its programs

    @property
    def sizes(self) -> tuple[Binding, ...]:
        """Of an artifact for several sizes, those that its inputs leave open, of each program."""
        if len(self.made_for) < 2:
            return ()
        open = input_symbols(self._inputs)
        return tuple({n: size for n, size in each.items() if n in open} for each in self.made_for)

    @property
    def threads(self) -> int:
        """Size of the team that a call asks for."""
        return self._threads

    @threads.setter
    def threads(self, threads: int) -> None:
        self._threads = team_size(threads)

    @property
    def device(self) -> str:
        """Where it runs: `cpu`, `cuda:0`."""
        return self._device.name

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

    def __repr__(self) -> str:
        given = ", ".join(f"{port.name} {port.type}" for port in self._inputs)
        made = ", ".join(f"{port.name} {port.type}" for port in self._outputs)
        return f"<Executable {self.name}: {given} -> {made}>"

    def __copy__(self) -> Executable:
        """The same network: code, weights and state."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Machine code and the memory that it is mapped to stay in their process."""
        raise pickle.PicklingError(
            f"the compiled network {self.name} can neither be pickled nor copied deeply: send a "
            "convdsl.Predictor, which each process opens by itself, or save(path) an artifact for "
            "convdsl.load_executable"
        )

    @property
    def state(self) -> State:
        """What calls change: empty for a network that only computes."""
        return self._state

    @property
    def samples_apart(self) -> bool:
        """Whether the first axis of all inputs and outputs is the batch, and what comes of a sample
        is proven to depend on that sample alone: then those of several callers may share one."""
        if not isinstance(self._apart, bool):
            self._apart = self._facts.apart if self._apart is None else self._apart()
        return self._apart

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
        several as a dict by name. Inputs are not modified; outputs belong to the caller.

        On a card inputs may be there (CuPy arrays, and what says `__cuda_array_interface__` or
        `__dlpack__`), and if one is, so are the outputs, CuPy arrays, before they are computed:
        the call returns at once and its work is in order on CuPy's current stream. Of NumPy arrays
        NumPy arrays are made, and waited for."""
        names, results = self._run(arrays, named)
        return results[0] if len(results) == 1 else dict(zip(names, results, strict=True))

    def by_name(self, *arrays: Array, **named: Array) -> dict[str, Array]:
        """The same, with outputs by name where there is only one, too."""
        names, results = self._run(arrays, named)
        return dict(zip(names, results, strict=True))

    def _run(
        self, arrays: Sequence[Array], named: Mapping[str, Array]
    ) -> tuple[Sequence[str], list[Array]]:
        """Names of the results, and these."""
        given = self._in_order(arrays, named)
        binding, key = self._binding_of(given)
        inputs = [self._device.contiguous(array) for array in given]
        if self._deciding:
            by_name = {port.name: a for port, a in zip(self._inputs, inputs, strict=True)}
            values = {name: self._device.on_host(by_name.pop(name)) for name in self._deciding}
            runner, inputs = self.runner(binding, values), list(by_name.values())
        else:
            runner = self._made(key) or self.runner(binding)
        if self._state:
            with self._state.alone, compiling():
                states = self._state.lent(runner.states)
                results = runner.run(inputs, self.threads, states)
        else:
            results = runner.run(inputs, self._threads)
        return runner.results, results

    def resident(self, arrays: Mapping[str, Array]) -> dict[str, Any]:
        """Inputs by name where the network runs: what calls take without copying."""
        return {name: self._device.resident(array) for name, array in arrays.items()}

    def accept(self, name: str, value: object) -> Any:
        """An array, or what says where an array lies, as calls take it for the input of that name.
        InputError for what they do not take."""
        return self._device.accept(name, value)

    def wait(self, results: Any) -> Any:
        """The results of a call once they are there."""
        self._device.wait()
        return results

    def _in_order(self, arrays: Sequence[Array], named: Mapping[str, Array]) -> Sequence[Array]:
        """An array for each input."""
        if not named:
            given = arrays
        elif not arrays and sorted(named) == self._sorted:
            given = [named[name] for name in self._names]
        else:
            return self._collect(arrays, named)
        if len(given) == len(self._names) and all(type(a) is np.ndarray for a in given):
            return given
        return self._collect(arrays, named)

    def _binding_of(self, given: Sequence[Array]) -> tuple[Binding, _Key]:
        """Symbols from the arrays' shapes, and what their specialisation is known by; InputError
        where shapes or types do not fit. What was found to fit is remembered: a small network
        takes no longer than this check."""
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
        found = self._fitting[signature] = binding, _key(binding, {})
        return found

    def runner(self, binding: Binding, values: Values | None = None) -> Runner:
        """The specialisation for a binding of all symbols, and for values of the inputs that
        decide shapes, made where there is none yet."""
        values = values or {}
        key = _key(binding, values)
        while True:
            with self._lock:
                known, being_made = self._known(key), self._making.get(key)
            if known is not None:
                return known
            if being_made is not None:
                being_made.wait()  # and look again: it may have failed for its caller alone
                continue
            with compiling():
                made = self._make(key, binding, values)
            if made is not None:
                return made

    def _made(self, key: _Key) -> Runner | None:
        with self._lock:
            return self._known(key)

    def _known(self, key: _Key) -> Runner | None:
        if key in self._runners:
            self._runners.move_to_end(key)
        return self._runners.get(key)

    def _make(self, key: _Key, binding: Binding, values: Values) -> Runner | None:
        """A new specialisation, while callers of known ones go on and others who want this one
        wait; None where somebody else was a moment earlier."""
        done = Event()

        def begin() -> None:
            with self._lock:
                if key not in self._runners:
                    self._making.setdefault(key, done)

        def make() -> Runner | None:
            if self._making.get(key) is not done:
                return None
            made = self._specialise(binding, values)
            with self._lock:
                self._runners[key] = made
                while len(self._runners) > self.kept:
                    self._runners.popitem(last=False)
            return made

        def end() -> None:
            with self._lock:
                if self._making.get(key) is done:
                    del self._making[key]
            done.set()

        return sheltered(begin, make, end)

    def save(self, path: str | Path, **binding: Any) -> None:
        """Write an artifact for one binding of the symbols, e.g. save("net.cdsl", N=1), or for
        several: save("net.cdsl", N=(1, 8)) has code for each, and once the weights that they lay
        out alike. Where there are several sizes of several symbols, the first go together, the
        second, and so on. The batch symbol defaults to 1; other free symbols must be given, and so
        must the values of inputs that decide shapes."""
        expect("the path", path, str, Path)
        values = {name: self._decided(name, binding) for name in self._deciding}
        sizes = {name: size for name, size in binding.items() if name not in values}
        self._check_sizes(sizes)
        bindings = [self.complete(each) for each in _each(sizes)]
        if any(each in bindings[:number] for number, each in enumerate(bindings)):
            raise InputError("an artifact has one program for the same sizes, not two")
        self._save(bindings, values, Path(path))

    def _check_sizes(self, sizes: Mapping[str, Any]) -> None:
        """InputError for what no size is called: a misspelt one would be left at its default."""
        open = [*input_symbols(self._inputs), *self._deciding]
        fixed = self.made_for[0] if self.made_for else {}
        for name, size in sizes.items():
            if name in fixed and name not in open:
                if size != fixed[name]:
                    own = fixed[name]
                    raise InputError(f"there is no code for {name} = {size}, only for {own}")
            elif name not in open:
                near = nearest(name, open)
                meant = f"did you mean {near}?" if near is not None else those(open)
                told = meant if open else "the network fixes its sizes"
                raise InputError(f"no free size is called {name}; {told}")

    def _decided(self, name: str, given: Mapping[str, Any]) -> Array:
        (port,) = (port for port in self._inputs if port.name == name)
        if name not in given:
            raise InputError(f"shapes depend on the values of {name}: save(path, {name}=...)")
        return self._check(port, array_of(f"input `{name}`", given[name]))

    def complete(self, binding: Mapping[str, int]) -> Binding:
        """The binding with the batch symbol defaulting to 1; InputError where one is missing."""
        expect("the sizes", binding, Mapping)
        full = dict(binding)
        symbols = input_symbols(self._inputs)
        one_sample(full, symbols)
        missing = [name for name in symbols if name not in full]
        if missing:
            raise InputError(
                f"sizes not given: {', '.join(missing)}\n{_how(self._inputs, missing)}"
            )
        for name, symbol in symbols.items():
            check_symbol(symbol, full[name])
        return {name: full[name] for name in symbols}

    def bind(self, shapes: Mapping[str, Sequence[int]]) -> Binding:
        """Symbols from concrete input shapes; InputError where they do not fit."""
        try:
            return bind_shapes(self._inputs, shapes)
        except InputError as error:
            if not (self.remedy and self._is_sound(shapes)) or "\nhelp: " in str(error):
                raise
            raise InputError(f"{error}\n{self.remedy}") from None

    def _is_sound(self, shapes: object) -> bool:
        """Whether code for other sizes is what is missing: axes are as many as they should be."""
        ranks = {port.name: port.type.rank for port in self._inputs}
        return isinstance(shapes, Mapping) and all(
            0 not in shape and len(shape) == ranks.get(name)
            for name, shape in cast("Mapping[str, Sequence[int]]", shapes).items()
        )

    def _collect(self, arrays: Sequence[Array], named: Mapping[str, Array]) -> list[Array]:
        """The same, of arrays of any kind; InputError for what is none, missing or unknown."""
        names = self._names
        if len(arrays) > len(names):
            inputs = "one input" if len(names) == 1 else f"{len(names)} inputs"
            raise InputError(f"{len(arrays)} arrays for {inputs} ({', '.join(names)})")
        given, words = dict(zip(names, arrays, strict=False)), by_words(names)
        for word, array in named.items():
            name = words.get(word, word)
            if name not in names:
                raise InputError(f"no input `{name}`; the inputs are {', '.join(names)}")
            if name in given:
                raise InputError(f"input `{name}` is given twice")
            given[name] = array
        missing = [name for name in names if name not in given]
        if missing:
            raise InputError(f"inputs not given: {', '.join(missing)}")
        for port in self._inputs:
            value = given[port.name]
            if isinstance(value, bool | int | float | np.generic):
                value = _scalar(port, value)
            given[port.name] = self._device.accept(port.name, value)
        return [given[name] for name in names]

    def _check(self, port: Port, array: Array) -> Array:
        wanted = np.dtype(port.type.dtype.numpy)
        if array.dtype != wanted:
            how = f"convert with .astype('{wanted}')"
            if port.type.dtype is DType.BF16:
                how = "the bits of bf16, which convdsl.tensor.conversion.narrow_bf16 makes"
            raise InputError(
                f"input `{port.name}` is {array.dtype}, the model takes {wanted}: {how}"
            )
        return self._device.contiguous(array)
