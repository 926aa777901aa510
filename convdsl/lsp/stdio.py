"""The server at the standard streams, as editors start it."""

from __future__ import annotations

import logging
import os
import sys
from typing import BinaryIO

from convdsl.lsp.features import register
from convdsl.lsp.server import Server


def serve(stdin: BinaryIO, stdout: BinaryIO) -> None:
    """Speak with a client until it is gone."""
    server = Server()
    register(server)
    try:
        server.start_io(stdin, stdout)
    finally:
        server.shut_down()


def run(*, verbose: bool) -> None:
    """Speak by the standard streams. Whatever else would print there prints among errors."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO if verbose else logging.CRITICAL, force=True
    )
    logging.captureWarnings(True)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, out)
