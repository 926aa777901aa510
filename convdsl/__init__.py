"""convdsl: a language and compiler for convolutional networks.

    model = convdsl.load("resnet50")                     # a path, path.cnn:model, or a zoo name
    print(convdsl.report(model, inputs=(3, 224, 224)))   # exact figures, before anything runs
    run = convdsl.compile(model, weights="resnet50.safetensors")
    logits = run(images)                 # float32 [N, 3, 224, 224] -> float32 [N, 1000]

Everything is loaded on first use; importing the package costs next to nothing. The command line
imports it before it can answer Ctrl-C, so that not even `typing` is loaded here.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from convdsl.autodiff import gradient
    from convdsl.diagnostics import (
        ArtifactError,
        CompileError,
        DeviceError,
        Diagnostic,
        Error,
        InputError,
        WeightError,
    )
    from convdsl.driver import compile, emit
    from convdsl.exporting import export
    from convdsl.ir.model import Model
    from convdsl.library import build_library
    from convdsl.loading import load, parse
    from convdsl.measure.tuning import tuner
    from convdsl.pictures import draw
    from convdsl.prediction import Predictor
    from convdsl.reporting import report
    from convdsl.runtime.executable import Executable
    from convdsl.runtime.saved import load_executable
    from convdsl.tiling.network import tiled
    from convdsl.training.fit import train
    from convdsl.training.session import Session

__all__ = [
    "ArtifactError",
    "CompileError",
    "DeviceError",
    "Diagnostic",
    "Error",
    "Executable",
    "InputError",
    "Model",
    "Predictor",
    "Session",
    "WeightError",
    "__version__",
    "build_library",
    "compile",
    "draw",
    "emit",
    "export",
    "gradient",
    "load",
    "load_executable",
    "parse",
    "report",
    "tiled",
    "train",
    "tuner",
]

_HOMES = {
    "convdsl.autodiff": ("gradient",),
    "convdsl.diagnostics": (
        "ArtifactError",
        "CompileError",
        "DeviceError",
        "Diagnostic",
        "Error",
        "InputError",
        "WeightError",
    ),
    "convdsl.driver": ("compile", "emit"),
    "convdsl.exporting": ("export",),
    "convdsl.ir.model": ("Model",),
    "convdsl.library": ("build_library",),
    "convdsl.loading": ("load", "parse"),
    "convdsl.measure.tuning": ("tuner",),
    "convdsl.notebook": ("load_ipython_extension",),
    "convdsl.pictures": ("draw",),
    "convdsl.prediction": ("Predictor",),
    "convdsl.reporting": ("report",),
    "convdsl.runtime.executable": ("Executable",),
    "convdsl.runtime.saved": ("load_executable",),
    "convdsl.tiling.network": ("tiled",),
    "convdsl.training.fit": ("train",),
    "convdsl.training.session": ("Session",),
}
_WHERE = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        from convdsl.spelling import nearest

        near = nearest(name, __all__)
        meant = f"; did you mean {near}?" if near is not None else ""
        raise AttributeError(f"module 'convdsl' has no attribute {name!r}{meant}")
    from importlib import import_module

    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
