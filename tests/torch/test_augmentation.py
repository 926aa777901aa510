"""Elastic deformation is bicubic as PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from convdsl.training.data.augmentation.geometry import bicubic

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("grid", [2, 3, 5, 8])
@pytest.mark.parametrize("size", [(20, 31), (9, 4)])
def test_bicubic_is_pytorch_s(grid: int, size: tuple[int, int]) -> None:
    drawn = np.random.default_rng(0).standard_normal((2, grid, grid))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(drawn)[None], size, mode="bicubic", align_corners=True
    )[0]
    found = bicubic(size[0], grid) @ drawn @ bicubic(size[1], grid).T
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-12)
