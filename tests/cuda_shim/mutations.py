"""Mistakes in loop IR: one at a time, at every place of a kernel where it can be made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from convdsl.kernel.nodes import (
    Barrier,
    Blocks,
    CommitCopies,
    CommitProducts,
    CopyAsync,
    Exchange,
    For,
    GroupMma,
    If,
    IndexTest,
    Kernel,
    Let,
    Load,
    LoopVar,
    Mma,
    OpenProducts,
    Set,
    ShowProducts,
    Space,
    Statement,
    Store,
    Threads,
    WaitCopies,
    WaitProducts,
)
from convdsl.tensor import Dim, substitute, symbols_of
from convdsl.tensor.dim import terms_of

Body = tuple[Statement, ...]


@dataclass(frozen=True)
class Mutant:
    """A kernel with one mistake. `kind` says which, `place` is its number among those."""

    kind: str
    place: int
    kernel: Kernel


@dataclass(frozen=True)
class _Scope:
    """Counters around a statement, outer ones first."""

    blocks: tuple[LoopVar, ...] = ()
    threads: tuple[LoopVar, ...] = ()
    loops: tuple[LoopVar, ...] = ()


def mutants(kernel: Kernel) -> list[Mutant]:
    """All of them, numbered within each kind."""
    counts: dict[str, int] = {}
    made: list[Mutant] = []
    for kind, body in _bodies(kernel.body, _Scope()):
        counts[kind] = counts.get(kind, 0) + 1
        name = f"{kernel.name}_m{len(made)}"
        made.append(Mutant(kind, counts[kind], replace(kernel, name=name, body=body)))
    return made


def _bodies(body: Body, scope: _Scope) -> Iterator[tuple[str, Body]]:
    for at, statement in enumerate(body):
        before, after = body[:at], body[at + 1 :]
        for kind, changed in _changes(statement, scope):
            yield kind, (*before, *changed, *after)
        for kind, inner in _inside(statement, scope):
            yield kind, (*before, inner, *after)


def _inside(statement: Statement, scope: _Scope) -> Iterator[tuple[str, Statement]]:
    match statement:
        case Blocks():
            scope = replace(scope, blocks=statement.vars)
        case Threads():
            scope = replace(scope, threads=statement.vars)
        case For():
            scope = replace(scope, loops=(*scope.loops, statement.var))
        case If():
            for kind, then in _bodies(statement.then, scope):
                yield kind, replace(statement, then=then)
            for kind, otherwise in _bodies(statement.otherwise, scope):
                yield kind, replace(statement, otherwise=otherwise)
            return
        case _:
            return
    for kind, body in _bodies(statement.body, scope):
        yield kind, replace(statement, body=body)


def _changes(statement: Statement, scope: _Scope) -> Iterator[tuple[str, Body]]:
    """What may be written in the place of one statement."""
    match statement:
        case Barrier():
            yield "barrier left out", ()
            if scope.threads and scope.threads[-1].highest:
                first = IndexTest("lt", scope.threads[-1].i, 1)
                yield "barrier in a branch", (If(first, (statement,)),)
        case Store():
            yield from _of_store(statement, scope)
        case For():
            yield "a round too many", (replace(statement, stop=statement.stop + 1),)
            yield "a round too few", (replace(statement, stop=statement.stop - 1),)
        case If():
            yield "test left out", statement.then
        case Exchange() if statement.group > 2:
            other = statement.mask * 2 if statement.mask * 2 < statement.group else 1
            if other != statement.mask:
                yield "another lane", (replace(statement, mask=other),)
        case Mma():
            a, b = statement.a, statement.b
            yield "rows of a fragment exchanged", (replace(statement, a=(a[1], a[0], *a[2:])),)
            if len(b) > 1:
                yield "columns of a fragment exchanged", (replace(statement, b=(b[1], b[0])),)
        case GroupMma():
            yield from _of_product(statement, scope)
        case OpenProducts():
            yield "products not opened", ()
        case CommitProducts():
            yield "products not committed", ()
        case WaitProducts():
            yield "wait for products off by one", (WaitProducts(statement.left + 1),)
            yield "wait for products left out", ()
        case ShowProducts():
            yield "not shown to products", ()
        case CopyAsync():
            yield from _of_copy(statement, scope)
        case CommitCopies():
            yield "commit left out", ()
        case WaitCopies():
            yield "wait off by one", (WaitCopies(statement.left + 1),)
            yield "wait left out", ()
        case _:
            pass
    if isinstance(statement, Store | Let | Set | Exchange):
        for kind, value in _of_loads(statement.value, scope):
            yield kind, (replace(statement, value=value),)
    if isinstance(statement, Mma):
        for part in ("a", "b"):
            values = getattr(statement, part)
            for n, value in enumerate(values):
                for kind, made in _of_loads(value, scope):
                    yield (
                        kind,
                        (replace(statement, **{part: (*values[:n], made, *values[n + 1 :])}),),
                    )


def _of_store(store: Store, scope: _Scope) -> Iterator[tuple[str, Body]]:
    where = "shared" if store.buffer.space is Space.SHARED else "global"
    yield f"{where} store left out", ()
    yield f"{where} store one further", (replace(store, index=store.index + 1),)
    past = store.buffer.size + 0 * store.index
    yield f"{where} store past the end", (replace(store, index=store.index + past),)
    for what, index in _collapsed(store.index, scope):
        yield f"{what} store to one place", (replace(store, index=index),)


def _of_product(mma: GroupMma, scope: _Scope) -> Iterator[tuple[str, Body]]:
    yield "product left out", ()
    for part in ("a_index", "b_index"):
        index = getattr(mma, part)
        yield "product of other depths", (replace(mma, **{part: _other_depth(index, mma)}),)
        for var in scope.loops:
            moved = substitute(index, {var.name: var.i + 1})
            if moved != index:
                yield "product of another stage", (replace(mma, **{part: moved}),)


def _other_depth(index: Dim, mma: GroupMma) -> Dim:
    """The next one of those that products take of a line, or the first one."""
    (constant,) = [c for m, c in terms_of(index) if not m] or [0]
    step = mma.form.at(0, mma.form.k)
    whole = mma.form.at(0, mma.form.line)  # depths of a step
    last = constant % whole == whole - step
    return index + (step - whole if last else step)


def _of_copy(copy: CopyAsync, scope: _Scope) -> Iterator[tuple[str, Body]]:
    n = copy.elements
    yield "copy left out", ()
    yield "copy one piece further", (replace(copy, index=copy.index + n),)
    yield "copy of the next piece", (replace(copy, source_index=copy.source_index + n),)
    yield "copy past the end", (replace(copy, source_index=copy.source_index + copy.source.size),)
    if copy.guards:
        yield "guard of a copy left out", (replace(copy, guards=copy.guards[1:]),)
    if not isinstance(copy.valid, int):
        yield "end of a row forgotten", (replace(copy, valid=n),)
    for what, index in _collapsed(copy.index, scope):
        yield f"{what} copy to one place", (replace(copy, index=index),)
    for var in scope.loops:
        moved = substitute(copy.index, {var.name: var.i + 1})
        if moved != copy.index:
            yield "copy to another stage", (replace(copy, index=moved),)


def _collapsed(index: Dim, scope: _Scope) -> Iterator[tuple[str, Dim]]:
    """The index without the last counter of threads, or of blocks, that it moves with."""
    for what, counters in (("threads", scope.threads), ("blocks", scope.blocks)):
        used = [v for v in counters if v.name in _names(index)]
        if used:
            yield what, substitute(index, {used[-1].name: 0})


def _names(index: Dim) -> set[str]:
    return {symbol.name for symbol in symbols_of(index)}


def _of_loads(value: Any, scope: _Scope) -> Iterator[tuple[str, Any]]:
    """The value with one of its loads changed."""
    if isinstance(value, Load):
        where = "shared" if value.buffer.space is Space.SHARED else "global"
        step = value.type.lanes
        yield f"{where} load one further", replace(value, index=value.index + step)
        yield f"{where} load past the end", replace(value, index=value.index + value.buffer.size)
        if value.guards:
            yield "guard of a load left out", replace(value, guards=value.guards[1:])
        for var in scope.loops if where == "shared" else ():
            moved = substitute(value.index, {var.name: var.i + 1})
            if moved != value.index and _names(moved) != _names(value.index):
                yield "load from another stage", replace(value, index=moved)
        return
    if not is_dataclass(value) or isinstance(value, IndexTest):
        return
    for field in fields(value):
        part = getattr(value, field.name)
        members = part if isinstance(part, tuple) else (part,)
        for n, member in enumerate(members):
            if not is_dataclass(member):
                continue
            for kind, made in _of_loads(member, scope):
                whole = (*members[:n], made, *members[n + 1 :])
                yield (
                    kind,
                    replace(value, **{field.name: whole if isinstance(part, tuple) else made}),
                )


Verdict = Callable[[Kernel], str | None]
"""What says which mistake was seen, None where none was."""
