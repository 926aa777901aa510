"""A name that means nothing where it stands: what may have been meant, and where it is bound."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from convdsl.diagnostics import Span
from convdsl.elaborate import foreign
from convdsl.elaborate.builtins import BUILTINS
from convdsl.elaborate.scope import Context
from convdsl.elaborate.session import Session, suggest
from convdsl.elaborate.values import SPELLED, Builtin, describe
from convdsl.ir.techniques import LOSSES
from convdsl.syntax import ast
from convdsl.syntax.walk import nodes

IMAGE = "input {}: f32[N, 3, 224, 224]"


def explain(
    session: Session, node: ast.Name, context: Context, words: frozenset[str]
) -> tuple[tuple[tuple[Span, str], ...], tuple[str, ...]]:
    """Labels and help for an unknown name, by the first of these that holds: a comment of another
    language, bound elsewhere in the file, a loss, a word of elsewhere, a slip, an input that is not
    declared."""
    before = node.span.source.text[: node.span.start]
    if before.rstrip(" ").endswith("//"):
        return (), ("a comment starts with `#`; `//` divides",)
    after = _BINDS.match(node.span.source.text, node.span.end)
    if after is not None and _begins_a_line(node.span):
        return (), (f"`{after[1]}` binds nothing: write `{node.id} = ...`",)
    tree = session.trees.get(id(node.span.source))
    bound = _bound_elsewhere(tree, node) if tree is not None else None
    if bound is not None:
        return bound
    if node.id in LOSSES:
        return (), (f"losses stand in a block of their own: train {{ loss = {node.id} }}",)
    called = node.span.source.text[node.span.end :].lstrip(" ").startswith("(")
    known = {*context.scope.visible(), *(BUILTINS if called else ()), *SPELLED, *words}
    help = foreign.name(node.id) or suggest(node.id, known)
    half = _HALF_A_SIZE.fullmatch(node.id)
    if not help and half and before.rstrip()[-1:] in ("(", ",", "="):
        help = (f"a size has a number for each axis: {half[1]}x{half[1]}",)
    if not help and node.id in _SIZES and session.graph.inputs:
        said = "in" if context.incoming is not None else next(iter(session.graph.inputs))
        help = (f"no input has a size of this name; of a tensor it is `{said}.{_SIZES[node.id]}`",)
    if not help and _COUNTS.search(before):
        help = (f"with a variable it is `for {node.id} in range(3) {{ ... }}`",)
    if not help and _STARTS.search(before):
        help = ("what a weight starts from is a number, initial(0.5), or a word, `weight = zeros`",)
    if not help and _DECLARED.search(before):
        help = (f"nothing is called so: write `output {node.id} = ...`",)
    if not help:
        help = _behind_a_chain(node)
    if not help and context.root and not session.graph.inputs:
        help = (f"a model declares its inputs: `{IMAGE.format(node.id)}`",)
    return (), help


_SIZES = {
    "N": "batch",
    "B": "batch",
    "C": "channels",
    "H": "height",
    "W": "width",
    "D": "depth",
    "L": "length",
    "T": "length",
}
"""What sizes are called by one letter, and by the language."""

_COUNTS = re.compile(r"\brepeat (?:let |int )?\Z")
_STARTS = re.compile(r"\binitial\( ?\Z")
_DECLARED = re.compile(r"\boutput (?:\w+, ?)*\Z")
_HALF_A_SIZE = re.compile(r"x(\d+)")
_CHAIN = re.compile(r"(?!\s*let\s)(?:\s*(?P<name>[A-Za-z_]\w*)\s*=)?[^={}\n][^{}\n]*->[ \t]*\Z")
_ENDS = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n(?!\s*->)|\Z)")
_BINDS = re.compile(r"[ \t]*(==|<-)")


def hidden(name: str, value: Any) -> tuple[str, ...]:
    """Help where a layer is wanted and its name is bound to something else."""
    if name not in SPELLED and name not in BUILTINS:
        return ()
    if isinstance(value, Builtin) and value.name == name:
        return (foreign.flowing(name, f"{name}(0.5)"),)
    what = "operator" if name in SPELLED else "function"
    return (f"`{name}` is bound to {describe(value)}, which hides the {what}: call it otherwise",)


def _begins_a_line(span: Span) -> bool:
    text = span.source.text
    return not text[text.rfind("\n", 0, span.start) + 1 : span.start].strip()


def _behind_a_chain(node: ast.Name) -> tuple[str, ...]:
    """Help for a name that is the last stage of a chain of one line, which nothing takes."""
    text = node.span.source.text
    line = text[text.rfind("\n", 0, node.span.start) + 1 : node.span.start]
    chain = _CHAIN.match(line)
    if chain is None or not _ENDS.match(text, node.span.end):
        return ()
    if chain["name"]:
        return (f"leave `-> {node.id}` out: what it comes to is called `{chain['name']}` already",)
    return (f"a name stands before what it is of: `{node.id} = ... -> ...`",)


def _bound_elsewhere(
    tree: ast.File, node: ast.Name
) -> tuple[tuple[tuple[Span, str], ...], tuple[str, ...]] | None:
    """Where the file binds the name: later, not always, or in another definition."""
    at, id = node.span.start, node.id
    definitions = [item for item in tree.items if isinstance(item, ast.Block | ast.Model)]
    around = next((d for d in definitions if d.span.start <= at < d.span.end), None)
    own: list[ast.Node] = [i for i in tree.items if isinstance(i, ast.Let)]
    for name, statement in _bindings(around if around is not None else tuple(own), id):
        if statement.span.start <= at < statement.span.end:
            return (), (f"`{id}` has no value yet: bind it first",)
        if name.span.start > at:
            return ((name.span, "bound here"),), (f"bind `{id}` before it is used",)
        help = f"bind `{id}` in every branch, or before the `if` or the loop"
        return ((name.span, "bound here, but not on every way"),), (help,)
    for said in nodes(around) if around is not None else ():
        if isinstance(said, ast.Output) and said.value is node:
            continue
        if isinstance(said, ast.Output | ast.Sink) and said.label.span.text == id:
            help = "an output is a name below the place that puts it out"
            return ((said.label.span, "put out here"),), (help,)
        if isinstance(said, ast.Named) and said.label.span.text == id:
            help = f"bind what comes out of it: `{id} = ...`"
            return ((said.label.span, "the name of a layer and its weights"),), (help,)
    if not isinstance(around, ast.Block):
        return None
    for other in definitions:
        for name, statement in _bindings(other, id):
            label = ((name.span, f"bound in `{other.name.id}` only"),)
            if isinstance(statement, ast.Input):
                return label, ("inside a block, `in` is what flows into it",)
            taken = ", ".join([*(p.name.id for p in around.parameters), id])
            return label, (f"hand it over: `block {around.name.id}({taken})`",)
    return None


def _bindings(
    root: ast.Node | tuple[ast.Node, ...], id: str
) -> Iterator[tuple[ast.Name, ast.Node]]:
    """Names bound as `id` in a definition, and what binds them, in order of the text."""
    for node in nodes(root):
        match node:
            case ast.Let() | ast.Assign():
                names = node.targets
            case ast.Input():
                names = node.names
            case ast.Parameter():
                names = (node.name,)
            case _:
                continue
        yield from ((name, node) for name in names if name.id == id)
