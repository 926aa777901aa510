"""What the server answers: one function for each kind of question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lsprotocol import types
from pygls.exceptions import JsonRpcException

from convdsl.diagnostics import CompileError, Diagnostic, InputError
from convdsl.editing.completion import call_at, complete
from convdsl.editing.hover import hover
from convdsl.editing.mending import mendings
from convdsl.editing.outline import folds, outline
from convdsl.editing.references import (
    Edit,
    Location,
    definitions,
    references,
    renamable,
    rename,
)
from convdsl.editing.shapes import hints
from convdsl.editing.view import View
from convdsl.editing.words import MODIFIERS, TYPES, colours
from convdsl.lsp import conversion
from convdsl.lsp.documents import Document
from convdsl.lsp.formatting import formatting
from convdsl.lsp.server import GLANCE, PATIENCE, WATCHED, Server

REQUEST_FAILED = -32803
"""The protocol's code for a request that is fine and cannot be carried out."""


def register(server: Server) -> None:
    """Tell a server what it answers."""
    _tell(server)
    _look(server)
    _go(server)
    _write(server)
    _change(server)


def _tell(server: Server) -> None:
    """What the client tells besides texts."""

    @server.feature(types.INITIALIZED)
    def initialized(_: types.InitializedParams) -> None:
        workspace = server.client_capabilities.workspace
        watching = workspace.did_change_watched_files if workspace is not None else None
        if watching is None or not watching.dynamic_registration:
            return
        watchers = [types.FileSystemWatcher(pattern) for pattern in WATCHED]
        options = types.DidChangeWatchedFilesRegistrationOptions(watchers)
        method = types.WORKSPACE_DID_CHANGE_WATCHED_FILES
        server.client_register_capability(
            types.RegistrationParams([types.Registration("watching", method, options)])
        )

    @server.feature(types.WORKSPACE_DID_CHANGE_WATCHED_FILES)
    def watched(params: types.DidChangeWatchedFilesParams) -> None:
        from convdsl.lsp.documents import place_of

        for change in params.changes:
            place = place_of(change.uri)
            if place not in server.documents.project.opened:
                server.look_at_readers(place)

    @server.feature(types.SHUTDOWN)
    def shutdown(*_: Any) -> None:
        server.shut_down()


def _look(server: Server) -> None:
    """What is shown of a text."""

    @server.feature(types.TEXT_DOCUMENT_HOVER)
    async def on_hover(params: types.HoverParams) -> types.Hover | None:
        def question(document: Document, view: View) -> types.Hover | None:
            found = hover(view, document.lines.offset(params.position))
            if found is None:
                return None
            range = document.lines.range(found.start, found.end)
            return types.Hover(conversion.markdown(found.text), range)

        return await server.ask(params.text_document.uri, question, patience=GLANCE)

    @server.feature(types.TEXT_DOCUMENT_INLAY_HINT)
    async def on_hints(params: types.InlayHintParams) -> list[types.InlayHint] | None:
        def question(document: Document, view: View) -> list[types.InlayHint]:
            start, end = document.lines.offsets(params.range)
            return [conversion.hint(document.lines, made) for made in hints(view, start, end)]

        patience = GLANCE if server.hints_are_refreshed else PATIENCE
        return await server.ask(params.text_document.uri, question, patience=patience)

    @server.feature(types.TEXT_DOCUMENT_DOCUMENT_SYMBOL)
    async def on_symbols(
        params: types.DocumentSymbolParams,
    ) -> Sequence[types.DocumentSymbol] | None:
        def question(document: Document, view: View) -> list[types.DocumentSymbol]:
            return [conversion.entry(document.lines, entry) for entry in outline(view)]

        return await server.ask(params.text_document.uri, question)

    @server.feature(types.TEXT_DOCUMENT_FOLDING_RANGE)
    async def on_folds(params: types.FoldingRangeParams) -> list[types.FoldingRange] | None:
        document = server.documents.find(params.text_document.uri)
        if document is None:
            return None
        text = document.text
        return await server.answer(lambda: [conversion.fold(made) for made in folds(text)])

    legend = types.SemanticTokensLegend(list(TYPES), list(MODIFIERS))

    @server.feature(types.TEXT_DOCUMENT_SEMANTIC_TOKENS_FULL, legend)
    async def on_tokens(params: types.SemanticTokensParams) -> types.SemanticTokens | None:
        def question(document: Document, view: View) -> types.SemanticTokens:
            return conversion.tokens(document.lines, colours(view))

        return await server.ask(params.text_document.uri, question)

    @server.feature(types.TEXT_DOCUMENT_SEMANTIC_TOKENS_RANGE, legend)
    async def on_tokens_of(
        params: types.SemanticTokensRangeParams,
    ) -> types.SemanticTokens | None:
        def question(document: Document, view: View) -> types.SemanticTokens:
            part = colours(view, *document.lines.offsets(params.range))
            return conversion.tokens(document.lines, part)

        return await server.ask(params.text_document.uri, question)


