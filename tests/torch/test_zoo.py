"""Models of the zoo that torchvision does not have, against PyTorch's functions written out.

Each is written from its paper a second time, as plainly as possible, over the same weights.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from zoo.deterministic import image, weights

import convdsl
from convdsl.passes import PASSES

TOLERANCE = 1e-4  # of the range of the outputs


class Network:
    """Layers by name, over a dictionary of weights."""

    def __init__(self, arrays: dict[str, Any], eps: float = 1e-5) -> None:
        self.arrays = {key: torch.from_numpy(value).double() for key, value in arrays.items()}
        self.eps = eps

    def conv(self, x: Tensor, name: str, stride: int = 1, padding: int = 0, **more: Any) -> Tensor:
        weight = self.arrays[f"{name}.weight"]
        groups = x.shape[1] // weight.shape[1]
        bias = self.arrays.get(f"{name}.bias")
        return F.conv2d(x, weight, bias, stride, padding, groups=groups, **more)

    def same(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        """TensorFlow's padding."""
        return self.conv(_same(x, self.arrays[f"{name}.weight"].shape[2], stride), name, stride)

    def up(self, x: Tensor, name: str, stride: int) -> Tensor:
        bias = self.arrays.get(f"{name}.bias")
        return F.conv_transpose2d(x, self.arrays[f"{name}.weight"], bias, stride)

    def bn(self, x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            self.arrays[f"{name}.{part}"]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias, eps=self.eps)

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.arrays[f"{name}.weight"], self.arrays[f"{name}.bias"])

    def classify(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((2, 3)), "fc")


