"""The server: documents in, findings and answers out.

The main thread reads messages and keeps documents. Texts are analysed in one thread, questions are
answered in another. A change makes the analysis of the text before it end early; what it had found
is not lost, but told with what the next one finds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from lsprotocol import types
from pygls.lsp.server import LanguageServer
from pygls.protocol import LanguageServerProtocol

from convdsl import __version__, zoo
from convdsl.editing.analysis import Analysis, analyse
from convdsl.editing.project import Project
from convdsl.editing.view import View
from convdsl.elaborate.examination import Cancelled
from convdsl.elaborate.files import FileProblem
from convdsl.lsp import conversion
from convdsl.lsp.documents import Document, Documents, place_of

T = TypeVar("T")

PAUSE = 0.02
"""Seconds that a change waits for the next: what is typed at once is analysed once."""

PATIENCE = 1.0
"""Seconds that a question waits for the analysis of the text it is about."""

GLANCE = 0.1
"""Seconds that a question waits whose answer is looked at while one writes."""

WATCHED = ("**/*.cnn", "**/convdsl.toml", "**/*.txt")


class Protocol(LanguageServerProtocol):
    """The protocol, but for texts, which are kept by `Documents`, and for what is said of bugs."""

    def _register_builtin_features(self) -> None:
        super()._register_builtin_features()
        for method, handle in (
            (types.TEXT_DOCUMENT_DID_OPEN, self._opened),
            (types.TEXT_DOCUMENT_DID_CHANGE, self._changed),
            (types.TEXT_DOCUMENT_DID_CLOSE, self._closed),
        ):
            self.fm.add_builtin_feature(method, handle)  # pyright: ignore[reportUnknownMemberType]

    @property
    def _ours(self) -> Server:
        assert isinstance(self._server, Server)
        return self._server

    def _opened(self, params: types.DidOpenTextDocumentParams) -> None:
        document = params.text_document
        self._ours.opened(document.uri, document.text, document.version)

    def _changed(self, params: types.DidChangeTextDocumentParams) -> None:
        document = params.text_document
        self._ours.changed(document.uri, list(params.content_changes), document.version)

    def _closed(self, params: types.DidCloseTextDocumentParams) -> None:
        self._ours.closed(params.text_document.uri)

    def _send_response(
        self, msg_id: Any, result: Any = None, error: types.ResponseError | None = None
    ) -> None:
        """Nothing of our insides goes out."""
        if error is not None:
            error = types.ResponseError(error.code, error.message.splitlines()[0][:500])
        super()._send_response(msg_id, result, error)


class Server(LanguageServer):
    """One client, its documents, and the two threads."""

    def __init__(self) -> None:
        super().__init__("convdsl", __version__, protocol_cls=Protocol)  # pyright: ignore[reportUnknownMemberType]
        self.documents = Documents(Project(zoo.folder()))
        self._analyst = ThreadPoolExecutor(1, "analysis")
        self._clerk = ThreadPoolExecutor(1, "answers")
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._asked_early: set[str] = set()
        self._stopped = False

    # What the client tells

    def opened(self, uri: str, text: str, version: int | None) -> None:
        """A document is open from now on."""
        agreed = self.server_capabilities.position_encoding
        self.documents.encoding = types.PositionEncodingKind(agreed or "utf-16").value
        document = self.documents.open(uri, text, version)
        self._look_at(document)
        self.look_at_readers(document.place)

    def changed(
        self,
        uri: str,
        changes: list[types.TextDocumentContentChangeEvent],
        version: int | None,
    ) -> None:
        """A document was changed."""
        document = self.documents.change(uri, changes, version)
        if document is not None:
            self._look_at(document)
            self.look_at_readers(document.place)

    def closed(self, uri: str) -> None:
        """A document is closed; what is wrong with its file is not shown any more."""
        document = self.documents.close(uri)
        if document is None:
            return
        document.ticket += 1
        task = self._tasks.pop(uri, None)
        if task is not None:
            task.cancel()
        self._publish(uri, [], None)
        self.look_at_readers(document.place)

    def look_at_readers(self, place: Path) -> None:
        """The text of a place changed: those that read it are looked at again."""
        for other in self.documents:
            known = other.latest
            if other.place != place and known is not None and place in known.asked:
                self._look_at(other)

    def shut_down(self) -> None:
        """Nobody waits for anything any more."""
        self._stopped = True
        self._analyst.shutdown(wait=False, cancel_futures=True)
        self._clerk.shutdown(wait=False, cancel_futures=True)

    # Analysis

    def _look_at(self, document: Document) -> None:
        document.ticket += 1
        document.settled.clear()
        task = self._tasks.pop(document.uri, None)
        if task is not None:
            task.cancel()
        made = self._analyse(document, document.ticket)
        self._tasks[document.uri] = asyncio.get_running_loop().create_task(made)

    async def _analyse(self, document: Document, ticket: int) -> None:
        await asyncio.sleep(PAUSE)
        loop = asyncio.get_running_loop()

        def wanted() -> bool:
            return document.ticket == ticket and not self._stopped

        def tell(found: Analysis) -> None:
            loop.call_soon_threadsafe(self._known, document, ticket, found)

        def work() -> None:
            if not wanted():
                return
            try:
                before = document.good if document.good is not None else document.latest
                project, origins = self.documents.project, document.origins
                for found in analyse(project, document.place, before, wanted, origins):
                    tell(found)
            except Cancelled:
                pass
            except FileProblem:  # closed meanwhile, and there is no file
                pass
            except Exception as error:  # noqa: BLE001  a bug must not end the server
                self.confess("analysing a text", error)
                loop.call_soon_threadsafe(document.settled.set)

        await loop.run_in_executor(self._analyst, work)

    def _known(self, document: Document, ticket: int, found: Analysis) -> None:
        """An analysis, or a part of one, has come."""
        if document.ticket != ticket or self._stopped:
            return
        document.latest = found
        if found.reading.whole and (found.complete or document.good is None):
            document.good = found
        lines = document.lines
        self._publish(
            document.uri, conversion.findings(self.documents, found, lines), document.version
        )
        if found.complete:
            document.settled.set()
            self._refresh(document)

    def _publish(self, uri: str, findings: list[types.Diagnostic], version: int | None) -> None:
        self.text_document_publish_diagnostics(
            types.PublishDiagnosticsParams(uri, findings, version)
        )

    @property
    def hints_are_refreshed(self) -> bool:
        """Whether the client asks for hints again where it is told to."""
        workspace = self.client_capabilities.workspace
        hint = workspace.inlay_hint if workspace is not None else None
        return hint is not None and bool(hint.refresh_support)

    def _refresh(self, document: Document) -> None:
        """Ask for hints and colours anew, where they were given before all was known."""
        if document.uri not in self._asked_early:
            return
        self._asked_early.discard(document.uri)
        workspace = self.client_capabilities.workspace
        if workspace is None:
            return
        if self.hints_are_refreshed:
            self.workspace_inlay_hint_refresh(None)
        if workspace.semantic_tokens and workspace.semantic_tokens.refresh_support:
            self.workspace_semantic_tokens_refresh(None)

    # Questions

    async def ask(
        self, uri: str, question: Callable[[Document, View], T], *, patience: float = PATIENCE
    ) -> T | None:
        """The answer to a question about a document; None where it is not open, or we fail.

        Waits for the analysis of its text for a while, and then answers by what was known before.
        Where nothing was, it waits longer.
        """
        document = self.documents.find(uri)
        if document is None:
            return None
        whole = document.good is not None and document.good.complete
        seconds = PATIENCE if patience and not whole else patience
        if not document.settled.is_set() and (seconds or document.latest is None):
            try:
                await asyncio.wait_for(document.settled.wait(), seconds or PATIENCE)
            except TimeoutError:
                self._asked_early.add(uri)
        view = self.documents.view(document)
        if view is None:
            return None
        return await self.answer(lambda: question(document, view))

    async def answer(self, work: Callable[[], T]) -> T | None:
        """What work comes to, in the thread for answers; None where it fails by a bug."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._clerk, work)
        except Exception as error:
            from convdsl.diagnostics import Error

            if isinstance(error, Error):
                raise
            self.confess("answering", error)
            return None

    def confess(self, doing: str, error: Exception) -> None:
        """Say that we failed, in a line."""
        logging.getLogger(__name__).exception("a bug while %s", doing, exc_info=error)
        self._say(f"a bug in convdsl, while {doing}: {type(error).__name__}: {error}")

    def _say(self, text: str) -> None:
        line = " ".join(text.split())[:500]
        self.window_log_message(types.LogMessageParams(types.MessageType.Error, line))

    def report_server_error(self, error: Exception, source: Any) -> None:
        """What cannot be answered is told in a line of the log."""
        self._say(f"{type(error).__name__}: {error}")

    @property
    def roots(self) -> list[Path]:
        """The folders that are open in the editor."""
        if self.protocol._workspace is None:  # pyright: ignore[reportPrivateUsage]
            return []
        return [place_of(folder.uri) for folder in self.workspace.folders.values()]
