"""The server as an editor meets it: a process, its streams, and the protocol."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lsprotocol import types
from pygls.exceptions import JsonRpcException

from convdsl import zoo
from convdsl.lsp.positions import UNITS, Lines
from convdsl.syntax.format import format_source
from lsp.client import Editor, position

BLOCKS = "# A unit.\nblock unit(width, stride = 1) {\n    conv(width, 3x3, stride) -> relu\n}\n"
NET = """convdsl 1
use "blocks.cnn": unit
# Größe 𝄞: eine Zeile mit Zeichen
model net(classes = 10) {
    input image: f32[N, 3, 32, 32]  # 𝄞𝄞
    y = image -> unit(16, stride = 2) as first -> unit(32)
    y -> flatten -> linear(classes) -> output logits
}
"""


@pytest.fixture(scope="module")
def editor() -> Iterator[Editor]:
    editor = Editor()
    editor.start()
    yield editor
    assert editor.stop() == 0
    assert [line for line in editor.said if "bug" in line] == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path.resolve()
    (folder / "blocks.cnn").write_text(BLOCKS, encoding="utf-8")
    (folder / "net.cnn").write_text(NET, encoding="utf-8")
    return folder


@pytest.fixture
def net(editor: Editor, folder: Path) -> Iterator[str]:
    uri = editor.open(folder / "net.cnn", NET)
    assert editor.settle(uri) == []
    yield uri
    editor.close(uri)


def document(uri: str) -> types.TextDocumentIdentifier:
    return types.TextDocumentIdentifier(uri)


@pytest.mark.dear
def test_what_it_can_do(editor: Editor) -> None:
    other = Editor()
    can = other.start().capabilities
    assert can.position_encoding == "utf-16"
    for name in (
        "hover", "completion", "definition", "references", "document_symbol", "code_action",
        "document_formatting", "rename", "folding_range", "semantic_tokens", "inlay_hint",
        "signature_help", "document_highlight",
    ):  # fmt: skip
        assert getattr(can, f"{name}_provider"), name
    assert other.stop() == 0


def test_findings_come_while_typing(editor: Editor, net: str) -> None:
    editor.change(net, NET.replace("flatten", "flaten"))
    (found,) = editor.settle(net)
    assert (found.code, found.severity, found.source) == (
        "E0201",
        types.DiagnosticSeverity.Error,
        "convdsl",
    )
    assert "help: did you mean `flatten`?" in found.message
    start = position(NET.replace("flatten", "flaten"), "flaten")
    assert found.range == types.Range(start, types.Position(start.line, start.character + 6))
    editor.change(net, NET)
    assert editor.settle(net) == []


def test_positions_are_of_utf_16(editor: Editor, net: str) -> None:
    text = NET.replace("as first", 'as "𝄞"')
    editor.change(net, text)
    (found,) = editor.settle(net)
    lines = Lines(text)
    assert text[slice(*lines.offsets(found.range))] == '"𝄞"'
    assert found.range.end.character - found.range.start.character == 4
    text = NET.replace("y -> flatten", "y -> # 𝄞\n        flaten")
    editor.change(net, text)
    (found,) = editor.settle(net)
    assert text[slice(*Lines(text).offsets(found.range))] == "flaten"


def test_a_finding_elsewhere_is_shown_where_the_way_leaves(
    editor: Editor, net: str, folder: Path
) -> None:
    blocks = editor.open(folder / "blocks.cnn", BLOCKS.replace("3x3", "99x99, pad = 0"))
    editor.settle(blocks)
    editor.until(lambda: bool(editor.published[net][-1].diagnostics))
    (found,) = editor.published[net][-1].diagnostics
    assert NET[slice(*Lines(NET).offsets(found.range))].startswith("unit(16, stride = 2)")
    assert found.related_information is not None
    assert found.related_information[0].location.uri == blocks
    editor.close(blocks)  # its file counts again
    editor.until(lambda: not editor.published[net][-1].diagnostics)


def test_related_places_come_along(editor: Editor, net: str) -> None:
    text = NET.replace("y -> flatten", "y = y -> flatten\n    y = 3\n    y -> flatten")
    text = text.replace("model net(classes = 10)", "model net(classes = 10, classes = 3)")
    editor.change(net, text)
    found = editor.settle(net)
    (twice,) = [d for d in found if d.code == "E0202"]
    assert twice.related_information is not None
    assert twice.related_information[0].message == "first here"
    assert twice.related_information[0].location.uri == net


def test_hover(editor: Editor, net: str) -> None:
    text = editor.hover(net, position(NET, "linear", 2))
    assert text is not None
    assert "`[N, 8192]` → `[N, 10]`" in text
    assert "81,930 parameters" in text
    assert editor.hover(net, position(NET, "# 𝄞𝄞", 2)) is None
    assert editor.hover(net, types.Position(10_000, 10_000)) is None


def test_hints(editor: Editor, net: str) -> None:
    labels = [hint.label for hint in editor.hints(net)]
    assert labels == [
        "[N, 16, 16, 16]",
        "[N, 32, 16, 16]",
        "[N, 8192]",
        "[N, 10]",
    ]
    line = types.Range(types.Position(6, 0), types.Position(6, 99))
    asked = types.InlayHintParams(document(net), line)
    some = editor.ask(types.TEXT_DOCUMENT_INLAY_HINT, asked)
    assert [hint.label for hint in some] == ["[N, 8192]", "[N, 10]"]


def test_completion_while_the_text_is_broken(editor: Editor, net: str) -> None:
    text = NET.replace("-> unit(32)", "-> unit(32, st")
    editor.change(net, text)
    items = {i.label: i for i in editor.complete(net, position(text, "st\n", 2))}
    stride = items["stride"]
    assert isinstance(stride.text_edit, types.TextEdit)
    assert text[slice(*Lines(text).offsets(stride.text_edit.range))] == "st"
    assert stride.text_edit.new_text == "stride = "
    conv = items["conv"]
    assert conv.detail is not None
    assert conv.detail.startswith("conv(channels, kernel")
    assert conv.insert_text_format == types.InsertTextFormat.Snippet
    asked = types.SignatureHelpParams(**editor.at(net, position(text, "32, st", 4)))
    help = editor.ask(types.TEXT_DOCUMENT_SIGNATURE_HELP, asked)
    assert help.signatures[0].label == "unit(width, stride = 1)"
    assert help.active_parameter == 1


def test_the_last_good_analysis_speaks_for_a_broken_text(editor: Editor, net: str) -> None:
    text = "# a line more\n" + NET.replace("image -> unit(16", "image -> ( unit(16")
    editor.change(net, text)
    assert [d.code for d in editor.settle(net)] == ["E0101"]
    told = editor.hover(net, position(text, "linear", 2))
    assert told is not None
    assert "`[N, 8192]` → `[N, 10]`" in told
    (hint,) = [h for h in editor.hints(net) if h.label == "[N, 10]"]
    assert hint.position == position(text, "linear(classes)", len("linear(classes)"))
    assert [s.name for s in editor.symbols(net)] == ["net"]


def test_definition_and_references_cross_files(editor: Editor, net: str, folder: Path) -> None:
    asked = types.DefinitionParams(**editor.at(net, position(NET, "unit(32", 1)))
    (found,) = editor.ask(types.TEXT_DOCUMENT_DEFINITION, asked)
    assert found.uri == (folder / "blocks.cnn").as_uri()
    assert found.range.start == position(BLOCKS, "unit(width")
    context = types.ReferenceContext(include_declaration=True)
    params = types.ReferenceParams(context, **editor.at(net, position(NET, "unit(32", 1)))
    everywhere = editor.ask(types.TEXT_DOCUMENT_REFERENCES, params)
    assert len(everywhere) == 4
    lit = types.DocumentHighlightParams(**editor.at(net, position(NET, "unit(32", 1)))
    assert len(editor.ask(types.TEXT_DOCUMENT_DOCUMENT_HIGHLIGHT, lit)) == 3


def test_definition_of_a_block_of_the_zoo(editor: Editor, folder: Path) -> None:
    text = (
        'use "zoo:resnet.cnn": basic\nmodel m {\n input x: f32[N, 64, 8, 8]\n x -> basic(64)\n}\n'
    )
    uri = editor.open(folder / "zoo.cnn", text)
    assert editor.settle(uri) == []
    asked = types.DefinitionParams(**editor.at(uri, position(text, "basic(64", 1)))
    (found,) = editor.ask(types.TEXT_DOCUMENT_DEFINITION, asked)
    assert zoo.folder() is not None
    assert found.uri == (zoo.folder() / "resnet.cnn").as_uri()
    editor.close(uri)


def test_rename_edits_all_files(editor: Editor, net: str, folder: Path) -> None:
    changes = editor.rename(net, position(NET, "unit(32", 1), "cell")
    assert {Path(uri).name: len(edits) for uri, edits in changes.items()} == {
        "net.cnn": 3,
        "blocks.cnn": 1,
    }
    params = types.PrepareRenameParams(**editor.at(net, position(NET, "classes)", 1)))
    assert editor.ask(types.TEXT_DOCUMENT_PREPARE_RENAME, params).start == position(NET, "classes)")
    for place, name in ((position(NET, "linear", 1), "other"), (position(NET, "y =", 0), "image")):
        with pytest.raises(JsonRpcException) as refused:
            editor.rename(net, place, name)
        assert "Traceback" not in str(refused.value)
        assert refused.value.data is None


def test_formatting_is_fmt(editor: Editor, folder: Path) -> None:
    for end in ("\n", "\r\n"):
        text = NET.replace("unit(16, stride = 2)", "unit( 16,stride=2 )").replace("    y", "  y")
        text = text.replace("\n", end)
        uri = editor.open(folder / "net.cnn", text)
        asked = types.DocumentFormattingParams(document(uri), types.FormattingOptions(4, True))
        edits = editor.ask(types.TEXT_DOCUMENT_FORMATTING, asked)
        lines = Lines(text)
        for edit in sorted(edits, key=lambda e: lines.offset(e.range.start), reverse=True):
            start, stop = lines.offsets(edit.range)
            text = text[:start] + edit.new_text + text[stop:]
        assert text == format_source(NET).replace("\n", end)
        editor.change(uri, "model (")
        with pytest.raises(JsonRpcException, match="errors"):
            editor.ask(types.TEXT_DOCUMENT_FORMATTING, asked)
        editor.close(uri)


def test_symbols_folds_and_colours(editor: Editor, net: str) -> None:
    (model,) = editor.symbols(net)
    assert (model.name, model.detail) == ("net", "(classes = 10)")
    assert [child.name for child in model.children or ()][:3] == ["classes", "image", "y"]
    asked = types.FoldingRangeParams(document(net))
    found = editor.ask(types.TEXT_DOCUMENT_FOLDING_RANGE, asked)
    assert [(f.start_line, f.end_line) for f in found] == [(3, 6)]
    everything = types.SemanticTokensParams(document(net))
    data = editor.ask(types.TEXT_DOCUMENT_SEMANTIC_TOKENS_FULL, everything).data
    lines = [text.encode("utf-16-le") for text in NET.split("\n")]
    line = column = 0
    seen: set[str] = set()
    for down, right, length, _, _ in zip(*[iter(data)] * 5, strict=True):
        line, column = (line + down, right) if down else (line, column + right)
        seen.add(lines[line][2 * column : 2 * (column + length)].decode("utf-16-le"))
    assert {"unit", "image", "linear", "# 𝄞𝄞", "classes", "N"} <= seen
    part = types.SemanticTokensRangeParams(
        document(net), types.Range(types.Position(4, 0), types.Position(5, 0))
    )
    some = editor.ask(types.TEXT_DOCUMENT_SEMANTIC_TOKENS_RANGE, part).data
    assert 0 < len(some) < len(data)


def test_actions_mend(editor: Editor, net: str) -> None:
    text = NET.replace("flatten", "flaten")
    editor.change(net, text)
    (found,) = editor.settle(net)
    context = types.CodeActionContext([found])
    asked = types.CodeActionParams(document(net), found.range, context)
    (action,) = editor.ask(types.TEXT_DOCUMENT_CODE_ACTION, asked)
    assert action.title == "Write `flatten`"
    ((uri, (edit,)),) = action.edit.changes.items()
    assert (uri, edit.new_text, edit.range) == (net, "flatten", found.range)
    assert [d.code for d in action.diagnostics] == ["E0201"]


def test_several_documents_and_those_that_are_not_saved(editor: Editor, folder: Path) -> None:
    one = editor.open(folder / "one.cnn", "block b { rellu }\n")
    two = editor.open("untitled:Untitled-1", "block b { relu }\n")
    three = editor.open("untitled:Untitled-2", 'use "blocks.cnn": unit\n')
    assert [d.code for d in editor.settle(one)] == ["E0201"]
    assert editor.settle(two) == []
    assert [d.code for d in editor.settle(three)] == ["E0701"]
    for uri in (one, two, three):
        editor.close(uri)
        editor.until(lambda uri=uri: not editor.published[uri][-1].diagnostics)
    assert editor.hover(one, types.Position(0, 0)) is None
    assert editor.complete(one, types.Position(0, 0)) == []


@pytest.mark.dear
def test_files_that_change_are_read_again(editor: Editor, net: str, folder: Path) -> None:
    (folder / "blocks.cnn").write_text("block other { relu }\n")
    event = types.FileEvent((folder / "blocks.cnn").as_uri(), types.FileChangeType.Changed)
    params = types.DidChangeWatchedFilesParams([event])
    editor.client.workspace_did_change_watched_files(params)
    editor.until(lambda: bool(editor.published[net][-1].diagnostics))
    assert [d.code for d in editor.published[net][-1].diagnostics] == ["E0705"]


@pytest.mark.dear
@pytest.mark.parametrize("encoding", ["utf-8", "utf-32"])
def test_other_encodings(encoding: str, folder: Path) -> None:
    editor = Editor((encoding, "utf-16"))
    assert editor.start().capabilities.position_encoding == encoding
    text = 'block b { in -> relu as "é𝄞" -> rellu }\n'
    uri = editor.open(folder / "b.cnn", text)
    found = editor.settle(uri)[-1]
    start = len(text.partition("rellu")[0].encode(f"{encoding}-le".replace("8-le", "8")))
    assert found.range.start.character == start // UNITS[encoding]
    assert editor.stop() == 0


@pytest.mark.dear
def test_what_is_no_message_is_answered_or_passed_over() -> None:
    """The process lives on, and says nothing but the protocol."""
    said = [
        b'{"jsonrpc": "2.0", "id": 1, "method": "no/such", "params": {}}',
        b"{",
        b'{"jsonrpc": "2.0", "id": 2, "method": "textDocument/hover", "params": {"x": []}}',
        b'{"jsonrpc": "2.0", "method": "textDocument/didChange", "params": {"x": 1}}',
        b'{"jsonrpc": "2.0", "method": "textDocument/didClose", "params": null}',
        b"[" * 5000,
        b'{"jsonrpc": "2.0", "id": 3, "method": "shutdown"}',
        b'{"jsonrpc": "2.0", "method": "exit"}',
    ]
    stream = b"".join(b"Content-Length: %d\r\n\r\n%s" % (len(x), x) for x in said)
    done = subprocess.run(
        [sys.executable, "-m", "convdsl", "lsp"], input=stream, capture_output=True, timeout=60
    )
    assert done.stdout.count(b"Content-Length") >= 2
    assert b'"id": 3' in done.stdout
    assert b"Traceback" not in done.stdout
    assert b"traceback" not in done.stdout
    assert done.returncode == 0


@pytest.mark.dear
def test_it_ends_when_its_client_is_gone() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "convdsl", "lsp", "--stdio"],
        input=b"",
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, b"")


@pytest.mark.dear
def test_without_pygls_a_line_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "pygls.py").write_text("raise ModuleNotFoundError(name='pygls')\n")
    (tmp_path / "lsprotocol.py").write_text("raise ModuleNotFoundError(name='lsprotocol')\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from convdsl.cli import main"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; sys.exit(main(['lsp']))"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "pip install 'convdsl[lsp]'" in done.stderr
