"""The PyTorch source of a network, executed."""

from __future__ import annotations

import torch

import convdsl
from convdsl.ir.model import Model


def module_of(model: Model) -> torch.nn.Module:
    """The module whose class the exported source defines."""
    space: dict[str, object] = {}
    exec(convdsl.export(model, to="pytorch").decode(), space)
    (kind,) = (v for v in space.values() if isinstance(v, type) and v.__module__ == "builtins")
    return kind().eval()


def state_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What the state dict holds under keys of ours."""
    state = module.state_dict()
    return {key: v for key, v in state.items() if not key.endswith("num_batches_tracked")}
