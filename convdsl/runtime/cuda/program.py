"""A program on a card, and calls of it.

    with stream:
        y = network(x)        returns once everything is in the stream's queue

Everything of a call is put into the caller's stream. Launches are captured once, per stream, as a
CUDA graph over arrays that stay where they are: inputs are copied into those, outputs out of them,
so that a call is a few entries of the queue however many kernels the network has. Where there are
no more launches than such copies, or the caller is capturing a graph of their own, kernels are
launched one by one on the caller's arrays. A program with sums over ranks has a graph for each of
its phases, and such sums between them.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import ArtifactError, DeviceError, InputError
from convdsl.forking import open_lock
from convdsl.kernel.cuda_binary import CudaBinary
from convdsl.kernel.cuda_module import Launch
from convdsl.kernel.program import Phase, Place, Port
from convdsl.ranks import ALONE
from convdsl.runtime.code import Code, check_memory
from convdsl.runtime.cuda.card import Card, card_errors, cupy, find_card, of_memory, on_card
from convdsl.runtime.cuda.device import CardState, CudaDevice, Home, is_host, put, uploading
from convdsl.runtime.cuda.failure import failed, needs
from convdsl.runtime.cuda.launching import Addresses, Functions, check_arguments
from convdsl.runtime.cuda.rerun import Case, Failure, step_by_step
from convdsl.runtime.cuda.sums import CardSums

CHECK = "CONVDSL_CUDA_CHECK"
"""Set to 1, every step is waited for, so that a failure names its layer; to 0, a call that failed
is not run again to find out."""

_LANES = 4
"""Streams whose scratch memory is kept, the most recently used."""

_ALIGNMENT = 16
"""Kernels read and write sixteen bytes at once: inputs that begin elsewhere are copied."""

_PER_THREAD = 2
"""cudaStreamPerThread: one handle, and another stream for every thread."""


class Lane:
    """What calls on one stream work on, one after the other: scratch memory, arrays at fixed
    places, and the graph over them."""

    def __init__(self, found: Any, code: Code) -> None:
        self.lock = open_lock()
        self.arena = found.cuda.alloc(max(code.arena_bytes, 1))
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.graphs: list[Any] = []  # one for each phase
        self.captured: Addresses | None = None
        self.done: Any = None

    def fix(self, found: Any, code: Code) -> None:
        """Arrays that stay where they are."""
        if not self.outputs:
            self.inputs = [_empty(found, port) for port in code.inputs]
            self.outputs = [_empty(found, port) for port in code.outputs]


class CardCode:
    """A program for a card, with its weights: what `runtime.executable.Runner` asks for. Nothing
    is on the card before the first call."""

    def __init__(self, code: Code, weights: npt.NDArray[np.uint8], device: CudaDevice) -> None:
        self._home: Home | None = None
        self._lanes: OrderedDict[tuple[int, int], Lane] = OrderedDict()
        if weights.nbytes != code.weight_bytes:
            raise ArtifactError(f"{weights.nbytes} bytes of weights, {code.weight_bytes} expected")
        code.check()
        check_memory(code.arena_bytes, code.weight_bytes)
        self.code = code
        self.weights = weights
        self.binary = read_binary(code)
        self.ranks = ALONE  # whose parts the program's sums over ranks add
        self._sums: CardSums | None = None
        self._device = device
        self._lock = open_lock()
        self._card: Card | None = None
        self._functions: Functions | None = None
        self._uploaded: Any = None
        self._lent: list[Lane] = []  # to graphs of callers, for as long as this lives

    def __del__(self) -> None:
        self._outlive(list(self._lanes.values()))

    def _outlive(self, lanes: Sequence[Lane]) -> None:
        """Weights are nobody else's before calls that read them are through."""
        if self._home is not None:
            self._home.wait([lane.done for lane in lanes if lane.done is not None])

    @property
    def results(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(port.name for port in self.code.outputs)

    @property
    def states(self) -> tuple[Port, ...]:
        """What a call changes, in the order in which `run` takes them."""
        return self.code.states

    def run(
        self, inputs: Sequence[Any], threads: int, states: Sequence[CardState] = ()
    ) -> list[Any]:
        """One call: C-contiguous arrays of the program's exact types in, new arrays out, on the
        card if one of the inputs is. The number of threads plays no part."""
        found = cupy()
        with on_card(found, self._device.number), self._failures(found, inputs, states):
            functions = self._load(found)
            stream = found.cuda.get_current_stream()
            capturing = stream.is_capturing()
            stays = any(not is_host(array) for array in inputs)
            if capturing and (not stays or any(map(is_host, inputs))):
                raise InputError("while a stream is captured, inputs and outputs are on the card")
            lane = self._lane(found, stream, capturing=capturing)
            with lane.lock:
                if not capturing:
                    for event in {lane.done, *(state.done for state in states)} - {None}:
                        stream.wait_event(event)
                outputs = self._call(functions, lane, inputs, states, stream)
                if not capturing:
                    lane.done = found.cuda.Event(disable_timing=True)
                    lane.done.record(stream)
                    for state in states:
                        state.done = lane.done
            return outputs if stays else [array.get(stream=stream) for array in outputs]

    def _call(
        self,
        functions: Functions,
        lane: Lane,
        inputs: Sequence[Any],
        states: Sequence[CardState],
        stream: Any,
    ) -> list[Any]:
        """Put a call into the stream's queue, by the graph or kernel by kernel."""
        found = cupy()
        copies = len(inputs) + len(self.code.outputs)
        checked = os.environ.get(CHECK, "0") not in ("", "0")
        if checked or stream.is_capturing() or len(functions.launches) <= copies + 1:
            arrays = [self._on_card(found, array, stream) for array in inputs]
            if stream.is_capturing():  # copies too belong to the graph from now on
                lane.inputs = [*inputs, *arrays]
            outputs = [_empty(found, port) for port in self.code.outputs]
            addresses = self._addresses(lane, arrays, outputs, states)
            if checked and not stream.is_capturing():
                for phase in self._phases(lane, stream):
                    self._step_by_step(functions, self._launches(phase), addresses, stream)
            else:
                for phase in self._phases(lane, stream):
                    functions.launch_all(self._launches(phase), addresses, stream)
            return outputs
        lane.fix(found, self.code)
        for fixed, array in zip(lane.inputs, inputs, strict=True):
            _copy(found, fixed, array, stream)
        addresses = self._addresses(lane, lane.inputs, lane.outputs, states)
        if not lane.graphs or lane.captured != addresses:
            lane.graphs = [
                self._captured(found, functions, self._launches(phase), addresses)
                for phase in self.code.phases
            ]
            lane.captured = addresses
        for _, graph in zip(self._phases(lane, stream), lane.graphs, strict=True):
            if graph is not None:
                graph.launch(stream)
        outputs = [_empty(found, port) for port in self.code.outputs]
        for fixed, array in zip(lane.outputs, outputs, strict=True):
            _copy(found, array, fixed, stream)
        return outputs

    def _phases(self, lane: Lane, stream: Any) -> Iterator[Phase]:
        """The phases, each when the sums that it needs are waited for in a stream; those that it
        makes the parts of begin when the next one is asked for."""
        there: dict[int, Any] = {}
        for phase in self.code.phases:
            for each in phase.waits:
                if each in there:
                    stream.wait_event(there.pop(each))
            yield phase
            for each in phase.begins if self.ranks.size > 1 else ():
                if self._sums is None:
                    self._sums = CardSums(cupy(), self.ranks)
                sum = self.code.sums[each]
                there[each] = self._sums.begin(sum, int(lane.arena.ptr) + sum.offset, stream)

    def _launches(self, phase: Phase) -> Sequence[Launch]:
        return [each for each in self.binary.launches if phase.first <= each.first < phase.last]

    def _captured(
        self, found: Any, functions: Functions, launches: Sequence[Launch], addresses: Addresses
    ) -> Any:
        """Launches as a CUDA graph, None of none. A stream of its own: the caller's may be the
        default one, which cannot be captured."""
        if not launches:
            return None
        stream = found.cuda.Stream(non_blocking=True)
        stream.begin_capture()
        try:
            functions.launch_all(launches, addresses, stream)
        finally:
            graph = stream.end_capture()
        return graph

    def _step_by_step(
        self,
        functions: Functions,
        launches: Sequence[Launch],
        addresses: Addresses,
        stream: Any,
    ) -> None:
        """Launch after launch, each waited for. DeviceError that names the layer that fails."""
        failure = step_by_step(functions, launches, addresses, stream)
        if failure is not None:
            raise failed(self._device, launches, failure)

    @contextmanager
    def _failures(
        self, found: Any, inputs: Sequence[Any], states: Sequence[CardState]
    ) -> Generator[None]:
        """What CuPy raises, in our words; with the layer, where that is found by running the call
        again."""
        try:
            yield
        except (found.cuda.memory.OutOfMemoryError, *card_errors(found)) as error:
            if of_memory(found, error):
                raise needs(found, self.code, self._device, error) from None
            again = os.environ.get(CHECK, "") != "0"
            failure = self._failed_again(found, inputs, states) if again else None
            if failure is not None:
                raise failed(self._device, self.binary.launches, failure, again=True) from None
            raise DeviceError(
                f"{self._device.name} has failed: {error}\n"
                f"help: with {CHECK}=1 every step is waited for, and the layer is named"
            ) from None

    def _failed_again(
        self, found: Any, inputs: Sequence[Any], states: Sequence[CardState]
    ) -> Failure | None:
        """The launch that fails when the call is run again: here, on copies of the states, if the
        card has only refused something; else in a process of its own, from what the host holds."""
        try:
            if found.cuda.get_current_stream().is_capturing():
                return None
            stream = found.cuda.Stream(non_blocking=True)
            stream.synchronize()
            with stream:
                return self._refused(found, inputs, states, stream)
        except found.cuda.memory.OutOfMemoryError:
            return None  # the first time it had the memory that it would take now
        except card_errors(found):
            if not all(map(is_host, inputs)):
                return None
        held = [state.on_host() for state in states]
        case = Case(self.code, self.weights, self._device.number, inputs, held)
        return case.run_in_a_new_process()

    def _refused(
        self, found: Any, inputs: Sequence[Any], states: Sequence[CardState], stream: Any
    ) -> Failure | None:
        if self._functions is None:
            return None
        lane = Lane(found, self.code)
        arrays = [self._on_card(found, array, stream) for array in inputs]
        outputs = [_empty(found, port) for port in self.code.outputs]
        copies = [state.copied(stream) for state in states]
        addresses = replace(
            self._addresses(lane, arrays, outputs, ()),
            states=tuple(int(array.data.ptr) for array in copies),
        )
        return step_by_step(self._functions, self.binary.launches, addresses, stream)

    def _load(self, found: Any) -> Functions:
        """Code and weights on the card, once."""
        with self._lock:
            if self._functions is None:
                self._card = find_card(self._device.number)
                functions = Functions(found, self.binary, self._card)
                with uploading(found) as stream:
                    self._home = Home(found, self._device.number, stream)
                    self._uploaded = found.cuda.alloc(max(self.weights.nbytes, 1))
                    if self.weights.nbytes:
                        source = np.ascontiguousarray(self.weights)
                        place, size = source.ctypes.data, source.nbytes
                        self._uploaded.copy_from_host_async(place, size, stream)
                self._functions = functions
            return self._functions

    def _lane(self, found: Any, stream: Any, *, capturing: bool) -> Lane:
        """Scratch memory for a stream. A graph that a caller captures keeps its own for good."""
        if capturing:
            lane = Lane(found, self.code)
            with self._lock:
                self._lent.append(lane)
            return lane
        per_thread = threading.get_ident() if stream.ptr == _PER_THREAD else 0
        key = (int(stream.ptr), per_thread)
        with self._lock:
            if key not in self._lanes:
                self._lanes[key] = Lane(found, self.code)
                if len(self._lanes) > _LANES:
                    _, gone = self._lanes.popitem(last=False)
                    self._outlive([gone])
            self._lanes.move_to_end(key)
            return self._lanes[key]

    def _on_card(self, found: Any, array: Any, stream: Any) -> Any:
        """An input where kernels can read it."""
        if not is_host(array) and array.data.ptr % _ALIGNMENT == 0:
            return array
        made = found.empty(array.shape, array.dtype)
        _copy(found, made, array, stream)
        return made

    def _addresses(
        self, lane: Lane, inputs: Sequence[Any], outputs: Sequence[Any], states: Sequence[CardState]
    ) -> Addresses:
        return Addresses(
            int(self._uploaded.ptr),
            int(lane.arena.ptr),
            tuple(int(array.data.ptr) for array in inputs),
            tuple(int(array.data.ptr) for array in outputs),
            tuple(state.address() for state in states),
        )


def read_binary(code: Code) -> CudaBinary:
    """The binary that a code holds. ArtifactError where it is none, or not that program's."""
    try:
        binary = CudaBinary.from_bytes(code.object_code)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"no program for a card: {error}") from None
    slots = {
        Place.INPUT: len(code.inputs),
        Place.OUTPUT: len(code.outputs),
        Place.STATE: len(code.states),
    }
    check_arguments(
        binary.launches, slots, {Place.WEIGHTS: code.weight_bytes, Place.ARENA: code.arena_bytes}
    )
    return binary


def _empty(found: Any, port: Port) -> Any:
    return found.empty(port.type.sizes, port.type.dtype.numpy)


def _copy(found: Any, target: Any, source: Any, stream: Any) -> None:
    """In order on a stream. What lies in NumPy's memory has been read when this returns."""
    if is_host(source):
        put(found, target, source, stream)
    elif source.nbytes:
        target.data.copy_from_device_async(source.data, source.nbytes, stream)
