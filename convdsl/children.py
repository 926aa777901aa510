"""Modules of our own in a process of their own."""

from __future__ import annotations

import sys
from pathlib import Path

_RUN = (
    "import sys; root = sys.argv.pop(1); root in sys.path or sys.path.insert(0, root); "
    "import runpy; runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def running(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this very package, from wherever it was imported here.

    `python -m` puts the folder that one stands in before all others: an `onnx.py` that lies beside
    a stranger's model would be run."""
    root = str(Path(__file__).parents[1])
    return [sys.executable, "-P", "-c", _RUN, root, module, *arguments]
