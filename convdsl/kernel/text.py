"""The loop IR as text: what `--emit loops` shows."""

from __future__ import annotations

from convdsl.kernel.mma import SUMS
from convdsl.kernel.nodes import (
    Barrier,
    Binary,
    Blocks,
    Buffer,
    Cast,
    CommitCopies,
    CommitProducts,
    Compare,
    Const,
    CopyAsync,
    Exchange,
    Fma,
    For,
    Gather,
    Get,
    GroupMma,
    If,
    IndexAsValue,
    IndexTest,
    Kernel,
    Lane,
    Let,
    LetIndex,
    Load,
    LoopVar,
    Mma,
    OpenProducts,
    Parallel,
    Prefetch,
    ReduceLanes,
    Select,
    Set,
    ShowProducts,
    Shuffle,
    Space,
    Splat,
    Statement,
    Store,
    Threads,
    Unary,
    Value,
    Var,
    WaitCopies,
    WaitProducts,
)
from convdsl.kernel.scalar import FUNCTIONS


def format_kernel(kernel: Kernel) -> str:
    """A kernel with its buffers, registers and loops."""
    lines = [f"kernel {kernel.name}"]
    for buffer in kernel.buffers:
        word = "out" if buffer.written else "in"
        word = "own" if buffer.space is Space.PRIVATE else word
        lines.append(f"  {word} {buffer.name}: {buffer.dtype}[{buffer.size}]")
    lines += [f"  registers {r.name}: {r.type}[{r.count}]" for r in kernel.registers]
    lines += format_body(kernel.body, 1)
    return "\n".join(lines)


def format_body(body: tuple[Statement, ...], depth: int) -> list[str]:
    """The lines of a body, indented by `depth` steps."""
    return [line for statement in body for line in _format_statement(statement, depth)]


def _format_statement(statement: Statement, depth: int) -> list[str]:
    pad = "  " * depth
    match statement:
        case Let():
            return [f"{pad}{statement.var.name} = {format_value(statement.value)}"]
        case LetIndex():
            var = statement.var
            found = format_value(statement.value)
            return [f"{pad}{var.name} = {found} within {var.lowest} .. {var.highest}"]
        case Set():
            at = f"{statement.registers.name}[{statement.slot}]"
            return [f"{pad}{at} = {format_value(statement.value)}"]
        case Store():
            lanes = statement.value.type.lanes if statement.valid is None else statement.valid
            at = _span(statement.index, lanes)
            return [f"{pad}{statement.buffer.name}[{at}] = {format_value(statement.value)}"]
        case Prefetch():
            return [f"{pad}prefetch L{statement.level} {statement.buffer.name}[{statement.index}]"]
        case For():
            head = f"{pad}for {statement.var.name} in {statement.start} .. {statement.stop}"
            return [head, *format_body(statement.body, depth + 1)]
        case Parallel() | Blocks() | Threads():
            ranges = _ranges(statement.vars, statement.extents)
            lines = [f"{pad}{type(statement).__name__.lower()} {ranges}"]
            if isinstance(statement, Blocks):
                lines += [f"{pad}  {_format_shared(buffer)}" for buffer in statement.shared]
            return lines + format_body(statement.body, depth + 1)
        case Barrier():
            return [f"{pad}barrier"]
        case Exchange():
            meeting = f"{format_value(statement.value)}, {statement.mask} of {statement.group}"
            return [f"{pad}{statement.var.name} = exchange({meeting})"]
        case Mma():
            a, b = (", ".join(map(format_value, factor)) for factor in (statement.a, statement.b))
            at = f"{statement.sums.name}[{statement.slot} : {SUMS}]"
            return [f"{pad}{at} += mma {statement.form} ({a}) ({b})"]
        case GroupMma():
            return [f"{pad}{_format_product(statement)}"]
        case OpenProducts():
            return [f"{pad}open products"]
        case CommitProducts():
            return [f"{pad}commit products"]
        case WaitProducts():
            return [f"{pad}wait until {statement.left} products are left"]
        case ShowProducts():
            return [f"{pad}show products"]
        case CopyAsync():
            return [f"{pad}copy {_format_copy(statement)}"]
        case CommitCopies():
            return [f"{pad}commit copies"]
        case WaitCopies():
            return [f"{pad}wait until {statement.left} copies are left"]
        case If():
            lines = [f"{pad}if {format_value(statement.test)}"]
            lines += format_body(statement.then, depth + 1)
            if statement.otherwise:
                lines += [f"{pad}else", *format_body(statement.otherwise, depth + 1)]
            return lines


def _ranges(loop_vars: tuple[LoopVar, ...], extents: tuple[int, ...]) -> str:
    return ", ".join(f"{v.name} < {n}" for v, n in zip(loop_vars, extents, strict=True))


def _format_shared(buffer: Buffer) -> str:
    text = f"shared {buffer.name}: {buffer.dtype}[{buffer.size}]"
    return f"{text} align {buffer.alignment}" if buffer.alignment else text


def _format_product(product: GroupMma) -> str:
    sums = f"{product.sums.name}[{product.slot} : {product.form.sums}]"
    a, b = f"{product.a.name}[{product.a_index}]", f"{product.b.name}[{product.b_index}]"
    return f"{sums} += mma {product.form} {a} {b}, behind"


def _format_copy(copy: CopyAsync) -> str:
    target = f"{copy.target.name}[{_span(copy.index, copy.elements)}]"
    source = f"{copy.source.name}[{_span(copy.source_index, copy.elements)}]"
    only = "" if copy.valid == copy.elements else f", {copy.valid} of them"
    tests = " and ".join(map(format_value, copy.guards))
    return f"{target} <- {source}{only}{f' if {tests} else 0' if tests else ''}"


def _span(index: object, lanes: int) -> str:
    return str(index) if lanes == 1 else f"{index} : {lanes}"


def format_value(value: Value) -> str:
    """A value as one line."""
    match value:
        case Const():
            return str(value.value)
        case Var():
            return value.name
        case Load():
            text = f"{value.buffer.name}[{_span(value.index, value.count)}]"
            text += " afresh" * value.afresh
            if value.guards:
                tests = " and ".join(format_value(guard) for guard in value.guards)
                return f"({text} if {tests} else {value.otherwise})"
            return text
        case Gather():
            return f"<{', '.join(map(format_value, value.lanes))}>"
        case Lane():
            return f"{format_value(value.x)}<{value.lane}>"
        case Shuffle():
            lanes = " ".join(map(str, value.lanes))
            return f"shuffle({format_value(value.a)}, {format_value(value.b)}, {lanes})"
        case Get():
            return f"{value.registers.name}[{value.slot}]"
        case Unary():
            return f"{value.op}({format_value(value.x)})"
        case Binary() | Compare():
            a, b, sign = format_value(value.a), format_value(value.b), FUNCTIONS[value.op].sign
            return f"{value.op}({a}, {b})" if sign is None else f"({a} {sign} {b})"
        case Fma():
            return f"fma({', '.join(map(format_value, (value.a, value.b, value.c)))})"
        case Select():
            parts = (value.condition, value.yes, value.no)
            return f"select({', '.join(map(format_value, parts))})"
        case Cast():
            return f"{value.type}({format_value(value.x)})"
        case Splat():
            return f"splat({format_value(value.x)})"
        case IndexAsValue():
            step = f" + lane*{value.step}" if value.type.lanes > 1 else ""
            return f"{value.type}({value.index}{step})"
        case IndexTest():
            return f"{value.a} {FUNCTIONS[value.op].sign} {value.b}"
        case ReduceLanes():
            return f"reduce_{value.op}({format_value(value.x)})"
