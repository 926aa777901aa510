"""What docs/gradients.md says of PyTorch's gradients at kinks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kinks import KINKS, Kink
from torch.nn import functional

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("kink", KINKS, ids=str)
def test_theirs(kink: Kink) -> None:
    tensors = {n: torch.from_numpy(a).requires_grad_() for n, a in kink.arrays.items()}
    y = eval(kink.theirs, {"torch": torch, "functional": functional}, tensors)
    y.backward(torch.ones_like(y))
    wanted = np.array(kink.ours if kink.found is None else kink.found)
    np.testing.assert_allclose(tensors[kink.by].grad.numpy(), wanted, 1e-6)
