"""An editor as the server sees it: pygls' own client, over the streams of a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from lsprotocol import types
from pygls.lsp.client import LanguageClient

T = TypeVar("T")
WAIT = 60.0


class Editor:
    """Opens, changes and asks, each call until the answer has come."""

    def __init__(self, encodings: tuple[str, ...] | None = None) -> None:
        self._loop = asyncio.new_event_loop()
        self.client = LanguageClient("test", "1")
        self.published: dict[str, list[types.PublishDiagnosticsParams]] = {}
        self.said: list[str] = []
        self.times: list[tuple[str, int | None, float]] = []
        self._versions: dict[str, int] = {}

        @self.client.feature(types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
        def published(params: types.PublishDiagnosticsParams) -> None:
            self.published.setdefault(params.uri, []).append(params)
            self.times.append((params.uri, params.version, time.perf_counter()))

        @self.client.feature(types.WINDOW_LOG_MESSAGE)
        def logged(params: types.LogMessageParams) -> None:
            self.said.append(params.message)

        for method in (
            types.CLIENT_REGISTER_CAPABILITY,
            types.WORKSPACE_INLAY_HINT_REFRESH,
            types.WORKSPACE_SEMANTIC_TOKENS_REFRESH,
        ):
            self.client.feature(method)(_nothing)
        self.encodings = encodings

    def wait(self, begin: Callable[[], Awaitable[T]], seconds: float = WAIT) -> T:
        async def waiting() -> T:
            return await asyncio.wait_for(begin(), seconds)

        return self._loop.run_until_complete(waiting())

    # Life

    def start(self, *folders: Path) -> types.InitializeResult:
        """The process started as an editor would, and the first words exchanged."""
        environment = dict(os.environ, PYTHONWARNINGS="")
        command = (sys.executable, "-m", "convdsl", "lsp", "--stdio")
        self.wait(lambda: self.client.start_io(*command, env=environment))
        general = None
        if self.encodings is not None:
            general = types.GeneralClientCapabilities(position_encodings=list(self.encodings))
        item = types.ClientCompletionItemOptions(snippet_support=True)
        document = types.TextDocumentClientCapabilities(
            completion=types.CompletionClientCapabilities(completion_item=item)
        )
        watching = types.DidChangeWatchedFilesClientCapabilities(dynamic_registration=True)
        workspace = types.WorkspaceClientCapabilities(did_change_watched_files=watching)
        capabilities = types.ClientCapabilities(
            general=general, text_document=document, workspace=workspace
        )
        roots = [types.WorkspaceFolder(f.as_uri(), f.name) for f in folders]
        result = self.wait(
            lambda: self.client.initialize_async(
                types.InitializeParams(capabilities=capabilities, workspace_folders=roots)
            )
        )
        self.client.initialized(types.InitializedParams())
        return result

    def stop(self) -> int | None:
        """Taken leave of; the exit code."""
        self.wait(lambda: self.client.shutdown_async(None))
        self.client.exit(None)
        process = self.process
        self.wait(process.wait)
        self.wait(self.client.stop)
        self._loop.close()
        return process.returncode

    @property
    def process(self) -> Any:
        return self.client._server

    # Texts

    def open(self, place: Path | str, text: str) -> str:
        uri = place if isinstance(place, str) else place.as_uri()
        self._versions[uri] = 1
        item = types.TextDocumentItem(uri, "convdsl", 1, text)
        self.client.text_document_did_open(types.DidOpenTextDocumentParams(item))
        return uri

    def change(self, uri: str, text: str, range: types.Range | None = None) -> int:
        """All of the text, or a range of it."""
        self._versions[uri] += 1
        change: Any = (
            types.TextDocumentContentChangeWholeDocument(text)
            if range is None
            else types.TextDocumentContentChangePartial(range, text)
        )
        document = types.VersionedTextDocumentIdentifier(self._versions[uri], uri)
        self.client.text_document_did_change(types.DidChangeTextDocumentParams(document, [change]))
        return self._versions[uri]

    def close(self, uri: str) -> None:
        self.client.text_document_did_close(
            types.DidCloseTextDocumentParams(types.TextDocumentIdentifier(uri))
        )

    def until(self, condition: Callable[[], bool], seconds: float = WAIT) -> None:
        async def waiting() -> None:
            while not condition():
                await asyncio.sleep(0.002)

        self.wait(waiting, seconds)

    def settle(self, uri: str) -> list[types.Diagnostic]:
        """The findings of the text as it is, once all of it was looked at."""
        version = self._versions[uri]
        self.until(lambda: any(p.version == version for p in self.published.get(uri, [])))
        self.symbols(uri)  # a question waits for the analysis
        return list(self.published[uri][-1].diagnostics)

    # Questions

    def ask(self, method: str, params: Any) -> Any:
        return self.wait(lambda: self.client.protocol.send_request_async(method, params))

    def at(self, uri: str, position: types.Position) -> dict[str, Any]:
        return {"text_document": types.TextDocumentIdentifier(uri), "position": position}

    def hover(self, uri: str, position: types.Position) -> str | None:
        found = self.ask(types.TEXT_DOCUMENT_HOVER, types.HoverParams(**self.at(uri, position)))
        return None if found is None else found.contents.value

    def complete(self, uri: str, position: types.Position) -> list[types.CompletionItem]:
        params = types.CompletionParams(**self.at(uri, position))
        found = self.ask(types.TEXT_DOCUMENT_COMPLETION, params)
        return [] if found is None else list(found.items)

    def symbols(self, uri: str) -> list[types.DocumentSymbol]:
        params = types.DocumentSymbolParams(types.TextDocumentIdentifier(uri))
        return list(self.ask(types.TEXT_DOCUMENT_DOCUMENT_SYMBOL, params) or [])

    def hints(self, uri: str, lines: int = 10_000) -> list[types.InlayHint]:
        everywhere = types.Range(types.Position(0, 0), types.Position(lines, 0))
        params = types.InlayHintParams(types.TextDocumentIdentifier(uri), everywhere)
        return list(self.ask(types.TEXT_DOCUMENT_INLAY_HINT, params) or [])

    def rename(self, uri: str, position: types.Position, name: str) -> dict[str, Any]:
        params = types.RenameParams(**self.at(uri, position), new_name=name)
        return dict(self.ask(types.TEXT_DOCUMENT_RENAME, params).changes or {})


def _nothing(*_: Any) -> None:
    return None


def position(text: str, words: str, into: int = 0) -> types.Position:
    """Where words begin, by UTF-16."""
    offset = text.index(words) + into
    before = text[:offset]
    line = before.count("\n")
    return types.Position(line, len(before.rpartition("\n")[2].encode("utf-16-le")) // 2)
