"""What `editing` says, in the types of the protocol."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from lsprotocol import types

from convdsl.diagnostics import Diagnostic, Span
from convdsl.editing.analysis import Analysis
from convdsl.editing.completion import Proposal
from convdsl.editing.describing import Signature
from convdsl.editing.outline import Entry, Fold
from convdsl.editing.places import CallAround
from convdsl.editing.references import Edit, Location
from convdsl.editing.shapes import Hint
from convdsl.editing.symbols import Kind
from convdsl.editing.words import MODIFIERS, TYPES, Coloured
from convdsl.lsp.documents import Documents
from convdsl.lsp.positions import Lines
from convdsl.syntax import ast

_UNUSED = frozenset({"W0201", "W0202"})
"""Findings about what nothing uses, which editors show in grey."""

_SYMBOLS = {
    Kind.BLOCK: types.SymbolKind.Function,
    Kind.MODEL: types.SymbolKind.Class,
    Kind.VALUE: types.SymbolKind.Constant,
    Kind.PARAMETER: types.SymbolKind.TypeParameter,
    Kind.INPUT: types.SymbolKind.Interface,
    Kind.NAME: types.SymbolKind.Variable,
    Kind.OUTPUT: types.SymbolKind.Variable,
    Kind.OPERATOR: types.SymbolKind.Field,
    Kind.PART: types.SymbolKind.Event,
    Kind.SETTING: types.SymbolKind.Property,
    Kind.TECHNIQUE: types.SymbolKind.Module,
}

_ITEMS = {
    Kind.BLOCK: types.CompletionItemKind.Function,
    Kind.MODEL: types.CompletionItemKind.Class,
    Kind.VALUE: types.CompletionItemKind.Constant,
    Kind.ALIAS: types.CompletionItemKind.File,
    Kind.PARAMETER: types.CompletionItemKind.TypeParameter,
    Kind.INPUT: types.CompletionItemKind.Variable,
    Kind.NAME: types.CompletionItemKind.Variable,
    Kind.OUTPUT: types.CompletionItemKind.Variable,
    Kind.OPERATOR: types.CompletionItemKind.Method,
    Kind.ATTRIBUTE: types.CompletionItemKind.Field,
    Kind.FUNCTION: types.CompletionItemKind.Function,
    Kind.CONSTANT: types.CompletionItemKind.Constant,
    Kind.WORD: types.CompletionItemKind.EnumMember,
    Kind.PART: types.CompletionItemKind.Property,
    Kind.DTYPE: types.CompletionItemKind.TypeParameter,
    Kind.SETTING: types.CompletionItemKind.Property,
    Kind.TECHNIQUE: types.CompletionItemKind.Method,
    Kind.STEP: types.CompletionItemKind.Method,
}


# Findings


def findings(documents: Documents, analysis: Analysis, lines: Lines) -> list[types.Diagnostic]:
    """The findings of an analysis, where each can be seen from its own text."""
    return [_finding(documents, analysis, lines, found) for found in analysis.findings]


def _finding(
    documents: Documents, analysis: Analysis, lines: Lines, found: Diagnostic
) -> types.Diagnostic:
    own, elsewhere = _placed(analysis, found)
    labels = [*elsewhere, *((x.span, x.text) for x in found.labels[1:] if x.text)]
    frames = [(f.span, f"in {f.description}") for f in found.frames if f.span is not None]
    related = [_related(documents, span, text) for span, text in [*labels, *frames]]
    error = found.severity == "error"
    label = found.labels[0].text if found.labels else ""
    message = f"{found.message}: {label}" if label else found.message
    notes = [*(f"note: {note}" for note in found.notes), *(f"help: {text}" for text in found.help)]
    return types.Diagnostic(
        range=lines.range(*own),
        message="\n".join([message, *notes]),
        severity=types.DiagnosticSeverity.Error if error else types.DiagnosticSeverity.Warning,
        code=found.code,
        source="convdsl",
        related_information=[one for one in related if one is not None],
        tags=[types.DiagnosticTag.Unnecessary] if found.code in _UNUSED else None,
    )


def _placed(
    analysis: Analysis, found: Diagnostic
) -> tuple[tuple[int, int], list[tuple[Span, str]]]:
    """Where a finding is in the text that was analysed; of one in another file where the way to
    it leaves this one, and then its own place."""
    source = analysis.reading.source
    span = found.span
    if span is None:
        return (0, 0), []
    if span.source is source:
        return (span.start, span.end), []
    there = [(span, found.message)]
    for frame in found.frames:
        if frame.span is not None and frame.span.source is source:
            return (frame.span.start, frame.span.end), there
    for label in found.labels:
        if label.span.source is source:
            return (label.span.start, label.span.end), there
    for item in analysis.reading.tree.items:  # it is wrong wherever it is used: the import
        if isinstance(item, ast.Use) and _is_of(item.path, span):
            return (item.path.span.start, item.path.span.end), there
    return (0, 0), there


def _is_of(path: ast.Text, span: Span) -> bool:
    """Whether an import is, by its name, of the file that a span is in."""
    name = (path.plain or "").rpartition("/")[2].rpartition(":")[2]
    return bool(name) and Path(span.source.path).name == name


def _related(
    documents: Documents, span: Span, text: str
) -> types.DiagnosticRelatedInformation | None:
    location = located(documents, Location(Path(span.source.path), span.start, span.end))
    if location is None:
        return None
    return types.DiagnosticRelatedInformation(location, text)


def located(documents: Documents, location: Location) -> types.Location | None:
    """A place of the project."""
    lines = documents.lines(location.place)
    if lines is None:
        return None
    return types.Location(
        documents.address(location.place), lines.range(location.start, location.end)
    )


# Texts


def text_edits(lines: Lines, edits: Iterable[Edit]) -> list[types.TextEdit]:
    """Edits of a text."""
    return [types.TextEdit(lines.range(e.start, e.end), e.text) for e in edits]


def markdown(text: str) -> types.MarkupContent:
    """Text that is shown as Markdown."""
    return types.MarkupContent(types.MarkupKind.Markdown, text)


def hint(lines: Lines, made: Hint) -> types.InlayHint:
    """A shape beside the text."""
    return types.InlayHint(
        lines.position(made.offset),
        made.label,
        kind=types.InlayHintKind.Type,
        tooltip=markdown(made.tooltip) if made.tooltip else None,
        padding_left=True,
    )


def item(lines: Lines, offset: int, made: Proposal, *, snippets: bool) -> types.CompletionItem:
    """A proposal, with the word that is there replaced."""
    snippet = made.snippet if snippets else ""
    edit = types.TextEdit(lines.range(made.start, offset), snippet or made.inserted)
    style = types.InsertTextFormat
    return types.CompletionItem(
        made.label,
        kind=types.CompletionItemKind.Keyword if made.kind is None else _ITEMS[made.kind],
        detail=made.detail or None,
        documentation=markdown(made.doc) if made.doc else None,
        sort_text=f"{made.order}{made.label}",
        filter_text=made.inserted if made.kind is Kind.ALIAS else made.label,
        insert_text_format=style.Snippet if snippet else style.PlainText,
        text_edit=edit,
    )


def signature_help(call: CallAround, found: Sequence[Signature]) -> types.SignatureHelp:
    """How the call around is called, and which argument comes."""
    made = [
        types.SignatureInformation(
            one.label,
            documentation=markdown(one.doc) if one.doc else None,
            parameters=[
                types.ParameterInformation(s.label, documentation=s.doc or None) for s in one.slots
            ],
        )
        for one in found
    ]
    names = [slot.name for slot in found[0].slots]
    active = names.index(call.keyword) if call.keyword in names else call.position
    return types.SignatureHelp(made, active_signature=0, active_parameter=active)


def entry(lines: Lines, made: Entry) -> types.DocumentSymbol:
    """A definition, and what is inside it."""
    return types.DocumentSymbol(
        made.name,
        _SYMBOLS[made.kind],
        lines.range(*made.whole),
        lines.range(*made.selected),
        detail=made.detail or None,
        children=[entry(lines, inside) for inside in made.inside],
    )


def fold(made: Fold) -> types.FoldingRange:
    """Lines that can be folded."""
    kind = types.FoldingRangeKind.Comment if made.is_comment else None
    return types.FoldingRange(made.first, made.last, kind=kind)


def tokens(lines: Lines, coloured: Iterable[Coloured]) -> types.SemanticTokens:
    """Five numbers a word: lines and columns since the one before, length, type, modifiers."""
    data: list[int] = []
    line = column = 0
    for word in coloured:
        start, end = lines.position(word.start), lines.position(word.end)
        if end.line != start.line or end.character == start.character:
            continue
        modifiers = sum(1 << MODIFIERS.index(name) for name in word.modifiers)
        moved = start.character - (column if start.line == line else 0)
        length = end.character - start.character
        data += [start.line - line, moved, length, TYPES.index(word.type), modifiers]
        line, column = start.line, start.character
    return types.SemanticTokens(data)
