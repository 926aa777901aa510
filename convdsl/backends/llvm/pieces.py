"""Machine code of kernels, made in a second thread while others are still being lowered.

LLVM works without Python's lock, and takes about as long as lowering does. So kernels are handed
over as soon as they are certain, and compiled some at a time, in modules of their own; what is left
when the program is known becomes the last module, with the function that calls them. The object
files of all are joined (`joining`). Kernels of unlike tasks that come to the same code (what packs
the inputs of two convolutions, or one of stride 2 behind what has cut its input down) are compiled
once. Where the cuts are follows from the kernels alone, not from how
fast anybody was. A small program is one module, and no thread is started for it; so is any program
for a target whose object files `joining` does not know.
"""

from __future__ import annotations

import threading
import warnings
from queue import SimpleQueue

from convdsl.backends.llvm.joining import Unjoinable, join, joinable
from convdsl.backends.llvm.module import Printed, print_kernel, print_module, print_piece
from convdsl.backends.llvm.objects import emit_for_another, emit_object
from convdsl.forking import compiling
from convdsl.kernel.nodes import Kernel
from convdsl.kernel.program import Program
from convdsl.kernel.target import Target

PIECE = 1 << 16
"""Characters of LLVM IR that are worth a module: LLVM takes a twentieth of a second for them, for
which it waits before the first and everybody after the last."""


class Pieces:
    """The code of one program in the making. Whoever makes it is `compiling` meanwhile, and leaves
    when the second thread has: a fork waits for both by waiting for one."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._joins = joinable(target)
        self._kernels: dict[str, Kernel] = {}  # all that are certain
        self._waiting: dict[str, Printed] = {}  # those that are in no module yet
        self._bodies: dict[str, str] = {}  # whose each text is, but for the name
        self._same: dict[str, str] = {}  # kernels that are another one under their own name
        self._thread: _Compiling | None = None
        self._busy = compiling()

    def __enter__(self) -> Pieces:
        self._busy.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._thread is not None:
                self._thread.stop()
        finally:
            self._busy.release()

    def add(self, kernel: Kernel) -> None:
        """A kernel that the program is going to have, as it is."""
        self._kernels[kernel.name] = kernel
        printed = print_kernel(kernel, self._target)
        first = self._bodies.setdefault(printed.text.partition("(")[2], kernel.name)
        if first != kernel.name:
            self._same[kernel.name] = first
            return
        self._waiting[kernel.name] = printed
        if self._joins and sum(len(each.text) for each in self._waiting.values()) >= PIECE:
            if self._thread is None:
                self._thread = _Compiling(self._target)
            self._thread.add(print_piece(list(self._waiting.values()), self._target))
            self._waiting.clear()

    def object_code(self, program: Program) -> bytes:
        """Relocatable machine code of the whole program."""
        for kernel in program.kernels:
            known = self._kernels.get(kernel.name)
            assert known is None or known is kernel, f"{kernel.name} is another kernel now"
            if known is None and self._thread is not None:
                self.add(kernel)
        apart = self._kernels.keys() - self._waiting.keys()
        rest = print_module(
            program, self._target, printed=self._waiting, apart=apart, same=self._same
        )
        if self._thread is None:
            return emit_object(rest, self._target)
        self._thread.add(rest)
        objects = self._thread.finish()
        try:
            return join(objects)
        except Unjoinable as error:  # of an LLVM that is later than what was known: it costs time
            warnings.warn(f"{error}; the program is compiled again, as one module", stacklevel=2)
            return emit_object(print_module(program, self._target), self._target)


class _Compiling(threading.Thread):
    """Compiles modules one after the other."""

    def __init__(self, target: Target) -> None:
        super().__init__(name="convdsl-compiling")
        self._target = target
        self._modules: SimpleQueue[str | None] = SimpleQueue()
        self._objects: list[bytes] = []
        self._error: BaseException | None = None
        self._stopped = False
        self.start()

    def add(self, module: str) -> None:
        self._modules.put(module)

    def run(self) -> None:
        try:
            while (module := self._modules.get()) is not None and not self._stopped:
                self._objects.append(emit_for_another(module, self._target))
        except BaseException as error:  # noqa: BLE001 (raised again in the thread that waits)
            self._error = error

    def finish(self) -> list[bytes]:
        """The object files of all modules."""
        self._modules.put(None)
        self.join()
        if self._error is not None:
            raise self._error
        return self._objects

    def stop(self) -> None:
        """Nobody wants the rest. What is at work is waited for, a twentieth of a second mostly."""
        self._stopped = True
        self._modules.put(None)
        self.join()
