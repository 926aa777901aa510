"""What NVRTC makes of CUDA C, for the rungs of the ladder that begin there."""

from __future__ import annotations

import functools

from convdsl.backends.cuda.nvrtc import compile_source


@functools.lru_cache(maxsize=64)
def ptx_of(source: str, arch: str) -> str:
    """PTX of a module for an architecture such as `sm_80`, as artifacts hold it."""
    return compile_source(source, arch).ptx
