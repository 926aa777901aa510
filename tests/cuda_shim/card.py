"""What NVRTC makes of CUDA C, for the rungs of the ladder that begin there."""

from __future__ import annotations

import functools


@functools.lru_cache(maxsize=64)
def ptx_of(source: str, arch: str) -> str:
    """PTX of a module for an architecture such as `sm_80`."""
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram(source, "module.cu", [], [])
    options = [f"--gpu-architecture={arch.replace('sm', 'compute')}"]
    try:
        nvrtc.compileProgram(program, options)
    except nvrtc.NVRTCError as error:
        raise AssertionError(nvrtc.getProgramLog(program)) from error
    text: str | bytes = nvrtc.getPTX(program)
    return text if isinstance(text, str) else text.decode()
