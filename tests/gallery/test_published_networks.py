"""What the pages of published networks claim: each idea's formula against what reports count."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest

import convdsl
from convdsl.analysis.report import Report, analyse


def report(name: str, **given: object) -> Report:
    return analyse(convdsl.load(name, **given), "torchvision", {"N": 1})


def parsed(text: str) -> Report:
    return analyse(convdsl.parse(text), "torchvision", {"N": 1})


# DenseNet, arXiv:1608.06993


@pytest.mark.dear
@pytest.mark.parametrize(
    ("name", "growth", "depths"),
    [
        ("densenet121", 32, [6, 12, 24, 16]),
        ("densenet121", 12, [6, 12, 24, 16]),
        ("densenet161", 48, [6, 12, 36, 24]),
    ],
)
def test_densenet_grows(name: str, growth: int, depths: list[int]) -> None:
    """Section 3: layer l of a block reads k_0 + k (l - 1); half of it is left between blocks."""
    rows = {row.name: row for row in report(name, growth=growth).layers}
    entering = 2 * growth
    for number, depth in enumerate(depths, 1):
        block = f"features.denseblock{number}"
        read = [rows[f"{block}.denselayer{i + 1}.norm1"].output.shape[1] for i in range(depth)]
        assert read == [entering + growth * i for i in range(depth)]
        for i, channels in enumerate(read):
            made = rows[f"{block}.denselayer{i + 1}.conv1"].cost.params
            made += rows[f"{block}.denselayer{i + 1}.conv2"].cost.params
            assert made == 4 * growth * channels + 36 * growth**2
            assert (made < 9 * channels * growth) == (5 * channels > 36 * growth)
        entering = (entering + growth * depth) // 2


@pytest.mark.dear(share=4)
def test_densenet_bottlenecks() -> None:
    """They save 32 % of the weights of the layers of DenseNet-121, and 8 % of the arithmetic."""
    rows = [row for row in report("densenet121").layers if ".denselayer" in row.name]
    read = [row.output.shape[1:] for row in rows if row.name.endswith("norm1")]
    made = [row.cost for row in rows if row.op == "conv"]
    weights = sum(9 * c * 32 for c, _, _ in read)
    macs = sum(9 * c * 32 * h * w for c, h, w in read)
    assert round(sum(cost.params for cost in made) / weights, 2) == 0.68
    assert round(sum(cost.macs for cost in made) / macs, 2) == 0.92


@pytest.mark.dear(share=4)
def test_densenet_is_small() -> None:
    small, large = report("densenet201").totals, report("resnet101").totals
    assert 2 * small["params"] < large["params"]
    assert small["macs"] < 0.56 * large["macs"]


# Inception-v3, arXiv:1512.00567


@pytest.mark.parametrize("n", [3, 5, 7, 11])
def test_one_axis_after_the_other(n: int) -> None:
    """Section 3.2: 1 x n and n x 1 see what n x n sees, for 2 / n of the arithmetic."""
    start = 'use "zoo:inception_v3.cnn": unit\nmodel m { input x: f32[N, 24, 17, 19]\n x -> '
    whole = parsed(f"{start}unit(24, {n}x{n}) }}")
    apart = parsed(f"{start}unit(24, 1x{n}) -> unit(24, {n}x1) }}")
    assert n * apart.totals["macs"] == 2 * whole.totals["macs"]
    fields = [made.layers[-1].receptive_field["x"] for made in (whole, apart)]
    assert fields[0] == fields[1]
    assert [axis.size for axis in fields[0]] == [n, n]


@pytest.mark.parametrize("n", [2, 3, 5])
def test_small_ones_for_a_large_one(n: int) -> None:
    """Section 3.1: n filters of 3x3 see 2 n + 1, for 9 n / (2 n + 1)^2 of the arithmetic."""
    start = 'use "zoo:inception_v3.cnn": unit\nmodel m { input x: f32[N, 24, 17, 19]\n x -> '
    large = 2 * n + 1
    whole = parsed(f"{start}unit(24, {large}x{large}) }}")
    apart = parsed(f"{start}repeat {n} {{ unit(24, 3x3) }} }}")
    assert large**2 * apart.totals["macs"] == 9 * n * whole.totals["macs"]
    assert apart.layers[-1].receptive_field == whole.layers[-1].receptive_field


# MobileNetV3, arXiv:1905.02244


def test_hard_swish_is_near_swish() -> None:
    """Off by 3 sigma(-3) at the bends, and nowhere by more. Section 5.2."""
    x = np.linspace(-60, 60, 600_001, dtype="f4")
    text = "model m { input x: f32[N]\n output a = x -> hardswish\n output b = x -> silu\n }"
    y = convdsl.compile(convdsl.parse(text), {}, cache=False)(x)
    off = np.abs(y["a"] - y["b"])
    bound = 3 / (1 + np.exp(3.0))
    assert off.max() == pytest.approx(bound, abs=1e-6)
    assert abs(x[off.argmax()]) == pytest.approx(3, abs=1e-3)
    assert off[x == 0] == 0


def quarter(width: int) -> int:
    """As torchvision rounds: to eights, by no more than a tenth down."""
    near = max(8, int(width / 4 + 4) // 8 * 8)
    return near + 8 * (near < 0.9 * width / 4)


@pytest.mark.parametrize(
    ("name", "widths", "params", "macs"),
    [
        ("mobilenet_v3_large", [72, 120, 120, 480, 672, 672, 960, 960], 0.276, 0.007),
        ("mobilenet_v3_small", [16, 96, 240, 240, 120, 144, 288, 576, 576], 0.182, 0.008),
    ],
)
def test_gates_are_weights_and_hardly_work(
    name: str, widths: list[int], params: float, macs: float
) -> None:
    """Behind the expansion, a quarter of it inside. Section 5.3; tables 1 and 2, column SE."""
    made = report(name)
    costs = [row.cost for row in made.layers if row.name.endswith((".fc1", ".fc2"))]
    weights = [2 * w * quarter(w) for w in widths]
    assert sum(c.params for c in costs) == sum(weights) + sum(w + quarter(w) for w in widths)
    assert sum(c.macs for c in costs) == sum(weights)
    assert sum(c.params for c in costs) / made.totals["params"] == pytest.approx(params, abs=1e-3)
    assert sum(c.macs for c in costs) / made.totals["macs"] == pytest.approx(macs, abs=1e-3)


def test_the_head_works_behind_the_pooling() -> None:
    """Figure 5: of one position, not of 49."""
    rows = {row.name: row for row in report("mobilenet_v3_large").layers}
    assert rows["classifier.0"].cost.macs == 960 * 1280
    assert rows["avgpool"].inputs["x"].sizes[2:] == (7, 7)


# EfficientNet, arXiv:1905.11946

SCALED = [
    (1.0, 1.0, 224),
    (1.0, 1.1, 240),
    (1.1, 1.2, 288),
    (1.2, 1.4, 300),
    (1.4, 1.8, 380),
    (1.6, 2.2, 456),
    (1.8, 2.6, 528),
    (2.0, 3.1, 600),
]
"""Width, depth, resolution of torchvision's B0 to B7."""


