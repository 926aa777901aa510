"""Strings the stages together: text -> graph -> passes -> kernels -> machine code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from convdsl import __version__
from convdsl.analysis.report import analyse
from convdsl.analysis.samples import samples_are_apart
from convdsl.autodiff import backward
from convdsl.autodiff.text import format_backward
from convdsl.bound import arrays_of, bind_weights, facts_of
from convdsl.calling import suggests
from convdsl.compilation import Maker, Plan, Tuner
from convdsl.diagnostics import InputError, expect
from convdsl.ir.graph import Graph, StateNode
from convdsl.ir.model import Model
from convdsl.ir.text import format_graph
from convdsl.ir.timing import bound_nodes
from convdsl.kernel.expr import format_tensor_expr
from convdsl.kernel.plain import format_plain
from convdsl.kernel.program import Port, Program, format_program
from convdsl.kernel.signature import Binding, input_symbols, one_sample
from convdsl.kernel.text import format_kernel
from convdsl.loading import load
from convdsl.passes import PASSES, Observer, Pass, check_passes
from convdsl.passes import run as run_passes
from convdsl.ranks import ALONE, Ranks
from convdsl.runtime.cache import ObjectCache
from convdsl.runtime.code import Code
from convdsl.runtime.cpu.code import LoadedCode
from convdsl.runtime.cpu.common import Common, open_common
from convdsl.runtime.cpu.team import team_size
from convdsl.runtime.device import HOST, Device
from convdsl.runtime.executable import Executable, Facts, Runner, Values
from convdsl.runtime.programs import Made, Signature
from convdsl.runtime.saved import save_programs
from convdsl.runtime.state import State
from convdsl.runtime.targets import KINDS, find_device
from convdsl.sizes import Shapes, bind, ports_of
from convdsl.toolchain import FEWER_PRODUCTS, Toolchain, find_toolchain

LEVELS = (
    *("graph", "gradient", "expr", "loops"),
    *("llvm", "asm", "object"),
    *("cuda", "ptx", "cubin", "sass"),
)
"""What `emit` can show, from the text down: of any target, of processors, of cards."""

_ONLY = {"cuda": "cuda", "ptx": "cuda", "cubin": "cuda", "sass": "cuda"}
"""The target of levels that only one has, where nothing else is said."""


# Compiling


@suggests
def compile(
    model: Model | str | Path,
    weights: Any = None,
    target: str | None = None,
    threads: int | None = None,
    cpu: str = "native",
    inputs: Shapes = None,
    *,
    device: str | None = None,
    arch: str | None = None,
    precision: str = "highest",
    batch: int | None = None,
    symbols: Mapping[str, int] | None = None,
    passes: tuple[Pass, ...] = PASSES,
    verify: bool = False,
    observer: Observer | None = None,
    cache: bool = True,
    tuner: Tuner | None = None,
    winograd: bool = True,
    ranks: Ranks = ALONE,
) -> Executable:
    """A callable network.

    weights: a file (safetensors, .npz, PyTorch checkpoint), `random:SEED`, or arrays by name.
    device: where to run: `cpu`, `cuda`, `cuda:1`; it must be there.
    target: what code is made for, `cpu` or `cuda`, by default what the device runs. Code for a card
    is made without one, to be saved.
    threads: size of the team, by default the processors that this process may use.
    cpu: `native` or a name that LLVM knows (x86-64-v3, skylake, ...).
    arch: of the card that code is made for (sm_80, ...); by default that of the device, or sm_90.
    precision: of products of f32 on a card: `highest` (f32), `high` (TF32) or `medium` (bf16).
    inputs: input shapes to compile for at once, as one tuple or by name; without it the first
    call does.
    winograd: whether convolutions may be computed with fewer products, whose rounding errors are
    larger (docs/performance.md).
    tuner: what convdsl.tuner returns: tries schedules out before code is made for new sizes.
    ranks: the job whose processes all run the model, where it has sums over ranks.
    Raises convdsl.Error.
    """
    model = model if isinstance(model, Model) else load(model)
    check_passes(passes, observer)
    for what, said in (("verify", verify), ("cache", cache)):
        expect(what, said, bool, int)
    place, made_for, processor = _where(device, target, cpu, arch)
    chain = _toolchain(made_for, processor, precision, winograd)
    team = team_size(threads)
    plan = Plan(model, chain, passes, verify, observer, team=team)
    _check_tuner(tuner, made_for)
    bound = bind_weights(model, weights)
    object_cache = ObjectCache() if cache else None
    facts = facts_of(model, bound, winograd)
    maker = Maker(plan, arrays_of(model, bound, weights), object_cache, tuner, team)
    common = _common(model, ranks, team) if place is HOST else None
    state = State(_changing(model), bound.arrays, place if common is None else common)

    def specialise(binding: Binding, values: Values) -> Runner:
        made = maker.load(binding, values, place)
        made.ranks = ranks
        if isinstance(made, LoadedCode):
            made.common = common
        return made

    def save(bindings: Sequence[Binding], values: Values, path: Path) -> None:
        _save(executable, maker, facts, bindings, values, path)

    outputs = tuple(Port(name, type) for name, type in model.outputs.items())
    executable = Executable(
        *(facts, ports_of(model), outputs, team, specialise, save, model.deciding, state, place),
        apart=lambda: samples_are_apart(model),
    )
    _make_first(executable, bind(model, inputs, batch, symbols), model, inputs)
    return executable


def _make_first(executable: Executable, binding: Binding, model: Model, inputs: Shapes) -> None:
    """Code for the sizes that are said, if it can be made before the first call."""
    if model.deciding:
        return
    if binding.keys() == input_symbols(ports_of(model)).keys():
        executable.runner(binding)
    elif inputs is not None:
        executable.runner(executable.complete(binding))


def _save(
    executable: Executable,
    maker: Maker,
    facts: Facts,
    bindings: Sequence[Binding],
    values: Values,
    path: Path,
) -> None:
    """Write code for some sizes, with weights, states and facts, as one artifact."""
    model, plan = maker.plan.model, maker.plan
    if len(bindings) == 1:
        runner: Any = executable.runner(bindings[0], values)
        made = [(runner.code, runner.weights)]
    else:
        made = maker.make(bindings, values)
    programs = [
        _program(model, code, packed, Signature(tuple(executable.inputs), binding, values))
        for (code, packed), binding in zip(made, bindings, strict=True)
    ]
    made_by = f"convdsl {__version__}, {plan.toolchain.version}"
    held = executable.state.copy()
    said = replace(facts, apart=executable.samples_apart)
    save_programs(path, programs, plan.toolchain.target, said, maker.team, made_by, held)


def _program(model: Model, code: Code, packed: Any, made_for: Signature) -> Made:
    """Code for one size as an artifact keeps it, with the figures of the network there."""
    settled = model.settled(made_for.binding, made_for.values)
    figures = analyse(settled, "all", made_for.binding)
    report = replace(figures, arena_bytes=code.scratch_bytes(1)).to_json()
    return Made(code, packed, made_for, report)


def _check_tuner(tuner: object, made_for: str) -> None:
    """InputError for what is no tuner, and for code that none can time here."""
    if not (tuner is None or callable(tuner)):
        raise InputError(f"the tuner is a {type(tuner).__name__}, not what convdsl.tuner returns")
    if tuner is not None and made_for != "cpu":
        raise InputError("a tuner times schedules on this processor: it tunes code for the CPU")


def _toolchain(target: str, processor: str, precision: str, winograd: bool) -> Toolchain[Any]:
    expect("winograd", winograd, bool)
    chain = find_toolchain(target, processor, precision)
    return chain.without(*(() if winograd else FEWER_PRODUCTS))


def _where(
    device: str | None, target: str | None, cpu: str, arch: str | None
) -> tuple[Device, str, str]:
    """Where code runs, what it is made for, and for which processor or card of that kind."""
    for what, said in (("the device", device), ("the target", target), ("the arch", arch)):
        expect(what, "" if said is None else said, str)
    if device is None:
        made_for = target or "cpu"
        place = find_device(made_for)[1] if made_for in KINDS else HOST
        return place, made_for, _processor(made_for, cpu, arch)
    made_for, place = find_device(device)
    if target not in (None, made_for):
        raise InputError(f"code for target {target} does not run on device {device}")
    arch = arch or KINDS[made_for].arch(place)
    return place, made_for, _processor(made_for, cpu, arch)


def _common(model: Model, ranks: Ranks, team: int) -> Common | None:
    """What ranks have together of the states that the model replaces by sums over them."""
    sums = any(node.op.exchanges for node in model.graph.op_nodes())
    return open_common(ranks, _changing(model), team) if sums else None


def _changing(model: Model) -> list[Port]:
    """What calls change."""
    return [Port(key, value.type) for key, value in model.graph.updates.items()]


# Looking


@suggests
def emit(
    model: Model | str | Path,
    level: str,
    *,
    inputs: Shapes = None,
    batch: int | None = None,
    symbols: Mapping[str, int] | None = None,
    target: str | None = None,
    cpu: str = "native",
    arch: str | None = None,
    precision: str = "highest",
    passes: tuple[Pass, ...] = PASSES,
    verify: bool = False,
    observer: Observer | None = None,
    winograd: bool = True,
    of: str | None = None,
    wrt: str | Iterable[str] | None = None,
    plain: bool = False,
) -> str | bytes:
    """One level of the way down: graph | expr | loops as text; of a processor llvm | asm as text,
    object as bytes; of a card, of which `arch` says which, cuda | ptx | sass as text, cubin as
    bytes; or the backward graph, `gradient`, of the output `of` by `wrt`, as `convdsl.gradient`
    takes them: as differentiation makes it, before the passes.

    These and `graph` and `expr` keep symbols that are not bound; the levels below need all sizes
    (the batch is 1 unless said). `plain` loops are those of each operator before anything decides
    on tiles, vectors and threads: for people.
    """
    if level not in LEVELS:
        raise InputError(f"no level is called {level}; there are {', '.join(LEVELS)}")
    if level != "gradient" and (of is not None or wrt is not None):
        raise InputError(f"of and wrt say what the gradient is; they play no part in {level}")
    if plain and level != "loops":
        raise InputError(f"plain loops are a form of the level loops, not of {level}")
    model = model if isinstance(model, Model) else load(model)
    check_passes(passes, observer)
    binding = bind(model, inputs, batch, symbols)
    if level == "gradient":
        settled = model.settled(binding)
        bound = replace(settled, graph=settled.graph.bind(binding))
        return format_backward(*backward(bound, of, wrt))
    if level in ("graph", "expr") or plain:
        graph = model.settled(binding).graph.bind(binding)
        graph = run_passes(graph, passes, verify=verify, observer=observer)
        if plain:
            return _format_plain(graph)
        return format_graph(graph) if level == "graph" else _format_expressions(graph)
    one_sample(binding, input_symbols(ports_of(model)))
    target = target or _ONLY.get(level, "cpu")
    chain = _toolchain(target, _processor(target, cpu, arch), precision, winograd)
    if level != "loops" and level not in chain.levels:
        raise InputError(
            f"{target} has no {level}; below its loops there are {', '.join(chain.levels)}"
        )
    program = Plan(model, chain, passes, verify, observer).lower(binding).program
    return _format_loops(program) if level == "loops" else chain.levels[level](program)


def _processor(target: str, cpu: str, arch: str | None) -> str:
    """Which processor, or which card, of a target. InputError where that is of the other."""
    if target != "cuda" and arch is not None:
        raise InputError(f"arch {arch} says which card code is for: target cuda")
    if target == "cuda" and cpu != "native":
        raise InputError(f"cpu {cpu} says which processor code is for; arch says which card")
    return (arch or "native") if target == "cuda" else cpu


def _format_expressions(graph: Any) -> str:
    parts: list[str] = []
    for node in graph.op_nodes():
        kernel = format_tensor_expr(node.call.kernel).replace("\n", "\n    ")
        parts.append(f"{node.name} = {node.op.name}\n    {kernel}")
    return "\n\n".join(parts)


def _format_plain(graph: Graph) -> str:
    """Each operator's loops, under the names that values have in the graph: those of the network,
    then those of what is made of weights once."""
    early = bound_nodes(graph)
    parts: list[str] = []
    for node in sorted(graph.op_nodes(), key=lambda node: node.id in early):
        call = node.call
        names = {operand: value.name for operand, value in node.inputs.items()}
        names |= dict(zip(call.output_names, (v.name for v in node.outputs), strict=True))
        when = ", once, when weights are bound" if node.id in early else ""
        flowing = {name for name, v in node.inputs.items() if not isinstance(v.node, StateNode)}
        loops = format_plain(call.kernel, names, flowing)
        parts.append(f"# {node.op.name}{when}\n{loops}")
    return "\n\n".join(parts) + "\n"


def _format_loops(program: Program) -> str:
    kernels = (format_kernel(kernel) for kernel in program.kernels)
    return "\n\n".join([format_program(program), *kernels])