def _same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    pads: list[int] = []
    for size in (x.shape[3], x.shape[2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value)


def _stem(net: Network, x: Tensor) -> Tensor:
    x = net.bn(net.conv(x, "conv1", 2, net.arrays["conv1.weight"].shape[2] // 2), "bn1").relu()
    return F.max_pool2d(x, 3, 2, 1)


def alexnet2012(net: Network, x: Tensor) -> Tensor:
    normalise = partial(F.local_response_norm, size=5, alpha=5e-4, beta=0.75, k=2.0)
    x = F.max_pool2d(normalise(net.conv(x, "conv1", 4).relu()), 3, 2)
    x = F.max_pool2d(normalise(net.conv(x, "conv2", 1, 2).relu()), 3, 2)
    for name in ("conv3", "conv4", "conv5"):
        x = net.conv(x, name, 1, 1).relu()
    x = F.max_pool2d(x, 3, 2).flatten(1)
    return net.linear(net.linear(net.linear(x, "fc6").relu(), "fc7").relu(), "fc8")


def resnet50_v2(net: Network, x: Tensor) -> Tensor:
    x = _stem(net, x)
    for stage, depth in enumerate((3, 4, 6, 3), 1):
        for position in range(depth):
            name = f"layer{stage}.{position}"
            stride = 2 if stage > 1 and position == 0 else 1
            first = stage == 1 and position == 0
            active = x if first else net.bn(x, f"{name}.bn1").relu()
            y = net.bn(net.conv(active, f"{name}.conv1"), f"{name}.bn2").relu()
            y = net.bn(net.conv(y, f"{name}.conv2", stride, 1), f"{name}.bn3").relu()
            skip = x if position else net.conv(active, f"{name}.downsample", stride)
            x = net.conv(y, f"{name}.conv3") + skip
    return net.classify(net.bn(x, "bn5").relu())


def se_resnet50(net: Network, x: Tensor) -> Tensor:
    x = _stem(net, x)
    for stage, depth in enumerate((3, 4, 6, 3), 1):
        for position in range(depth):
            name = f"layer{stage}.{position}"
            stride = 2 if stage > 1 and position == 0 else 1
            y = net.bn(net.conv(x, f"{name}.conv1"), f"{name}.bn1").relu()
            y = net.bn(net.conv(y, f"{name}.conv2", stride, 1), f"{name}.bn2").relu()
            y = net.bn(net.conv(y, f"{name}.conv3"), f"{name}.bn3")
            gate = net.conv(y.mean((2, 3), keepdim=True), f"{name}.se.fc1").relu()
            y = y * net.conv(gate, f"{name}.se.fc2").sigmoid()
            if position == 0:
                x = net.conv(x, f"{name}.downsample.0", stride)
                x = net.bn(x, f"{name}.downsample.1")
            x = (y + x).relu()
    return net.classify(x)


def pyconvresnet50(net: Network, x: Tensor) -> Tensor:
    x = net.bn(net.conv(x, "conv1", 2, 3), "bn1").relu()
    for stage, depth, levels in ((1, 3, 4), (2, 4, 3), (3, 6, 2), (4, 3, 1)):
        for position in range(depth):
            name = f"layer{stage}.{position}"
            stride = 1 if position else 2
            y = net.bn(net.conv(x, f"{name}.conv1"), f"{name}.bn1").relu()
            parts = [
                net.conv(y, f"{name}.conv2.conv2_{level + 1}", stride, level + 1)
                for level in range(levels)
            ]
            y = net.bn(torch.cat(parts, 1), f"{name}.bn2").relu()
            y = net.bn(net.conv(y, f"{name}.conv3"), f"{name}.bn3")
            if position == 0:
                x = net.conv(F.max_pool2d(x, 3, stride, 1), f"{name}.downsample.1")
                x = net.bn(x, f"{name}.downsample.2")
            x = (y + x).relu()
    return net.classify(x)


def xception(net: Network, x: Tensor) -> Tensor:
    def separable(x: Tensor, name: str) -> Tensor:
        x = net.same(x, f"{name}.depthwise")
        return net.bn(net.conv(x, f"{name}.pointwise"), f"{name}.bn")

    x = net.bn(net.conv(x, "conv1", 2), "bn1").relu()
    x = net.bn(net.conv(x, "conv2"), "bn2").relu()
    for block in range(2, 14):
        name = f"block{block}"
        if 5 <= block <= 12:
            y = x
            for i in (1, 2, 3):
                y = separable(y.relu(), f"{name}.conv{i}")
            x = x + y
            continue
        y = separable(x if block == 2 else x.relu(), f"{name}.conv1")
        y = separable(y.relu(), f"{name}.conv2")
        y = F.max_pool2d(_same(y, 3, 2, -float("inf")), 3, 2)
        x = y + net.bn(net.conv(x, f"{name}.skip", 2), f"{name}.skip_bn")
    return net.classify(separable(separable(x, "conv3").relu(), "conv4").relu())


def resnet18_cifar(net: Network, x: Tensor) -> Tensor:
    x = net.bn(net.conv(x, "conv1", 1, 1), "bn1").relu()
    for stage in (1, 2, 3, 4):
        for position in (0, 1):
            name = f"layer{stage}.{position}"
            stride = 2 if stage > 1 and position == 0 else 1
            y = net.bn(net.conv(x, f"{name}.conv1", stride, 1), f"{name}.bn1").relu()
            y = net.bn(net.conv(y, f"{name}.conv2", 1, 1), f"{name}.bn2")
            if stride == 2:
                x = net.bn(net.conv(x, f"{name}.downsample.0", 2), f"{name}.downsample.1")
            x = (y + x).relu()
    return net.classify(x)


def mnist_cnn(net: Network, x: Tensor) -> Tensor:
    x = net.conv(net.conv(x, "conv1").relu(), "conv2").relu()
    return net.linear(net.linear(F.max_pool2d(x, 2).flatten(1), "fc1").relu(), "fc2")


def mobilenet_v1(net: Network, x: Tensor, stride: int = 2) -> Tensor:
    x = F.relu6(net.bn(net.same(x, "conv1", stride), "bn1"))
    for layer, stride in enumerate((1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1), 2):
        name = f"conv{layer}"
        x = F.relu6(net.bn(net.same(x, f"{name}.depthwise", stride), f"{name}.bn1"))
        x = F.relu6(net.bn(net.conv(x, f"{name}.pointwise"), f"{name}.bn2"))
    return net.classify(x)


def shufflenet_v1(net: Network, x: Tensor) -> Tensor:
    x = _stem(net, x)
    for stage, depth in ((2, 4), (3, 8), (4, 4)):
        for position in range(depth):
            name = f"stage{stage}.{position}"
            y = net.bn(net.conv(x, f"{name}.conv1"), f"{name}.bn1").relu()
            n, c, h, w = y.shape
            y = y.reshape(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w)
            y = net.bn(net.conv(y, f"{name}.conv2", 1 if position else 2, 1), f"{name}.bn2")
            y = net.bn(net.conv(y, f"{name}.conv3"), f"{name}.bn3")
            x = x + y if position else torch.cat((F.avg_pool2d(x, 3, 2, 1), y), 1)
            x = x.relu()
    return net.classify(x)


def unet(net: Network, x: Tensor, depth: int = 4, pad: int = 0) -> Tensor:
    def double(x: Tensor, name: str) -> Tensor:
        x = net.conv(x, f"{name}.conv1", 1, pad).relu()
        return net.conv(x, f"{name}.conv2", 1, pad).relu()

    skips: list[Tensor] = []
    for level in range(1, depth + 1):
        skips.append(double(x, f"down{level}"))
        x = F.max_pool2d(skips[-1], 2)
    x = double(x, "bottom")
    for level in range(depth, 0, -1):
        x = net.up(x, f"widen{level}", 2)
        skip = skips[level - 1]
        border = (skip.shape[2] - x.shape[2]) // 2
        skip = skip[:, :, border : border + x.shape[2], border : border + x.shape[3]]
        x = double(torch.cat((skip, x), 1), f"up{level}")
    return net.conv(x, "classify")


def fcn(net: Network, image: Tensor, strides: int) -> Tensor:
    """FCN-32s, 16s, 8s for 1, 2, 3 strides."""
    x, maps = image, dict[int, Tensor]()
    for stage, depth in enumerate((2, 2, 3, 3, 3), 1):
        for position in range(1, depth + 1):
            name = f"conv{stage}_{position}"
            x = net.conv(x, name, 1, 100 if name == "conv1_1" else 1).relu()
        x = maps[stage] = F.max_pool2d(x, 2, ceil_mode=True)
    x = net.conv(net.conv(x, "fc6").relu(), "fc7").relu()
    x = net.conv(x, "score_fr")
    for stage, name, crop in ((4, "upscore2", 5), (3, "upscore_pool4", 9))[: strides - 1]:
        x = net.up(x, name, 2)
        side = net.conv(maps[stage], f"score_pool{stage}")
        x = x + side[:, :, crop : crop + x.shape[2], crop : crop + x.shape[3]]
    name, stride, crop = (("upscore", 32, 19), ("upscore16", 16, 27), ("upscore8", 8, 31))[
        strides - 1
    ]
    height, width = image.shape[2:]
    return net.up(x, name, stride)[:, :, crop : crop + height, crop : crop + width]


MODELS: dict[str, tuple[Callable[[Network, Tensor], Tensor], float, dict[str, Any]]] = {
    "alexnet2012": (alexnet2012, 1e-5, {}),
    "resnet50_v2": (resnet50_v2, 1e-5, {}),
    "se_resnet50": (se_resnet50, 1e-5, {}),
    "pyconvresnet50": (pyconvresnet50, 1e-5, {"resolution": 96}),
    "xception": (xception, 1e-3, {}),
    "mobilenet_v1": (mobilenet_v1, 1e-3, {"width": 0.5, "resolution": 97}),
    "shufflenet_v1": (shufflenet_v1, 1e-5, {}),
    "unet": (unet, 1e-5, {"height": 188, "width": 204}),
    "unet_small": (partial(unet, depth=3, pad=1), 1e-5, {"depth": 3, "width": 8, "size": 40}),
    "resnet18_cifar": (resnet18_cifar, 1e-5, {}),
    "mobilenet_v1_cifar": (partial(mobilenet_v1, stride=1), 1e-3, {"width": 0.5}),
    "mnist_cnn": (mnist_cnn, 1e-5, {}),
    "fcn32s": (partial(fcn, strides=1), 1e-5, {"height": 40, "width": 27}),
    "fcn16s": (partial(fcn, strides=2), 1e-5, {"height": 40, "width": 27}),
    "fcn8s": (partial(fcn, strides=3), 1e-5, {"height": 40, "width": 27}),
}


@pytest.mark.parametrize("name", MODELS)
def test_outputs_equal_pytorchs(name: str) -> None:
    written, eps, options = MODELS[name]
    model = convdsl.load(name, **options)
    states = model.graph.states
    arrays = weights({key: tuple(s.type.shape) for key, s in states.items()})
    x = image(1, *model.inputs["image"].shape[1:])
    with torch.inference_mode():
        expected = written(Network(arrays, eps), torch.from_numpy(x).double()).numpy()
    for passes in (PASSES, ()):
        found = convdsl.compile(model, arrays, passes=passes)(x)
        worst = np.abs(found - expected).max() / (expected.max() - expected.min())
        assert found.shape == expected.shape
        assert worst <= TOLERANCE
