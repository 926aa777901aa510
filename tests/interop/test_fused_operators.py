"""Kinds of nodes that onnxruntime's optimiser writes, against onnxruntime: single nodes, and whole
networks as it saves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnxruntime import GraphOptimizationLevel as Level
from op_cases.draw import Draw

import convdsl
from interop.one_node import Node
from interop.runtimes import draw_inputs, run_convdsl
from interop.test_element_types import file_of

F, I32 = TensorProto.FLOAT, TensorProto.INT32
MICROSOFT, WEIGHTS = "com.microsoft", "random:7"

pytestmark = pytest.mark.drawn


def fused(draw, kind, domain=MICROSOFT, **attributes) -> Node:
    return Node(draw, kind, domain, **attributes)


def assert_close(expected, found, tolerance=2e-5) -> None:
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_allclose(found[name], array, tolerance, tolerance, err_msg=name)


ACTIVATIONS = (
    ("", ()), ("Relu", ()), ("Tanh", ()), ("Sigmoid", ()), ("LeakyRelu", (0.2,)),
    ("Clip", (-0.5, 1.25)), ("HardSigmoid", (0.25, 0.4)),
)  # fmt: skip


@pytest.mark.parametrize("seed", range(14))
def test_fused_conv(seed):
    """Every activation, what is added before it, one to three axes of space."""
    draw = Draw(seed)
    kind, numbers = ACTIVATIONS[seed % len(ACTIVATIONS)]
    how = {"activation": kind, "activation_params": list(numbers)} if kind else {}
    how = how if numbers or not kind else {"activation": kind}
    groups, rank = draw.pick(1, 2), draw.pick(1, 2, 2)
    c, k = groups * draw.integer(1, 4), groups * draw.integer(1, 5)
    node = fused(draw, "FusedConv", group=groups, pads=[1] * (2 * rank), **how)
    node.reads(draw.array((2, c, *[7] * rank), -2, 2).astype("f4"), stored=False)
    node.reads(draw.array((k, c // groups, *[3] * rank), -1, 1).astype("f4"))
    node.reads(draw.array((k,), -1, 1).astype("f4") if draw.chance() or seed % 2 else None)
    if seed % 2 and rank == 2:
        node.reads(draw.array((2, k, *[7] * rank), -2, 2).astype("f4"), stored=False)
    assert_close(*node.run_all({"y": F}))


OF_GEMM = (
    ("Relu", {}), ("LeakyRelu", {"activation_alpha": 0.3}), ("Tanh", {}), ("Sigmoid", {}),
    ("Elu", {"activation_alpha": 0.7}), ("Softplus", {}), ("Softsign", {}),
    ("HardSigmoid", {"activation_alpha": 0.3, "activation_beta": 0.4}),
    ("Selu", {"activation_alpha": 1.5, "activation_gamma": 1.2}),
    ("ThresholdedRelu", {"activation_alpha": 0.6}),
)  # fmt: skip


@pytest.mark.parametrize(("kind", "numbers"), OF_GEMM, ids=[kind for kind, _ in OF_GEMM])
def test_fused_gemm(kind, numbers):
    draw = Draw(len(kind))
    across, down = draw.integer(0, 1), draw.integer(0, 1)
    node = fused(draw, "FusedGemm", activation=kind, transA=across, transB=down,
                 alpha=draw.pick(1.0, 0.5), beta=draw.pick(1.0, 2.0), **numbers)  # fmt: skip
    node.reads(draw.array((6, 5) if across else (5, 6), -2, 2).astype("f4"), stored=False)
    node.reads(draw.array((4, 6) if down else (6, 4), -1, 1).astype("f4"), draw.chance())
    node.reads(draw.array((4,), -1, 1).astype("f4"))
    assert_close(*node.run_all({"y": F}))


@pytest.mark.parametrize("seed", range(16))
@pytest.mark.parametrize("kind", ["FusedMatMul", "TransposeMatMul"])
def test_fused_matmul(seed, kind):
    """Both operands turned or not, stacks, weights and data."""
    draw = Draw(seed)
    stack = draw.pick((), (2,), (2, 3))
    turned = {"transA": seed & 1, "transB": seed >> 1 & 1}
    batches = {"transBatchA": seed >> 2 & 1, "transBatchB": seed >> 3 & 1}
    if kind == "TransposeMatMul" or not stack:
        batches = {}
    shapes = {"A": [*stack, 4, 5], "B": [*stack, 5, 3]}
    for name, shape in shapes.items():
        if turned[f"trans{name}"]:
            shape[-2:] = reversed(shape[-2:])
        if batches.get(f"transBatch{name}"):
            shape[:-1] = [shape[-2], *shape[:-2]]
    node = fused(draw, kind, alpha=draw.pick(1.0, 0.25, -2.0), **turned, **batches)
    node.reads(draw.array(tuple(shapes["A"]), -2, 2).astype("f4"), stored=False)
    node.reads(draw.array(tuple(shapes["B"]), -2, 2).astype("f4"), draw.chance())
    assert_close(*node.run_all({"y": F}))


@pytest.mark.parametrize(
    ("bits", "zeros"),
    [(bits, zeros) for bits in (2, 4, 8) for zeros in ("none", "packed", "numbers")
     if (bits, zeros) != (8, "numbers")],  # onnxruntime refuses it
)  # fmt: skip
def test_a_matrix_of_few_bits(bits, zeros):
    draw = Draw(bits)
    rows, columns, block = 6, 40, 16
    blocks = -(-columns // block)
    node = fused(draw, "MatMulNBits", K=columns, N=rows, bits=bits, block_size=block)
    node.reads(draw.array((2, 3, columns), -2, 2).astype("f4"), stored=False)
    node.reads(draw.rng.integers(0, 256, (rows, blocks, block * bits // 8)).astype("u1"))
    node.reads(draw.array((rows, blocks), 0.01, 0.2).astype("f4"))
    if zeros == "packed":
        node.reads(draw.rng.integers(0, 256, (rows, -(-blocks * bits // 8))).astype("u1"))
    elif zeros == "numbers":
        node.reads(draw.array((rows, blocks), 0, 2**bits).astype("f4"))
    assert_close(*node.run_all({"y": F}), tolerance=2e-4)


@pytest.mark.parametrize(("kind", "more"), [
    ("Gelu", {}), ("BiasGelu", {}), ("FastGelu", {}), ("FastGelu", {"bias": True}),
    ("QuickGelu", {}), ("QuickGelu", {"alpha": 1.0}), ("QuickGelu", {"alpha": -0.5}),
])  # fmt: skip
def test_gelus(kind, more):
    """Beside zero and far from it, where there is nothing left of one side."""
    draw = Draw(3)
    node = fused(draw, kind, **{k: v for k, v in more.items() if k == "alpha"})
    x = draw.array((3, 4, 8), -4, 4).astype("f4")
    x[0, 0, :6] = 0, -0.0, 1e-30, -30, 30, 1e10
    node.reads(x, stored=False)
    if kind == "BiasGelu" or "bias" in more:
        node.reads(draw.array((8,), -1, 1).astype("f4"))
    assert_close(*node.run_all({"y": F}))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"])
def test_sums_that_are_normalised(seed, kind):
    """With and without beta and bias, what skips of the same shape or of one sample, the sum as an
    output."""
    draw = Draw(seed)
    width, plain = draw.integer(2, 17), kind == "SkipLayerNormalization"
    node = fused(draw, kind, **({"epsilon": 1e-3} if seed % 2 else {}))
    node.reads(draw.array((2, 3, width), -2, 2).astype("f4"), stored=False)
    skip = draw.pick((2, 3, width), (1, 3, width), (3, width))
    node.reads(draw.array(skip, -2, 2).astype("f4"), stored=draw.chance())
    node.reads(draw.array((width,), -2, 2).astype("f4"))
    if plain:
        node.reads(draw.array((width,), -2, 2).astype("f4") if draw.chance() else None)
    if draw.chance():
        node.reads(draw.array((width,), -2, 2).astype("f4"))
    outputs, order = ({"y": F, "total": F}, ["y", "", "", "total"]) if seed % 3 else ({"y": F}, ())
    assert_close(*node.run_all(outputs, order=order), tolerance=1e-4)


@pytest.mark.parametrize("axis", [-1, 1])
def test_simplified_layer_norm(axis):
    draw = Draw(5)
    node = fused(draw, "SimplifiedLayerNormalization", "", axis=axis, epsilon=1e-4)
    node.reads(draw.array((2, 3, 7), -2, 2).astype("f4"), stored=False)
    node.reads(draw.array((7,) if axis == -1 else (3, 7), -2, 2).astype("f4"))
    assert_close(*node.run_all({"y": F}))


@pytest.mark.parametrize("seed", range(4))
def test_embeddings_that_are_normalised(seed):
    draw = Draw(seed)
    batch, length, width = 2, 5, 8
    node = fused(draw, "EmbedLayerNormalization", epsilon=1e-6)
    node.reads(draw.rng.integers(0, 11, (batch, length)).astype("i4"), stored=False)
    segments = bool(seed % 2)
    rows = draw.rng.integers(0, 2, (batch, length)).astype("i4")
    node.reads(rows if segments else None, stored=False)
    node.reads(draw.array((11, width), -1, 1).astype("f4"))
    node.reads(draw.array((9, width), -1, 1).astype("f4"))
    node.reads(draw.array((2, width), -1, 1).astype("f4") if segments else None)
    node.reads(draw.array((width,), -1, 1).astype("f4"))
    node.reads(draw.array((width,), -1, 1).astype("f4"))
    mask = np.arange(length) < draw.rng.integers(1, length + 1, (batch, 1))
    node.reads(mask.astype("i4") if seed > 1 else None, stored=False)
    if seed == 3:
        node.reads(draw.rng.integers(0, 9, (batch, length)).astype("i4"), stored=False)
    outputs = {"y": F, "mask": I32, "sums": F}
    assert_close(*node.run_all(outputs), tolerance=1e-4)


def mask_of(draw, batch, rows, columns, kind, causal=0):
    """A mask in one of its forms: 0 hides a key, of which one is always seen: the scores of a query
    that sees none are -10000 and a rest, of which single precision keeps three digits."""
    if kind == "lengths":
        return draw.rng.integers(1, columns + 1, batch).astype("i4")
    if kind == "ends":
        ends = draw.rng.integers(2, columns + 1, batch)
        starts = np.zeros(batch) if causal else draw.rng.integers(0, 2, batch)
        return np.concatenate([ends, starts]).astype("i4")
    if kind == "none":
        return None
    shape = (batch, columns) if kind == "keys" else (batch, rows, columns)
    seen = draw.rng.integers(0, 2, shape).astype("i4")
    seen[..., 0] = 1
    return seen


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", ["none", "lengths", "ends", "keys", "pairs"])
def test_attention(seed, kind):
    draw = Draw(seed)
    batch, heads, rows, width = 2, draw.pick(1, 2, 3), draw.integer(2, 6), draw.integer(2, 5)
    features = heads * width
    causal = int(draw.chance())
    values = heads * draw.integer(1, 4) if draw.chance() else features
    how = {"qkv_hidden_sizes": [features, features, values]} if values != features else {}
    if draw.chance():
        how["scale"] = 0.3
    node = fused(draw, "Attention", num_heads=heads, unidirectional=causal, **how)
    node.reads(draw.array((batch, rows, 7), -2, 2).astype("f4"), stored=False)
    node.reads(draw.array((7, 2 * features + values), -1, 1).astype("f4"))
    node.reads(draw.array((2 * features + values,), -1, 1).astype("f4"))
    node.reads(mask_of(draw, batch, rows, rows, kind, causal), stored=draw.chance())
    if draw.chance():
        node.reads(None)
        shape = (draw.pick(1, batch), heads, rows, rows)
        node.reads(draw.array(shape, -2, 2).astype("f4"), stored=draw.chance())
    assert_close(*node.run_all({"y": F}), tolerance=1e-4)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("form", ["apart", "by heads", "keys packed", "all packed"])
def test_multi_head_attention(seed, form):
    """onnxruntime packs on cards alone: it is asked with what is packed taken apart."""
    draw = Draw(seed)
    batch, heads, rows, width = 2, draw.pick(1, 2, 3), draw.integer(2, 6), draw.integer(2, 5)
    columns = rows if form == "all packed" else draw.integer(2, 6)
    features = heads * width
    how = {"scale": 0.4} if draw.chance() else {}
    ours, theirs = (fused(draw, "MultiHeadAttention", num_heads=heads, **how) for _ in range(2))
    q = draw.array((batch, rows, features), -2, 2).astype("f4")
    k, v = (draw.array((batch, columns, features), -2, 2).astype("f4") for _ in range(2))
    q4, k4, v4 = (x.reshape(batch, -1, heads, width) for x in (q, k, v))
    if form == "by heads":
        given = (q, k4.transpose(0, 2, 1, 3), v4.transpose(0, 2, 1, 3))
    elif form == "keys packed":
        given = (q, np.stack([k4, v4], 3))
    else:
        given = (q, k, v) if form == "apart" else (np.stack([q4, k4, v4], 3),)
    bias = draw.array((3 * features,), -1, 1) if draw.chance() and form != "by heads" else None
    mask = mask_of(draw, batch, rows, columns, draw.pick("none", "lengths", "keys"))
    shape = (draw.pick(1, batch), draw.pick(1, heads), rows, columns)
    scores = draw.array(shape, -2, 2).astype("f4") if draw.chance() else None
    for node, parts in ((ours, given), (theirs, (q, k, v) if "packed" in form else given)):
        for index in range(3):
            node.reads(parts[index] if index < len(parts) else None, stored=False)
        node.reads(bias if bias is None else bias.astype("f4"))
        node.reads(mask, stored=bool(seed % 2))
        node.reads(scores, stored=False)
    expected, _ = theirs.run_all({"y": F})
    assert_close(expected, ours.found({"y": F}, {"y": expected["y"].shape}), tolerance=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_rotary(seed):
    draw = Draw(seed)
    batch, heads, rows, width = 2, 2, 5, 8
    node = fused(draw, "RotaryEmbedding", interleaved=seed % 2)
    shape = (batch, rows, heads * width) if seed < 4 else (batch, heads, rows, width)
    node.reads(draw.array(shape, -2, 2).astype("f4"), stored=False)
    one = np.array([2], "i8")
    each = draw.rng.integers(0, 9, (batch, rows)).astype("i8")
    node.reads(one if seed // 2 % 2 else each, stored=False)
    angles = draw.array((9, width // 2), -3, 3)
    node.reads(np.cos(angles).astype("f4"))
    node.reads(np.sin(angles).astype("f4"))
    assert_close(*node.run_all({"y": F}))


@pytest.mark.parametrize("kind", ["Trilu", "ExpandDims", "GridSample"])
def test_what_onnx_has_too(kind):
    draw = Draw(2)
    node = fused(draw, kind)
    node.reads(draw.array((2, 3, 5, 6), -2, 2).astype("f4"), stored=False)
    if kind == "GridSample":
        node.reads(draw.array((2, 4, 3, 2), -1.2, 1.2).astype("f4"), stored=False)
    else:
        node.reads(np.array(-1, "i8" if kind == "Trilu" else "i4"))
    assert_close(*node.run_all({"y": F}))


# Whole networks


def saved(proto: onnx.ModelProto, level: Level, path: Path) -> onnx.ModelProto:
    """A network as onnxruntime saves it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return onnx.load(path)


