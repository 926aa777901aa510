"""PNG files, written with zlib alone (ISO/IEC 15948): 8 bits a channel, grey or RGB."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_COLOUR_TYPES = {1: 0, 3: 2}


def encode(pixels: NDArray[Any]) -> bytes:
    """Pixels [H, W] or [H, W, 3] of u8 as a file."""
    image = np.ascontiguousarray(pixels, np.uint8)
    height, width = image.shape[:2]
    rows = image.reshape(height, -1)
    channels = 1 if image.ndim == 2 else image.shape[2]
    # Each row begins with the number of its filter: 2, the difference to the row above.
    above = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
    lines = np.hstack([np.full((height, 1), 2, np.uint8), rows - above])
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)