def _go(server: Server) -> None:
    """Where things are."""

    def located(found: Sequence[Location]) -> list[types.Location]:
        made = (conversion.located(server.documents, location) for location in found)
        return [location for location in made if location is not None]

    @server.feature(types.TEXT_DOCUMENT_DEFINITION)
    async def on_definition(params: types.DefinitionParams) -> list[types.Location] | None:
        def question(document: Document, view: View) -> list[types.Location]:
            return located(definitions(view, document.lines.offset(params.position)))

        return await server.ask(params.text_document.uri, question)

    @server.feature(types.TEXT_DOCUMENT_REFERENCES)
    async def on_references(params: types.ReferenceParams) -> list[types.Location] | None:
        def question(document: Document, view: View) -> list[types.Location]:
            offset = document.lines.offset(params.position)
            found = references(view, offset, server.roots)
            if not params.context.include_declaration:
                own = set(definitions(view, offset))
                found = [location for location in found if location not in own]
            return located(found)

        return await server.ask(params.text_document.uri, question)

    @server.feature(types.TEXT_DOCUMENT_DOCUMENT_HIGHLIGHT)
    async def on_highlight(
        params: types.DocumentHighlightParams,
    ) -> list[types.DocumentHighlight] | None:
        def question(document: Document, view: View) -> list[types.DocumentHighlight]:
            symbols = {o.symbol for o in view.occurrences(document.lines.offset(params.position))}
            same = (o for o in view.names.occurrences if o.symbol in symbols)
            spans = (view.now(o.start, o.end) for o in same)
            ranges = (document.lines.range(*span) for span in spans if span is not None)
            return [types.DocumentHighlight(range) for range in ranges]

        return await server.ask(params.text_document.uri, question)


def _write(server: Server) -> None:
    """What helps while writing."""

    def takes_snippets() -> bool:
        client = server.client_capabilities.text_document
        item = client.completion.completion_item if client and client.completion else None
        return bool(item and item.snippet_support)

    options = types.CompletionOptions(trigger_characters=[".", '"', "/", ":", "(", ","])

    @server.feature(types.TEXT_DOCUMENT_COMPLETION, options)
    async def on_completion(params: types.CompletionParams) -> types.CompletionList | None:
        snippets = takes_snippets()

        def question(document: Document, view: View) -> types.CompletionList:
            offset = document.lines.offset(params.position)
            reading = server.documents.project.parsed(document.place, view.text)
            found = complete(view, reading, offset)
            items = [
                conversion.item(document.lines, offset, made, snippets=snippets) for made in found
            ]
            return types.CompletionList(is_incomplete=False, items=items)

        return await server.ask(params.text_document.uri, question, patience=0)

    help = types.SignatureHelpOptions(trigger_characters=["(", ","])

    @server.feature(types.TEXT_DOCUMENT_SIGNATURE_HELP, help)
    async def on_signature(params: types.SignatureHelpParams) -> types.SignatureHelp | None:
        def question(document: Document, view: View) -> types.SignatureHelp | None:
            found = call_at(view, document.lines.offset(params.position))
            return conversion.signature_help(*found) if found is not None else None

        return await server.ask(params.text_document.uri, question, patience=0)


