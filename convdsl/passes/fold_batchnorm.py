"""Batch normalisation at inference: absorbed by a neighbour, or one product and one sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from convdsl.ir.build import Build
from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.ir.windows import SAME
from convdsl.passes.rewrite import Pass, Pattern, Rewriter, rewrite_greedily


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Absorb batch normalisation into the convolution or linear layer before or after it.

    What finds no such neighbour becomes y = x * s + t with s and t computed at weight time
    (`expand`), which fuses into any kernel.
    """

    name: ClassVar[str] = "fold-batchnorm"
    expand: bool = True

    def run(self, graph: Graph) -> int:
        patterns: list[Pattern] = [FoldIntoProducer(), FoldIntoConsumer()]
        if self.expand:
            patterns.append(ExpandBatchNorm())
        return rewrite_greedily(graph, patterns)


def _is_foldable(node: OpNode, rewriter: Rewriter) -> bool:
    """A batch_norm whose statistics and affine map are known once weights are bound."""
    if node.op.name != "batch_norm":
        return False
    return all(rewriter.is_bound(value) for name, value in node.inputs.items() if name != "x")


def scale_and_shift(node: OpNode, rewriter: Rewriter) -> tuple[Value, Value]:
    """s = weight / sqrt(var + eps) and t = bias - mean * s, per channel."""
    build, inputs = rewriter.at(node), node.inputs
    mean, var = inputs["running_mean"], inputs["running_var"]
    dtype = var.type.dtype
    eps = build.fill(node.attributes["eps"], (), dtype, name="eps")
    deviation = build("sqrt", build("add", var, eps, name="variance"), name="deviation")
    gain = inputs.get("weight") or build.fill(1.0, (), dtype, name="one")
    scale = build("div", gain, deviation, name="scale")
    offset = inputs.get("bias") or build.fill(0.0, (), dtype, name="zero")
    centre = build("mul", mean, scale, name="centre")
    return scale, build("sub", offset, centre, name="shift")


class FoldIntoProducer(Pattern):
    """batch_norm(conv(x, w, b))  ->  conv(x, w', b'); conv2d, conv_transpose or linear.

        w' = w * s  along output channels
        b' = b * s + t

    Requires: weights and statistics are bound, not updated; the conv has exactly one user.
    """

    def rewrite(self, node: OpNode, rewriter: Rewriter) -> bool:
        if not _is_foldable(node, rewriter):
            return False
        conv = node.inputs["x"].node
        if not isinstance(conv, OpNode) or not _is_absorbing(conv, rewriter):
            return False
        alone = [user for user, _ in rewriter.graph.users(conv.output)] == [node]
        if not alone or rewriter.graph.is_result(conv.output):
            return False
        if conv.op.name == "linear" and conv.output.type.rank != 2:
            return False  # the last axis there is not the one that batch_norm normalises
        scale, shift = scale_and_shift(node, rewriter)
        build = rewriter.at(conv)
        weight = _scale_outputs(conv, scale, build)
        if "bias" in conv.inputs:
            scaled = build("mul", conv.inputs["bias"], scale, name="bias_scaled")
            shift = build("add", scaled, shift, name="bias_folded")
        rewriter.replace(
            node, _apply_again(conv, weight, shift, conv.inputs["x"], rewriter), conv.name
        )
        return True


class FoldIntoConsumer(Pattern):
    """conv(batch_norm(x), w, b)  ->  conv(x, w', b'); conv2d or linear.

        w' = w * s  along input channels
        b' = b + sum over c, r, s of w[k, c, r, s] * t[c]

    Requires: weights and statistics are bound, not updated; the batch_norm has one user; no
    zeros are padded in between, which would not be normalised.
    """

    def rewrite(self, node: OpNode, rewriter: Rewriter) -> bool:
        if not _is_foldable(node, rewriter) or len(node.outputs) != 1:
            return False
        users = rewriter.graph.users(node.output)
        if len(users) != 1 or rewriter.graph.is_result(node.output):
            return False
        conv, operand = users[0]
        if operand != "x" or not _is_absorbing(conv, rewriter) or not _keeps_channels(conv):
            return False
        scale, shift = scale_and_shift(node, rewriter)
        build = rewriter.at(conv)
        bias = _response(conv, shift, rewriter)
        if "bias" in conv.inputs:
            bias = build("add", conv.inputs["bias"], bias, name="bias_folded")
        weight = _scale_inputs(conv, scale, build)
        rewriter.replace(
            conv, _apply_again(conv, weight, bias, node.inputs["x"], rewriter), conv.name
        )
        return True


