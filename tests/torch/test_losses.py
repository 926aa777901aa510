"""Losses and their gradients against PyTorch's, or against formulas written out in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from graphs import evaluate_graph
from losses import Case, draw_case
from torch import Tensor
from torch.nn import functional as F

from convdsl.training.losses import COMPARING

pytestmark = pytest.mark.torch

SEEDS = 60
Arguments = Mapping[str, Any]


def by_class(given: Any, like: Tensor) -> Tensor | None:
    """As PyTorch's elementwise losses take them: to broadcast."""
    if given is None:
        return None
    numbers = torch.tensor(given, dtype=like.dtype)
    return numbers.reshape(-1, *[1] * (like.ndim - 2)) if numbers.ndim else numbers


def cross_entropy(y: Tensor, t: Tensor, a: Arguments) -> Tensor:
    weight = a["class_weights"]
    return F.cross_entropy(
        y,
        t,
        None if weight is None else torch.tensor(weight, dtype=y.dtype),
        ignore_index=-100 if t.is_floating_point() else a["ignore_index"],
        reduction=a["reduction"],
        label_smoothing=a["label_smoothing"],
    )


def nll(y: Tensor, t: Tensor, a: Arguments) -> Tensor:
    weight = a["class_weights"]
    weights = None if weight is None else torch.tensor(weight, dtype=y.dtype)
    return F.nll_loss(y, t, weights, ignore_index=a["ignore_index"], reduction=a["reduction"])


def binary_cross_entropy(y: Tensor, t: Tensor, a: Arguments) -> Tensor:
    weight, positive = (by_class(a[n], y) for n in ("class_weights", "positive_weight"))
    return F.binary_cross_entropy_with_logits(
        y, t, weight, pos_weight=positive, reduction=a["reduction"]
    )


def focal(y: Tensor, t: Tensor, a: Arguments) -> Tensor:
    """torchvision.ops.sigmoid_focal_loss, written out; of labels, of one yes in each position."""
    counts = torch.ones_like(y, dtype=torch.bool)
    if not t.is_floating_point():
        counts &= (t != a["ignore_index"]).unsqueeze(1)
        classes = torch.arange(y.shape[1]).reshape(-1, *[1] * (y.ndim - 2))
        t = (t.unsqueeze(1) == classes).to(y.dtype)
    p = torch.sigmoid(y)
    loss = F.binary_cross_entropy_with_logits(y, t, reduction="none")
    loss = loss * (1 - (p * t + (1 - p) * (1 - t))) ** a["gamma"]
    if a["alpha"] >= 0:
        loss = (a["alpha"] * t + (1 - a["alpha"]) * (1 - t)) * loss
    return getattr(loss[counts], a["reduction"])()


def kl_divergence(y: Tensor, t: Tensor, a: Arguments) -> Tensor:
    log_p = torch.log_softmax(y, 1)
    return F.kl_div(log_p, t, reduction=a["reduction"], log_target=a["log_target"])


def dice(y: Tensor, t: Tensor, a: Arguments) -> Tensor:
    p = torch.sigmoid(y) if y.shape[1] == 1 else torch.softmax(y, 1)
    if not t.is_floating_point():
        counts = (t != a["ignore_index"]).unsqueeze(1)
        classes = torch.arange(y.shape[1]).reshape(-1, *[1] * (y.ndim - 2))
        t, p = ((t.unsqueeze(1) == classes) & counts).to(y.dtype), p * counts
    both, either = (p * t).flatten(2).sum(2), (p.flatten(2).sum(2) + t.flatten(2).sum(2))
    empty = either + a["eps"] == 0  # a class that neither has is right
    right = (2 * both + a["eps"] + empty) / (either + a["eps"] + empty)
    return getattr(1 - right, a["reduction"])()


def box(y: Tensor, t: Tensor, a: Arguments) -> Tensor:
    """Region by region, as equation 1 of Fast R-CNN reads."""
    y, total = y.reshape(len(y), -1, 4), y.sum() * 0
    for boxes, (kind, *wanted) in zip(y, t, strict=True):
        if kind >= 1:
            found = boxes[int(kind) if len(boxes) > 1 else 0]
            total = total + F.smooth_l1_loss(
                found, torch.stack(wanted), beta=a["beta"], reduction="sum"
            )
    return total / len(y) if a["reduction"] == "mean" else total