def _change(server: Server) -> None:
    """What changes texts."""

    @server.feature(types.TEXT_DOCUMENT_FORMATTING)
    async def on_formatting(
        params: types.DocumentFormattingParams,
    ) -> list[types.TextEdit] | None:
        document = server.documents.find(params.text_document.uri)
        if document is None:
            return None
        lines = document.lines
        try:
            edits = await server.answer(lambda: formatting(lines.text))
        except CompileError as error:
            raise _refusal(f"the text has errors: {error.diagnostics[0].message}") from None
        return conversion.text_edits(lines, edits or ())

    prepare = types.RenameOptions(prepare_provider=True)

    @server.feature(types.TEXT_DOCUMENT_PREPARE_RENAME)
    async def on_prepare(params: types.PrepareRenameParams) -> types.Range | None:
        def question(document: Document, view: View) -> types.Range:
            found = renamable(view, document.lines.offset(params.position))
            return document.lines.range(found.start, found.end)

        try:
            return await server.ask(params.text_document.uri, question)
        except InputError as error:
            raise _refusal(str(error)) from None

    @server.feature(types.TEXT_DOCUMENT_RENAME, prepare)
    async def on_rename(params: types.RenameParams) -> types.WorkspaceEdit | None:
        def question(document: Document, view: View) -> dict[Path, list[Edit]]:
            offset = document.lines.offset(params.position)
            return rename(view, offset, params.new_name, server.roots)

        try:
            edits = await server.ask(params.text_document.uri, question)
        except InputError as error:
            raise _refusal(str(error)) from None
        return _workspace_edit(server, edits or {})

    actions = types.CodeActionOptions([types.CodeActionKind.QuickFix])

    @server.feature(types.TEXT_DOCUMENT_CODE_ACTION, actions)
    async def on_action(params: types.CodeActionParams) -> list[types.CodeAction] | None:
        def question(document: Document, view: View) -> list[types.CodeAction]:
            known = document.latest
            if known is None or known.reading.text != document.text:
                return []
            start, end = document.lines.offsets(params.range)
            found = [f for f in known.findings if _touches(f, start, end)]
            project = server.documents.project
            return [
                _action(server, document, f, m.title, m.edit)
                for f in found
                for m in mendings(project, known, f)
            ]

        return await server.ask(params.text_document.uri, question)


def _touches(finding: Diagnostic, start: int, end: int) -> bool:
    span = finding.span
    return span is not None and span.start <= end and start <= span.end


def _action(
    server: Server, document: Document, finding: Diagnostic, title: str, edit: Edit
) -> types.CodeAction:
    known = document.latest
    assert known is not None
    made = conversion.findings(server.documents, known, document.lines)
    own = [d for d, f in zip(made, known.findings, strict=True) if f is finding]
    edits = {document.uri: conversion.text_edits(document.lines, [edit])}
    return types.CodeAction(
        title,
        kind=types.CodeActionKind.QuickFix,
        diagnostics=own,
        is_preferred=True,
        edit=types.WorkspaceEdit(changes=edits),
    )


def _workspace_edit(server: Server, edits: dict[Path, list[Edit]]) -> types.WorkspaceEdit:
    changes: dict[str, Sequence[types.TextEdit]] = {}
    for place, some in edits.items():
        lines = server.documents.lines(place)
        if lines is not None:
            changes[server.documents.address(place)] = conversion.text_edits(lines, some)
    return types.WorkspaceEdit(changes=changes)


def _refusal(text: str) -> JsonRpcException:
    return JsonRpcException(text, REQUEST_FAILED)
