"""What torch.save writes, the restricted reader reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convdsl.diagnostics import WeightError
from convdsl.weights import load


def network() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Flatten(), torch.nn.Linear(8, 2)
    )


def save_zip(value: Any, path: Path) -> None:
    torch.save(value, path)


def save_legacy(value: Any, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def save_protocol_4(value: Any, path: Path) -> None:
    torch.save(value, path, pickle_protocol=4)


WRITERS = [save_zip, save_legacy, save_protocol_4]


def same(path: Path, state: dict[str, torch.Tensor]) -> None:
    store = load(path)
    assert list(store.entries) == list(state)
    for name, tensor in state.items():
        wide = tensor.float() if tensor.dtype is torch.bfloat16 else tensor
        np.testing.assert_array_equal(store.read(name), wide.detach().numpy())


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_state_dicts(tmp_path: Path, write: Callable[..., None], dtype: torch.dtype) -> None:
    state = network().to(dtype).state_dict()
    write(state, tmp_path / "w.pth")
    same(tmp_path / "w.pth", state)


@pytest.mark.parametrize("write", WRITERS)
def test_views_parameters_and_shared_storages(tmp_path: Path, write: Callable[..., None]) -> None:
    base = torch.arange(24.0).reshape(2, 3, 4)
    state = {
        "base": base,
        "transposed": base.permute(2, 0, 1),
        "slice": base[1, 1:, ::2],
        "expanded": base[:1, :1].expand(5, 1, 4),
        "parameter": torch.nn.Parameter(torch.ones(3)),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "mask": torch.tensor([True, False]),
        "bytes": torch.tensor([1, 255], dtype=torch.uint8),
    }
    write(state, tmp_path / "w.pth")
    same(tmp_path / "w.pth", state)


@pytest.mark.parametrize("write", WRITERS)
def test_training_checkpoints(tmp_path: Path, write: Callable[..., None]) -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.ones(2, 3, 3, 3)).sum().backward()
    optimizer.step()  # so that the optimiser has tensors of its own
    state = net.state_dict()
    whole = {"epoch": 3, "state_dict": state, "optimizer": optimizer.state_dict()}
    write(whole, tmp_path / "w.pth")
    same(tmp_path / "w.pth", state)


@pytest.mark.parametrize("write", WRITERS)
def test_whole_modules_are_refused(tmp_path: Path, write: Callable[..., None]) -> None:
    write(network(), tmp_path / "w.pth")
    with pytest.raises(WeightError, match="torch.nn.modules.*; save the state dict"):
        load(tmp_path / "w.pth")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "w.pt"))
    with pytest.raises(WeightError, match="TorchScript"):
        load(tmp_path / "w.pt")