def overlap(name: str) -> Callable[[Tensor, Tensor, Arguments], Tensor]:
    """As torchvision.ops writes the three losses; of targets without an extent none."""

    def loss(y: Tensor, t: Tensor, a: Arguments) -> Tensor:
        eps = 1e-7
        there = (t[..., 2] > t[..., 0]) & (t[..., 3] > t[..., 1])
        x1, y1, x2, y2 = y[there].unbind(dim=-1)
        x1g, y1g, x2g, y2g = t[there].unbind(dim=-1)
        xk1, yk1 = torch.max(x1, x1g), torch.max(y1, y1g)
        xk2, yk2 = torch.min(x2, x2g), torch.min(y2, y2g)
        both = torch.where((yk2 > yk1) & (xk2 > xk1), (xk2 - xk1) * (yk2 - yk1), 0.0)
        union = (x2 - x1) * (y2 - y1) + (x2g - x1g) * (y2g - y1g) - both
        iou = both / (union + eps)
        xc1, yc1 = torch.min(x1, x1g), torch.min(y1, y1g)
        xc2, yc2 = torch.max(x2, x2g), torch.max(y2, y2g)
        each = 1 - iou
        if name == "giou":
            area = (xc2 - xc1) * (yc2 - yc1)
            each = 1 - (iou - (area - union) / (area + eps))
        if name in ("diou", "ciou"):
            diagonal = (xc2 - xc1) ** 2 + (yc2 - yc1) ** 2 + eps
            x, y, xg, yg = (x1 + x2) / 2, (y1 + y2) / 2, (x1g + x2g) / 2, (y1g + y2g) / 2
            each = each + ((x - xg) ** 2 + (y - yg) ** 2) / diagonal
        if name == "ciou":
            angles = torch.atan((x2g - x1g) / (y2g - y1g)) - torch.atan((x2 - x1) / (y2 - y1))
            v = (4 / torch.pi**2) * angles**2
            with torch.no_grad():
                alpha = v / (1 - iou + v + eps)
            each = each + alpha * v
        total = each.sum()
        return total / max(int(there.sum()), 1) if a["reduction"] == "mean" else total

    return loss


REFERENCES: dict[str, Callable[[Tensor, Tensor, Arguments], Tensor]] = {
    "cross_entropy": cross_entropy,
    "nll": nll,
    "binary_cross_entropy": binary_cross_entropy,
    "focal": focal,
    "mse": lambda y, t, a: F.mse_loss(y, t, reduction=a["reduction"]),
    "l1": lambda y, t, a: F.l1_loss(y, t, reduction=a["reduction"]),
    "smooth_l1": lambda y, t, a: F.smooth_l1_loss(y, t, beta=a["beta"], reduction=a["reduction"]),
    "huber": lambda y, t, a: F.huber_loss(y, t, delta=a["delta"], reduction=a["reduction"]),
    "kl_divergence": kl_divergence,
    "dice": dice,
    "box": box,
    "iou": overlap("iou"),
    "giou": overlap("giou"),
    "diou": overlap("diou"),
    "ciou": overlap("ciou"),
}


def test_every_loss_has_a_reference() -> None:
    assert set(REFERENCES) == set(COMPARING)


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("name", REFERENCES)
def test_values_and_gradients(name: str) -> None:
    for seed in range(SEEDS):
        case = draw_case(name, seed)
        loss, gradient = _expected(case)
        found = evaluate_graph(case.graph(), case.arrays())
        said = f"{case.arguments} {case.output.shape} seed {seed}"
        np.testing.assert_allclose(found["loss"], loss, 1e-9, 1e-9, err_msg=said)
        span = max(float(np.abs(gradient).max(initial=0)), 1.0)
        np.testing.assert_allclose(found["gradient"], gradient, 0, 1e-9 * span, err_msg=said)


def _expected(case: Case) -> tuple[Any, Any]:
    y = torch.from_numpy(case.output).requires_grad_()
    loss = REFERENCES[case.name](y, torch.from_numpy(case.target), case.arguments)
    loss.backward()
    assert y.grad is not None
    gradient = y.grad.numpy()
    if case.name == "focal" and 0 < case.arguments["gamma"] < 1:
        # A power below 1 of what vanished has an infinite slope there; ours is the limit, 0.
        gradient = np.where(np.isnan(gradient), 0.0, gradient)
    return loss.detach().numpy(), gradient
