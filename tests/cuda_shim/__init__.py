"""CUDA C on a processor: what the backend prints, compiled by g++ and run thread by thread.

The C++ half (`engine.cpp`, with `fibers.h`, `ledger.h`) runs the threads of a grid as fibers in any
order and notes every access; `convdsl_shim.h` is what kernels see in place of a GPU's built-ins.
`modules` compiles, `running` runs kernels and whole programs. The package is not called `cuda`,
which NVIDIA's wheels are.
"""