class ExpandBatchNorm(Pattern):
    """batch_norm(x)  ->  x * s + t with s, t of weight time: two maps, ready to be fused."""

    def rewrite(self, node: OpNode, rewriter: Rewriter) -> bool:
        if not _is_foldable(node, rewriter):
            return False
        x = node.inputs["x"]
        build = rewriter.at(node)
        scale, shift = scale_and_shift(node, rewriter)
        shape = (x.type.shape[1], *(1,) * (x.type.rank - 2))
        scaled = build("mul", x, build.reshape(scale, shape, name="scale_map"), name="scaled")
        shifted = build(
            "add", scaled, build.reshape(shift, shape, name="shift_map"), name="shifted"
        )
        rewriter.replace(node, shifted, node.name)
        return True


def _is_absorbing(node: OpNode, rewriter: Rewriter) -> bool:
    """A convolution or linear layer whose weights are known once weights are bound."""
    weights = [value for name, value in node.inputs.items() if name != "x"]
    known = node.op.name in ("conv", "conv_transpose", "linear")
    return known and all(map(rewriter.is_bound, weights))


def _keeps_channels(conv: OpNode) -> bool:
    """Whether an affine map of the input's channels passes through to weights and bias."""
    if conv.op.name == "linear":
        return conv.inputs["x"].type.rank == 2
    if conv.op.name != "conv":
        return False
    padding = conv.attributes["pad"]
    padded = padding == SAME or any(pair != (0, 0) for pair in padding)
    return not padded or conv.attributes["pad_mode"] != "zeros"


def _apply_again(conv: OpNode, weight: Value, bias: Value, x: Value, rewriter: Rewriter) -> Value:
    """The same layer over other weights, with a bias."""
    operands = {"x": x, "weight": weight, "bias": bias}
    attributes = {**conv.attributes, "bias": True}
    return rewriter.at(conv).apply(conv.op, operands, attributes, name="folded").output


def _scale_outputs(conv: OpNode, scale: Value, build: Build) -> Value:
    """w * s along output channels. Transposed weights are [C, K/G, R, S], groups along C."""
    weight = conv.inputs["weight"]
    shape, groups = weight.type.shape, conv.attributes.get("groups", 1)
    if conv.op.name != "conv_transpose":
        factors = build.reshape(scale, (shape[0], *(1,) * (len(shape) - 1)), name="scale_map")
        return build("mul", weight, factors, name="weight_folded")
    inputs, per_group, *taps = shape
    assert isinstance(inputs, int)
    grouped = build.reshape(
        weight, (groups, inputs // groups, per_group, *taps), name="weight_grouped"
    )
    factors = build.reshape(scale, (groups, 1, per_group, *(1,) * len(taps)), name="scale_map")
    scaled = build("mul", grouped, factors, name="weight_scaled")
    return build.reshape(scaled, shape, name="weight_folded")


def _scale_inputs(conv: OpNode, scale: Value, build: Build) -> Value:
    """w * s along input channels: group g of the filters sees channels g * C/G onwards."""
    weight = conv.inputs["weight"]
    outputs, per_group, *taps = weight.type.shape
    groups = conv.attributes.get("groups", 1)
    assert isinstance(outputs, int)
    grouped = build.reshape(
        weight, (groups, outputs // groups, per_group, *taps), name="weight_grouped"
    )
    factors = build.reshape(scale, (groups, 1, per_group, *(1,) * len(taps)), name="scale_map")
    scaled = build("mul", grouped, factors, name="weight_scaled")
    return build.reshape(scaled, weight.type.shape, name="weight_folded")


def _response(conv: OpNode, shift: Value, rewriter: Rewriter) -> Value:
    """What the layer makes of a constant t[c] everywhere: itself, applied to one full window."""
    build = rewriter.at(conv)
    weight = conv.inputs["weight"]
    channels, taps = shift.type.shape[0], weight.type.shape[2:]
    ones = (1,) * len(taps)
    image = build.reshape(shift, (1, channels, *ones), name="shift_image")
    attributes = {**conv.attributes, "bias": False}
    if taps:
        zeros = build.fill(0.0, (1, 1, *taps), shift.type.dtype, name="zeros")
        image = build("add", image, zeros, name="shift_window")
        attributes |= {"pad": 0, "stride": 1, "dilation": 1}
    operands = {"x": image, "weight": weight}
    answer = build.apply(conv.op, operands, attributes, name="shift_response").output
    return build.reshape(answer, (weight.type.shape[0],), name="shift_bias")
