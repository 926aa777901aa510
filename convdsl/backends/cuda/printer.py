"""Programs as CUDA C: a function for each grid, plain as a person would write it.

Sizes are numbers in the text, serial loops stay loops (schedules unroll what is to be unrolled),
and nothing is left for a linker: the text is prelude.cuh, arithmetic.cuh and the functions.
Pointers are restrict where no argument of any call lies over another one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from itertools import accumulate

from convdsl.backends.cuda.group_products import group_products, name_of_form
from convdsl.backends.cuda.text import HALVES, IN_MEMORY, TYPES, index, index_type, name_of
from convdsl.backends.cuda.together import together
from convdsl.backends.cuda.values import ValuePrinter, lanes_of
from convdsl.kernel.cuda_module import CudaModule, Launch, Three
from convdsl.kernel.cuda_target import WARP, CudaTarget
from convdsl.kernel.mma import SUMS
from convdsl.kernel.nodes import (
    Barrier,
    Blocks,
    Buffer,
    Cast,
    CommitCopies,
    CommitProducts,
    CopyAsync,
    Exchange,
    For,
    GroupMma,
    If,
    Kernel,
    Let,
    LetIndex,
    LoopVar,
    Mma,
    OpenProducts,
    Prefetch,
    Set,
    ShowProducts,
    Statement,
    Store,
    Threads,
    Value,
    WaitCopies,
    WaitProducts,
    walk_statements,
)
from convdsl.kernel.program import Access, Program, Step
from convdsl.kernel.verify import KernelError, verify_kernel
from convdsl.tensor import DType, bounds

_STATIC_SHARED = 48 << 10
"""What a function may declare; more is asked for at the launch."""

_GRID_LIMITS = ((1 << 31) - 1, 65535, 65535)
_SHARED_ALIGNMENT = 16
_ALIGNMENT = 128  # of what a launch asks for, if nothing in it needs more


def print_module(program: Program, target: CudaTarget) -> CudaModule:
    """The source of all kernels, equal ones once, and the launches of all steps."""
    kernels = {kernel.name: kernel for kernel in program.kernels}
    apart = {
        name: all(_apart(step) for step in program.steps if step.kernel == name) for name in kernels
    }
    for kernel in program.kernels:
        verify_kernel(kernel)
    groups = list(together(program))
    alone = {group[0].kernel for group in groups if len(group) == 1}
    parts_only = {step.kernel for group in groups for step in group} - alone
    texts = [
        source_part("prelude.cuh"),
        source_part("arithmetic.cuh"),
        *_group_products(program, target),
    ]
    for kernel in program.kernels:
        if kernel.name not in parts_only:
            texts += (
                _Function(kernel, grid, name, apart[kernel.name]).text()
                for name, grid in _grids(kernel)
            )
    launches: list[Launch] = []
    printed: dict[tuple[str, ...], str] = {}
    numbers = accumulate((len(group) for group in groups), initial=0)
    for first, group in zip(numbers, groups, strict=False):
        if len(group) == 1:
            made = _launches(kernels[group[0].kernel], group[0], target)
            launches += (replace(launch, first=first) for launch in made)
            continue
        called = tuple(step.kernel for step in group)
        known = called in printed
        name = printed.setdefault(called, f"together_{len(printed)}")
        names = dict.fromkeys(called)
        parts = [_Function(kernels[n], *_only(kernels[n]), apart[n]) for n in names]
        if not known:
            texts.append(_text_of_parts(name, group, parts))
        launches.append(replace(_launch_of_parts(name, group, parts), first=first))
    return CudaModule("\n".join(texts), tuple(launches))


def _group_products(program: Program, target: CudaTarget) -> Iterator[str]:
    """The functions for products of warp groups, if there are any."""
    made = (s for kernel in program.kernels for s in walk_statements(kernel.body))
    forms = dict.fromkeys(s.form for s in made if isinstance(s, GroupMma))
    if forms and not target.has_group_products:
        raise KernelError(f"{program.name}: products of warp groups on {target.arch}")
    if forms:
        yield group_products(forms)


@lru_cache(maxsize=2)
def source_part(name: str) -> str:
    """Text that every module begins with."""
    return files("convdsl.backends.cuda").joinpath(name).read_text(encoding="utf-8")


def _apart(step: Step) -> bool:
    """Whether nothing that a step writes lies over anything else that it is given: what it reads
    and then writes is one argument."""
    places = [(a.place, a.slot, a.offset) for a in step.arguments]
    pairs = zip(places, step.arguments, strict=True)
    written = [place for place, argument in pairs if argument.access is not Access.READ]
    return all(places.count(place) == 1 for place in written)


def _grids(kernel: Kernel) -> Iterator[tuple[str, Blocks]]:
    """The grids of a kernel with the names of their functions."""
    for number, statement in enumerate(kernel.body):
        if not isinstance(statement, Blocks):
            raise KernelError(f"{kernel.name}: {type(statement).__name__} on a card")
        alone = len(kernel.body) == 1
        yield kernel.name if alone else f"{kernel.name}_{number}", statement


def _launches(kernel: Kernel, step: Step, target: CudaTarget) -> Iterator[Launch]:
    for name, grid in _grids(kernel):
        needed = _shared_bytes(grid)
        if needed > target.facts.shared_bytes:
            raise KernelError(f"{name}: {needed} bytes of shared memory on {target.arch}")
        dynamic = needed if _is_asked_for(grid) else 0
        block = _along(threads_of(grid).extents)
        yield Launch(name, _grid(grid), block, dynamic, step.arguments, step.nodes)


def _only(kernel: Kernel) -> tuple[Blocks, str]:
    """The grid of a kernel that has one, and the name of its function."""
    ((name, grid),) = _grids(kernel)
    return grid, name


def _launch_of_parts(name: str, group: Sequence[Step], parts: Sequence[_Function]) -> Launch:
    blocks = {part.kernel.name: part.grid.extents[0] for part in parts}
    return Launch(
        name,
        (sum(blocks[step.kernel] for step in group), 1, 1),
        (max(part.threads for part in parts), 1, 1),
        0,
        tuple(argument for step in group for argument in step.arguments),
        tuple(node for step in group for node in step.nodes),
        len(group),
    )


def _text_of_parts(name: str, group: Sequence[Step], parts: Sequence[_Function]) -> str:
    """One function for several steps: blocks are numbered kernel after kernel, and those of one
    kernel step after step."""
    threads = max(part.threads for part in parts)
    by_name = {part.kernel.name: part for part in parts}
    parameters = [
        by_name[step.kernel].parameter(buffer, f"s{number}_{buffer.name}")
        for number, step in enumerate(group)
        for buffer in by_name[step.kernel].kernel.buffers
    ]
    head = f'extern "C" __global__ void __launch_bounds__({threads}) {name}'
    lines = [f"{head}({', '.join(parameters)}) {{"]
    first = 0
    for part in parts:
        own = [number for number, step in enumerate(group) if step.kernel == part.kernel.name]
        lines += part.as_part(first, own, threads)
        first += part.grid.extents[0] * len(own)
    return "\n".join((*lines, "}\n"))


def threads_of(grid: Blocks) -> Threads:
    """What a block consists of."""
    (threads,) = grid.body
    if not isinstance(threads, Threads):
        raise KernelError(f"blocks of {type(threads).__name__}")
    return threads


def _along(extents: Sequence[int]) -> Three:
    """Extents along x, y and z: the last one is x."""
    x, y, z = (*reversed(extents), 1, 1, 1)[:3]
    return x, y, z


def _is_flat(grid: Blocks) -> bool:
    """Whether the blocks are too many along some axis, and are numbered along x."""
    return any(n > most for n, most in zip(_along(grid.extents), _GRID_LIMITS, strict=True))


def _grid(grid: Blocks) -> Three:
    return (math.prod(grid.extents), 1, 1) if _is_flat(grid) else _along(grid.extents)


def _shared_bytes(grid: Blocks) -> int:
    return sum(size for _, size in _shared_places(grid).values())


def _is_asked_for(grid: Blocks) -> bool:
    """Whether the launch asks for the shared memory: what a function may not declare, and what
    products of warp groups read."""
    return _shared_bytes(grid) > _STATIC_SHARED or _alignment(grid) > _ALIGNMENT


def _alignment(grid: Blocks) -> int:
    return max((_ALIGNMENT, *(buffer.alignment for buffer in grid.shared)))


def _shared_places(grid: Blocks) -> dict[str, tuple[int, int]]:
    """(offset, bytes up to the next) of each shared buffer."""
    found: dict[str, tuple[int, int]] = {}
    offset = 0
    for buffer in grid.shared:
        step = max(_SHARED_ALIGNMENT, buffer.alignment)
        size = -(-buffer.size * buffer.dtype.bytes // step) * step
        found[buffer.name] = offset, size
        offset += size
    return found


def _is_pair(value: Value) -> bool:
    """Whether two f32 become two halves."""
    if not isinstance(value, Cast) or value.x.type.dtype is not DType.F32:
        return False
    return value.type.lanes == 2 and value.type.dtype in HALVES


class _Function(ValuePrinter):
    """One grid as a function."""

    def __init__(self, kernel: Kernel, grid: Blocks, name: str, apart: bool) -> None:
        super().__init__()
        self.kernel = kernel
        self.grid = grid
        self.name = name
        self.apart = apart
        self.threads = math.prod(threads_of(grid).extents)

    def text(self) -> str:
        """The whole function."""
        self.shared()
        self.counters("blockIdx", self.grid.vars, self.grid.extents, flat=_is_flat(self.grid))
        threads = threads_of(self.grid)
        self.counters("threadIdx", threads.vars, threads.extents, flat=False)
        for registers in self.kernel.registers:
            count = registers.count * registers.type.lanes
            self.put(f"{TYPES[registers.type.dtype]} {name_of(registers.name)}[{count}];")
        self.body(threads.body)
        parameters = ", ".join(map(self.parameter, self.kernel.buffers))
        head = f'extern "C" __global__ void __launch_bounds__({self.threads}) {self.name}'
        return "\n".join((f"{head}({parameters}) {{", *self.lines, "}\n"))

    def as_part(self, first: int, steps: Sequence[int], threads: int) -> list[str]:
        """The body for the blocks from a first one on, of steps with these numbers; `threads` are
        those of a block, of which there may be more than its own."""
        (blocks,), own = self.grid.extents, threads_of(self.grid)
        last = first + blocks * len(steps)
        tests = [f"(int)blockIdx.x >= {first}", f"(int)blockIdx.x < {last}"]
        if self.threads < threads:
            tests.append(f"(int)threadIdx.x < {self.threads}")
        self.put(f"if ({' && '.join(tests)}) {{")
        self.depth += 1
        self.put(f"const int step = ((int)blockIdx.x - {first}) / {blocks};")
        if blocks > 1:
            var = name_of(self.grid.vars[0].name)
            self.put(f"const int {var} = (int)blockIdx.x - {first} - step * {blocks};")
        self.counters("threadIdx", own.vars, own.extents, flat=False)
        for buffer in self.kernel.buffers:
            *names, chosen = (name_of(f"s{number}_{buffer.name}") for number in steps)
            for number, other in reversed(list(enumerate(names))):
                chosen = f"step == {number} ? {other} : {chosen}"
            constant = "" if buffer.written else "const "
            self.put(
                f"{constant}{IN_MEMORY[buffer.dtype]}* const {name_of(buffer.name)} = {chosen};"
            )
        self.body(own.body)
        self.depth -= 1
        self.put("}")
        return self.lines

    def parameter(self, buffer: Buffer, name: str = "") -> str:
        """A pointer, by default called as the buffer is."""
        constant = "" if buffer.written else "const "
        restrict = "__restrict__ " if self.apart else ""
        return f"{constant}{IN_MEMORY[buffer.dtype]}* {restrict}{name_of(name or buffer.name)}"

    def shared(self) -> None:
        """Declarations of shared memory, or places in what the launch asks for."""
        dynamic = _is_asked_for(self.grid)
        if dynamic:
            self.put(f"extern __shared__ __align__({_alignment(self.grid)}) u8 shared[];")
        for buffer in self.grid.shared:
            type, name = IN_MEMORY[buffer.dtype], name_of(buffer.name)
            if dynamic:
                offset, _ = _shared_places(self.grid)[buffer.name]
                self.put(f"{type}* const {name} = ({type}*)(shared + {offset});")
            else:
                step = max(_SHARED_ALIGNMENT, buffer.alignment)
                self.put(f"__shared__ __align__({step}) {type} {name}[{buffer.size}];")

    def counters(
        self, of: str, loop_vars: Sequence[LoopVar], extents: Sequence[int], *, flat: bool
    ) -> None:
        """The counters of a grid or a block; of one value they are numbers in indices."""
        inner = 1
        for axis, (var, extent) in enumerate(
            zip(reversed(loop_vars), reversed(extents), strict=False)
        ):
            if extent == 1:
                continue
            text = f"(int){of}.{'xyz'[axis]}"
            if flat:
                text = f"(int){of}.x / {inner} % {extent}"
                inner *= extent
            self.put(f"const int {name_of(var.name)} = {text};")

    def body(self, body: Sequence[Statement]) -> None:
        """Statements in order."""
        for statement in body:
            self.statement(statement)

    def statement(self, statement: Statement) -> None:
        """One statement."""
        match statement:
            case Let():
                self.let(statement)
            case LetIndex():
                self.let_index(statement)
            case Set():
                self.set(statement)
            case Store():
                values, dtype = self.value(statement.value), statement.buffer.dtype
                valid = values if statement.valid is None else values[: statement.valid]
                self.write(statement.buffer, statement.index, valid, dtype)
            case Prefetch():
                pass  # other warps run while one waits
            case For():
                self.loop(statement)
            case If():
                self.branch(statement)
            case Barrier():
                self.put("__syncthreads();")
            case Exchange():
                self.exchange(statement)
            case CopyAsync():
                self.copy(statement)
            case CommitCopies():
                self.put("commit_copies();")
            case WaitCopies():
                self.put(f"wait_copies<{statement.left}>();")
            case Mma():
                self.mma(statement)
            case GroupMma():
                self.group_mma(statement)
            case OpenProducts():
                self.put("open_products();")
            case CommitProducts():
                self.put("commit_products();")
            case WaitProducts():
                self.wait_products(statement)
            case ShowProducts():
                self.put("show_products();")
            case _:
                raise KernelError(f"{self.kernel.name}: {type(statement).__name__} in a thread")

    def let(self, let: Let) -> None:
        """A constant for each lane."""
        dtype = let.var.type.dtype
        names = lanes_of(let.var.name, let.var.type.lanes)
        if let.var.type.lanes == 2 and dtype in HALVES:
            word = f"{name_of(let.var.name)}word"
            self.put(f"const u32 {word} = {self.pair(let.value)};")
            self.words[names[0], names[1]] = word
            values = [f"({TYPES[dtype]}){word}", f"({TYPES[dtype]})({word} >> 16)"]
        else:
            values = self.value(let.value)
            for lane in range(0, len(names) - 1, 2):
                if (values[lane], values[lane + 1]) in self.words:
                    word = self.words[values[lane], values[lane + 1]]
                    self.words[names[lane], names[lane + 1]] = word
        for name, text in zip(names, values, strict=True):
            self.put(f"const {TYPES[dtype]} {name} = {text};")

    def pair(self, value: Value) -> str:
        """Two halves as one register."""
        if isinstance(value, Cast) and _is_pair(value):
            lower, upper = self.value(value.x)
            return f"pair_of_{value.type.dtype}({lower}, {upper})"
        return self.word(*self.value(value))

    def let_index(self, let: LetIndex) -> None:
        """An index that is data, within its range."""
        low, high = let.var.lowest, let.var.highest
        if low == high:
            return
        type = index_type(let.var.i)
        text = f"clamped({self.scalar(let.value)}, {low}, {high})"
        self.put(f"const {type} {name_of(let.var.name)} = ({type}){text};")

    def set(self, statement: Set) -> None:
        """A register; lanes that others of the same register are made of are read first."""
        lanes, dtype = statement.registers.type.lanes, statement.registers.type.dtype
        values = self.value(statement.value)
        if lanes > 1 and any(name_of(statement.registers.name) in text for text in values):
            values = [self.named(text, TYPES[dtype]) for text in values]
        first, name = statement.slot * lanes, name_of(statement.registers.name)
        for lane, text in enumerate(values):
            self.put(f"{name}[{first + lane}] = {text};")

    def loop(self, loop: For) -> None:
        """start <= i < stop."""
        var, type = name_of(loop.var.name), index_type(loop.var.i)
        start, stop = index(loop.start), index(loop.stop)
        once = bounds(loop.start)[1] == loop.var.highest == loop.var.lowest
        if not once:
            self.put("#pragma unroll 1")
        self.put(f"for ({type} {var} = {start}; {var} < {stop}; {var}++) {{")
        self.inside(loop.body)
        self.put("}")

    def branch(self, branch: If) -> None:
        """One of two bodies."""
        self.put(f"if ({self.test(branch.test)[1:-1]}) {{")
        self.inside(branch.then)
        if branch.otherwise:
            self.put("} else {")
            self.inside(branch.otherwise)
        self.put("}")

    def inside(self, body: Sequence[Statement]) -> None:
        """An inner body."""
        self.depth += 1
        self.body(body)
        self.depth -= 1

    def copy(self, copy: CopyAsync) -> None:
        """A copy that goes on behind."""
        element = copy.source.dtype.bytes
        tests = " & ".join(self.tests(copy.guards))  # all of them, rather than branches
        valid = index(copy.valid * element)
        size = f"({tests}) ? {valid} : 0" if tests else valid
        target, source = self.element(copy.target, copy.index), f"{name_of(copy.source.name)}"
        places = f"&{target}, &{source}[{index(copy.source_index)}]"
        self.put(f"copy_async<{copy.elements * element}>({places}, {size});")

    def mma(self, mma: Mma) -> None:
        """A product of a warp."""
        if mma.form.lanes == 1:
            texts = [f"(u32)__float_as_int({self.scalar(v)})" for v in (*mma.a, *mma.b)]
        else:
            texts = [self.pair(value) for value in (*mma.a, *mma.b)]
        name = name_of(mma.sums.name)
        sums = [f"{name}[{mma.slot + i}]" for i in range(SUMS)]
        self.put(f"mma_{str(mma.form).replace('.', '_')}({', '.join([*sums, *texts])});")

    def group_mma(self, mma: GroupMma) -> None:
        """A product of a warp group that goes on behind."""
        factors = (self.element(mma.a, mma.a_index), self.element(mma.b, mma.b_index))
        sums = f"{name_of(mma.sums.name)} + {mma.slot}" if mma.slot else name_of(mma.sums.name)
        given = ", ".join((sums, *(f"&{factor}" for factor in factors)))
        self.put(f"{name_of_form(mma.form)}({given});")

    def wait_products(self, wait: WaitProducts) -> None:
        """Until some groups of products are left; where none is, sums may be read from there on."""
        self.put(f"wait_products<{wait.left}>();")
        made = (s for s in walk_statements(self.kernel.body) if isinstance(s, GroupMma))
        for sums in dict.fromkeys(s.sums for s in made) if wait.left == 0 else ():
            self.put(f"settled<{sums.count}>({name_of(sums.name)});")

    def exchange(self, exchange: Exchange) -> None:
        """Values handed around a group of lanes of a warp."""
        if exchange.group > WARP:
            raise KernelError(f"{self.kernel.name}: an exchange of {exchange.group} threads")
        dtype = exchange.var.type.dtype
        names = lanes_of(exchange.var.name, exchange.var.type.lanes)
        warp = "0xffffffffu" if self.threads % WARP == 0 else "__activemask()"
        for name, text in zip(names, self.value(exchange.value), strict=True):
            sent = f"(int){text}" if dtype.bytes < 4 else text
            call = f"__shfl_xor_sync({warp}, {sent}, {exchange.mask}, {exchange.group})"
            got = f"({call} != 0)" if dtype is DType.BOOL else f"({TYPES[dtype]}){call}"
            self.put(f"const {TYPES[dtype]} {name} = {got};")