TRANSFORMER = """
block unit(width) {
    input x
    y = x -> layer_norm -> linear(width) -> gelu -> linear(width)
    q = x -> linear(width)
    k = x -> linear(width)
    scores = matmul(q, transpose(k, [0, 2, 1])) * 0.25 -> softmax(axis = -1)
    x + y + matmul(scores, x) -> layer_norm
}
model net {
    input x: f32[N, 3, 64, 64]
    y = x -> conv(32, 8x8, stride = 8, pad = valid) -> silu
    z = y -> reshape([N, 32, 64]) -> transpose([0, 2, 1])
    z -> repeat 2 { unit(32) } -> linear(5) -> output y
}
"""

NETWORKS = {
    "resnet18": {"FusedConv"},
    "mobilenet_v3_small": {"FusedConv"},
    "efficientnet_b0": {"QuickGelu"},
    "lenet5": {"FusedConv", "FusedGemm"},
    TRANSFORMER: {"BiasGelu", "FusedMatMul", "QuickGelu", "SkipLayerNormalization"},
}


@pytest.mark.dear
@pytest.mark.parametrize("text", NETWORKS, ids=lambda text: text.split()[0])
def test_networks_as_they_are_saved(text, tmp_path):
    """The same numbers from a network, and from what onnxruntime made of what was exported."""
    model = convdsl.load(text) if "\n" not in text else convdsl.parse(f"convdsl 1\n{text}")
    arrays = draw_inputs(model, N=1)
    path = tmp_path / "net.onnx"
    proto = onnx.load_model_from_string(convdsl.export(model, WEIGHTS))
    proto = saved(proto, Level.ORT_ENABLE_EXTENDED, path)
    found = {node.op_type for node in proto.graph.node if node.domain == MICROSOFT}
    assert NETWORKS[text] <= found
    (expected,) = run_convdsl(model, arrays, WEIGHTS).values()
    got = np.asarray(convdsl.compile(path, threads=1, cache=False)(*arrays.values()))
    np.testing.assert_allclose(got, expected, 0, 1e-4 * np.ptp(expected))


def test_what_is_laid_out_for_one_processor_is_refused_with_a_way_out(tmp_path):
    draw = Draw(1)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], "first"),
        helper.make_node("Relu", ["y"], ["z"], "second"),
    ]
    weights = {"w": draw.array((32, 32, 3, 3), -1, 1).astype("f4")}
    proto = file_of(nodes, {"x": (F, (1, 32, 9, 9))}, {"z": (F, None)}, weights)
    saved(proto, Level.ORT_ENABLE_ALL, tmp_path / "net.onnx")
    with pytest.raises(convdsl.InputError) as caught:
        convdsl.load(str(tmp_path / "net.onnx"))
    assert "ORT_ENABLE_EXTENDED" in str(caught.value)