@pytest.mark.dear
def test_compound_scaling() -> None:
    """Equation 3: arithmetic grows as d w^2 r^2. Depths are rounded up, which tells most where
    they are small: 5 % to 34 % are added, and 15 % at most from B4 on."""
    macs = [report(f"efficientnet_b{number}").totals["macs"] for number in range(8)]
    assert list(accumulate(macs, max)) == macs
    over = [
        found / macs[0] / (d * w**2 * (r / 224) ** 2)
        for found, (w, d, r) in zip(macs, SCALED, strict=True)
    ]
    assert max(over) == pytest.approx(1.41, abs=0.01)
    assert min(over[1:]) == pytest.approx(1.055, abs=0.01)
    assert max(over[4:]) < 1.15
    assert pytest.approx(1.92, abs=0.001) == 1.2 * 1.1**2 * 1.15**2
    assert (macs[7] / macs[0]) ** (1 / 7) == pytest.approx(1.92, abs=0.01)


# ConvNeXt, arXiv:2201.03545


def test_large_filters_are_nearly_free() -> None:
    made = report("convnext_tiny")
    large = [row for row in made.layers if row.kernel == (7, 7)]
    assert len(large) == 3 + 3 + 9 + 3
    macs = sum(row.cost.macs for row in large)
    assert macs == sum(49 * row.output.elements for row in large)
    assert macs / made.totals["macs"] == pytest.approx(0.0236, abs=1e-4)
    dense = sum(row.cost.macs * row.output.shape[1] for row in large)
    assert dense / (made.totals["macs"] - macs) == pytest.approx(5.86, abs=0.01)


@pytest.mark.dear(share=4)
@pytest.mark.parametrize(("name", "depth"), [("convnext_tiny", 9), ("convnext_small", 27)])
def test_they_see_far(name: str, depth: int) -> None:
    """A unit of a stage adds 6 of its positions; a step between stages, one."""
    depths, strides = (3, 3, depth, 3), (4, 8, 16, 32)
    seen = 4 + sum(6 * n * s for n, s in zip(depths, strides, strict=True)) + sum(strides[:-1])
    rows = [row for row in report(name).layers if row.name.startswith("features.7")]
    assert [axis.size for axis in rows[-1].receptive_field["image"]] == [seen, seen]
