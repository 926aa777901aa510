"""Networks ahead of time: a shared library for C, made from a model and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from convdsl import __version__
from convdsl.bound import bind_weights_of
from convdsl.calling import suggests
from convdsl.compilation import Plan, Tuner
from convdsl.diagnostics import InputError, expect
from convdsl.ir.model import Model
from convdsl.kernel.signature import one_sample
from convdsl.loading import load
from convdsl.passes import PASSES, Observer, Pass, check_passes
from convdsl.places import check_name
from convdsl.runtime.cache import ObjectCache
from convdsl.runtime.cpu.library import write_library
from convdsl.runtime.cpu.team import team_size
from convdsl.sizes import Shapes, bind
from convdsl.toolchain import find_toolchain


@suggests
def build_library(
    model: Model | str | Path,
    weights: Any = None,
    path: str | Path | None = None,
    *,
    cpu: str = "native",
    inputs: Shapes = None,
    batch: int | None = None,
    symbols: Mapping[str, int] | None = None,
    passes: tuple[Pass, ...] = PASSES,
    verify: bool = False,
    observer: Observer | None = None,
    tuner: Tuner | None = None,
) -> Path:
    """The network as a shared library for C at `path` (default libNAME.so), with a header beside
    it, whose path is returned. Sizes must all be given; the batch is 1 unless said.

    cpu: as for `compile`, or TRIPLE:NAME for another architecture, where its cross compiler is
    installed. Raises convdsl.Error, InputError where there is no C compiler.
    """
    expect("the path", path, str, Path, type(None))
    model = model if isinstance(model, Model) else load(model)
    check_passes(passes, observer)
    where = Path(f"lib{model.name}.so" if path is None else path)
    check_name("a library", where, ".so")
    binding = bind(model, inputs, batch, symbols)
    free = {symbol.name for symbol in model.symbols}
    one_sample(binding, (symbol.name for symbol in model.symbols))
    if model.deciding or binding.keys() != free:
        missing = ", ".join([*sorted(free - binding.keys()), *model.deciding])
        raise InputError(f"a library is made for fixed sizes; not given: {missing}")
    model = model.settled(binding)
    plan = Plan(model, find_toolchain("cpu", cpu), passes, verify, observer)
    arrays = bind_weights_of(model, weights)
    if tuner is not None:
        plan = replace(plan, tuning=tuner(plan, binding, arrays, team_size(None)))
    code, packed = plan.make(binding, arrays, ObjectCache())
    states = [arrays[port.name] for port in code.states]
    made_by = f"convdsl {__version__}, {plan.toolchain.version}"
    return write_library(where, model.name, code, packed, states, plan.toolchain.target, made_by)
