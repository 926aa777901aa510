"""Every operator spelled in PyTorch, by name: a function of the call and its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch.nn import functional as F

from convdsl.ir.opdef import Call
from convdsl.ir.windows import explicit_window

Tensor: TypeAlias = torch.Tensor
Tensors: TypeAlias = Mapping[str, Tensor]
Rule: TypeAlias = Callable[[Call, Tensors], "Tensor | Sequence[Tensor]"]

DTYPES = {"f32": torch.float32, "f64": torch.float64, "i64": torch.int64, "bool": torch.bool}
PAD_MODES = {
    "zeros": "constant",
    "reflect": "reflect",
    "replicate": "replicate",
    "circular": "circular",
}


def by_rank(name: str, rank: int) -> Callable[..., Any]:
    """`max_pool` and rank 2: F.max_pool2d."""
    return getattr(F, f"{name}{rank}d")


def outwards(padding: Sequence[tuple[int, int]]) -> list[int]:
    """PyTorch's order: the last axis first."""
    return [amount for pair in reversed(padding) for amount in pair]


def conv(call: Call, t: Tensors) -> Tensor:
    window = explicit_window(call)
    x = F.pad(t["x"], outwards(window.padding), mode=PAD_MODES[call["pad_mode"]])
    weight = t["weight"]
    if call["flip"]:
        weight = weight.flip(tuple(range(2, weight.ndim)))
    return by_rank("conv", window.rank)(
        x, weight, t.get("bias"), window.stride, 0, window.dilation, call["groups"]
    )


def conv_transpose(call: Call, t: Tensors) -> Tensor:
    """Padding on one side only is cut off afterwards."""
    rank = len(call["kernel"])
    extra = call["output_pad"]
    y = by_rank("conv_transpose", rank)(
        t["x"], t["weight"], t.get("bias"), call["stride"], 0, extra, call["groups"],
        call["dilation"],
    )  # fmt: skip
    for axis, (before, after) in enumerate(call["pad"], start=2):
        y = y.narrow(axis, before, y.shape[axis] - before - after)
    return y


def pooled(call: Call, x: Tensor, fill: float) -> tuple[Tensor, list[int], list[int], list[int]]:
    """x padded apart, since PyTorch pads both sides alike; kernel, stride, dilation."""
    if call["kernel"] == "global":
        rank = x.ndim - 2
        return x, list(x.shape[2:]), [1] * rank, [1] * rank
    window = explicit_window(call)
    padded = F.pad(x, outwards(window.padding), value=fill)
    return padded, list(window.kernel), list(window.stride), list(window.dilation)


def symmetric(call: Call) -> list[int] | None:
    """The padding PyTorch itself can do."""
    if call["kernel"] == "global":
        return [0] * (call.type("x").rank - 2)
    pairs = explicit_window(call).padding
    return [before for before, _ in pairs] if all(a == b for a, b in pairs) else None


def max_pool(call: Call, t: Tensors) -> Any:
    """Positions of the largest, too; in the unpadded space."""
    x, kernel, stride, dilation = pooled(call, t["x"], -float("inf"))
    ceil = call.attributes.get("ceil_mode", False) if call["kernel"] != "global" else False
    around = symmetric(call)
    rank = x.ndim - 2
    function = by_rank("max_pool", rank)
    if around is not None:
        y, places = function(
            t["x"], kernel, stride, around, dilation, ceil_mode=ceil, return_indices=True
        )
    else:
        y, places = function(x, kernel, stride, 0, dilation, ceil_mode=ceil, return_indices=True)
        places = unpadded(places, x.shape[2:], t["x"].shape[2:], explicit_window(call).padding)
    return crop(call, y), crop(call, places)


def unpadded(places: Tensor, padded: Any, space: Any, padding: Any) -> Tensor:
    result = torch.zeros_like(places)
    scale = 1
    for axis in reversed(range(len(space))):
        at = places % padded[axis] - padding[axis][0]
        places = places // padded[axis]
        result = result + at * scale
        scale *= space[axis]
    return result


def crop(call: Call, y: Tensor) -> Tensor:
    """Without the windows that start behind the input, which padding apart lets PyTorch make."""
    for axis, extent in enumerate(call.outputs[0].shape):
        y = y.narrow(axis, 0, extent)
    return y


def avg_pool(call: Call, t: Tensors) -> Tensor:
    """Sums over counts, both by PyTorch, where it cannot pad by itself."""
    x, kernel, stride, _ = pooled(call, t["x"], 0.0)
    rank, count = x.ndim - 2, call["count_include_pad"]
    if call["kernel"] == "global":
        return t["x"].mean(tuple(range(2, x.ndim)), keepdim=True)
    around, ceil = symmetric(call), call["ceil_mode"]
    function = by_rank("avg_pool", rank)
    if around is not None:
        return function(t["x"], kernel, stride, around, ceil, count)
    ones = (
        torch.ones_like(x)
        if count
        else F.pad(torch.ones_like(t["x"]), outwards(explicit_window(call).padding))
    )
    total, counted = (
        by_rank("avg_pool", rank)(F.pad(v, [0, max(stride)] * rank), kernel, stride)
        for v in (x, ones)
    )
    return crop(call, total / counted)


def lp_pool(call: Call, t: Tensors) -> Tensor:
    """A convolution with ones over powers."""
    x, kernel, stride, dilation = pooled(call, t["x"], 0.0)
    rank, order = x.ndim - 2, call["order"]
    x = F.pad(x, [0, max(stride) * (call["kernel"] != "global")] * rank)
    channels = x.shape[1]
    ones = torch.ones((channels, 1, *kernel), dtype=x.dtype)
    total = by_rank("conv", rank)(x.abs() ** order, ones, None, stride, 0, dilation, channels)
    return crop(call, total ** (1 / order))


def max_unpool(call: Call, t: Tensors) -> Tensor:
    rank = len(call["kernel"])
    y = torch.zeros(call.outputs[0].shape, dtype=t["x"].dtype).flatten(2)
    places, values = t["positions"].flatten(2), t["x"].flatten(2)
    assert rank == t["x"].ndim - 2
    for i in range(values.shape[2]):  # one by one: the later of two wins
        y.scatter_(2, places[:, :, i : i + 1], values[:, :, i : i + 1])
    return y.reshape(call.outputs[0].shape)


def adaptive(kind: str) -> Rule:
    def rule(call: Call, t: Tensors) -> Tensor:
        return by_rank(f"adaptive_{kind}_pool", len(call["size"]))(t["x"], call["size"])

    return rule


def batch_norm(call: Call, t: Tensors) -> Tensor:
    return F.batch_norm(
        t["x"], t["running_mean"], t["running_var"], t.get("weight"), t.get("bias"),
        eps=call["eps"],
    )  # fmt: skip


def layer_norm(call: Call, t: Tensors) -> Tensor:
    shape = t["x"].shape[call["axis"] :]
    return F.layer_norm(t["x"], shape, t.get("weight"), t.get("bias"), call["eps"])


def group_norm(call: Call, t: Tensors) -> Tensor:
    return F.group_norm(t["x"], call["groups"], t.get("weight"), t.get("bias"), call["eps"])


def instance_norm(call: Call, t: Tensors) -> Tensor:
    return F.group_norm(t["x"], t["x"].shape[1], t.get("weight"), t.get("bias"), call["eps"])


def lrn(call: Call, t: Tensors) -> Tensor:
    return F.local_response_norm(t["x"], call["size"], call["alpha"], call["beta"], call["k"])


def gelu(call: Call, t: Tensors) -> Tensor:
    """PyTorch's answers at infinities depend on the processor; the formula's stand in for them."""
    x, y = t["x"], F.gelu(t["x"], approximate=call["approximate"])
    y = torch.where(x == torch.inf, x, y)
    return torch.where(x == -torch.inf, torch.nan, y)


def hardsigmoid(call: Call, t: Tensors) -> Tensor:
    return (t["x"] * call["slope"] + call["offset"]).clamp(0, 1)


def prelu(call: Call, t: Tensors) -> Tensor:
    return F.prelu(t["x"], t["weight"])


def reduction(name: str) -> Rule:
    def rule(call: Call, t: Tensors) -> Tensor:
        return getattr(torch, name)(t["x"], dim=call["axes"], keepdim=call["keepdims"])

    return rule


def prod(call: Call, t: Tensors) -> Tensor:
    y = t["x"]
    for axis in reversed(call["axes"]):
        y = y.prod(axis, keepdim=call["keepdims"])
    return y


def norm(order: int) -> Rule:
    def rule(call: Call, t: Tensors) -> Tensor:
        return torch.linalg.vector_norm(t["x"], order, call["axes"], call["keepdims"])

    return rule


def arg(name: str) -> Rule:
    def rule(call: Call, t: Tensors) -> Tensor:
        return getattr(torch, name)(t["x"], call["axis"], keepdim=call["keepdims"])

    return rule


def top_k(call: Call, t: Tensors) -> Sequence[Tensor]:
    """By a stable sort: torch.topk leaves the order of equals open."""
    values, places = torch.sort(t["x"], dim=call["axis"], descending=call["largest"], stable=True)
    return [v.narrow(call["axis"], 0, call["k"]) for v in (values, places)]


def slice_(call: Call, t: Tensors) -> Tensor:
    """By NumPy, which steps backwards."""
    cuts = [slice(None)] * t["x"].ndim
    words = {"begin": None, "end": None}
    for axis, start, stop, step in zip(
        call["axes"], call["start"], call["stop"], call["step"], strict=True
    ):
        cuts[axis] = slice(words.get(start, start), words.get(stop, stop), step)
    return torch.from_numpy(t["x"].numpy()[tuple(cuts)].copy())


def pad(call: Call, t: Tensors) -> Tensor:
    x, axes = t["x"], call["axes"]
    if call["mode"] == "zeros":
        pairs = [(0, 0)] * x.ndim
        for axis, pair in zip(axes, call["pad"], strict=True):
            pairs[axis] = pair
        fill = bool(call["value"]) if x.dtype is torch.bool else call["value"]
        return F.pad(x, outwards(pairs), value=fill)
    for axis, pair in zip(axes, call["pad"], strict=True):  # folding is separable
        line = x.movedim(axis, -1)
        flat = line.reshape(1, -1, line.shape[-1])
        made = F.pad(flat, pair, mode=PAD_MODES[call["mode"]])
        x = made.reshape(*line.shape[:-1], made.shape[-1]).movedim(-1, axis)
    return x


def has_pytorch(call: Call) -> bool:
    """False for the resize conventions that PyTorch lacks."""
    if call.op.name != "resize":
        return True
    if call["mode"] == "nearest":
        return call["coordinates"] == "asymmetric" and call["rounding"] == "floor"
    return call["coordinates"] in ("half_pixel", "align_corners")


def resize(call: Call, t: Tensors) -> Tensor:
    linear = ("linear", "bilinear", "trilinear")[t["x"].ndim - 3]
    sizes: dict[str, Any] = {"size": call["size"]}
    if call["scale"] != "fitting":
        sizes = {"scale_factor": call["scale"]}
    if call["mode"] == "nearest":
        return F.interpolate(t["x"], mode="nearest", **sizes)
    corners = call["coordinates"] == "align_corners"
    return F.interpolate(t["x"], mode=linear, align_corners=corners, **sizes)


def channel_shuffle(call: Call, t: Tensors) -> Tensor:
    n, c, *space = t["x"].shape
    groups = call["groups"]
    return t["x"].reshape(n, groups, c // groups, *space).transpose(1, 2).reshape(n, c, *space)


def moved_pixels(function: Callable[[Tensor, int], Tensor]) -> Rule:
    """PyTorch moves no masks."""

    def rule(call: Call, t: Tensors) -> Tensor:
        x = t["x"]
        return function(x.to(torch.float64), call["factor"][0]).to(x.dtype)

    return rule


def of_x(function: Callable[..., Any], *attributes: str) -> Rule:
    """function(x, attributes..)"""
    return lambda call, t: function(t["x"], *(call[name] for name in attributes))


def of_all(function: Callable[..., Any]) -> Rule:
    """function(operands in order)"""
    return lambda call, t: function(*t.values())


RULES: dict[str, Rule] = {
    "conv": conv,
    "conv_transpose": conv_transpose,
    "linear": lambda call, t: F.linear(t["x"], t["weight"], t.get("bias")),
    "matmul": of_all(torch.matmul),
    "max_pool": lambda call, t: max_pool(call, t)[0],
    "max_pool_with_positions": max_pool,
    "avg_pool": avg_pool,
    "lp_pool": lp_pool,
    "adaptive_avg_pool": adaptive("avg"),
    "adaptive_max_pool": adaptive("max"),
    "max_unpool": max_unpool,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "lrn": lrn,
    "relu": of_x(F.relu),
    "relu6": of_x(F.relu6),
    "leaky_relu": of_x(F.leaky_relu, "slope"),
    "prelu": prelu,
    "elu": of_x(F.elu, "alpha"),
    "selu": of_x(F.selu),
    "celu": of_x(F.celu, "alpha"),
    "gelu": gelu,
    "silu": of_x(F.silu),
    "mish": of_x(F.mish),
    "hardswish": of_x(F.hardswish),
    "hardsigmoid": hardsigmoid,
    "sigmoid": of_x(torch.sigmoid),
    "tanh": of_x(torch.tanh),
    "softplus": of_x(F.softplus, "beta"),
    "softsign": of_x(F.softsign),
    "softmax": of_x(F.softmax, "axis"),
    "log_softmax": of_x(F.log_softmax, "axis"),
    "add": of_all(torch.add),
    "sub": of_all(torch.sub),
    "mul": of_all(torch.mul),
    "div": of_all(torch.div),
    "pow": of_all(torch.pow),
    "min": of_all(torch.minimum),
    "max": of_all(torch.maximum),
    "equal": of_all(torch.eq),
    "not_equal": of_all(torch.ne),
    "less": of_all(torch.lt),
    "less_equal": of_all(torch.le),
    "greater": of_all(torch.gt),
    "greater_equal": of_all(torch.ge),
    "logical_and": of_all(torch.logical_and),
    "logical_or": of_all(torch.logical_or),
    "logical_xor": of_all(torch.logical_xor),
    "logical_not": of_all(torch.logical_not),
    "isnan": of_x(torch.isnan),
    "sqrt": of_x(torch.sqrt),
    "neg": of_x(torch.neg),
    "abs": of_x(torch.abs),
    "exp": of_x(torch.exp),
    "log": of_x(torch.log),
    "reciprocal": of_x(torch.reciprocal),
    "erf": of_x(torch.erf),
    "floor": of_x(torch.floor),
    "ceil": of_x(torch.ceil),
    "round": of_x(torch.round),
    "sign": lambda call, t: torch.where(t["x"].isnan(), t["x"], torch.sign(t["x"])),
    "where": of_all(torch.where),
    "clip": of_x(torch.clamp, "low", "high"),
    "cast": lambda call, t: t["x"].to(DTYPES[call["dtype"]]),
    "identity": of_x(torch.clone),
    "parameter": lambda call, t: t["weight"].clone(),
    "dropout": lambda call, t: F.dropout(t["x"], call["p"], training=False),
    "reduce_sum": reduction("sum"),
    "reduce_mean": reduction("mean"),
    "reduce_max": reduction("amax"),
    "reduce_min": reduction("amin"),
    "reduce_prod": prod,
    "reduce_l1": norm(1),
    "reduce_l2": norm(2),
    "reduce_sum_square": lambda call, t: reduction("sum")(call, {"x": t["x"] ** 2}),
    "reduce_log_sum_exp": reduction("logsumexp"),
    "argmax": arg("argmax"),
    "argmin": arg("argmin"),
    "top_k": top_k,
    "concat": lambda call, t: torch.cat(list(t.values()), call["axis"]),
    "split": of_x(torch.split, "parts", "axis"),
    "slice": slice_,
    "pad": pad,
    "expand": of_x(torch.Tensor.expand, "shape"),
    "tile": of_x(torch.tile, "repeats"),
    "flatten": of_x(torch.flatten, "start", "end"),
    "reshape": of_x(torch.reshape, "shape"),
    "squeeze": of_x(torch.squeeze, "axes"),
    "unsqueeze": lambda call, t: t["x"].reshape(call.outputs[0].shape),
    "transpose": of_x(torch.permute, "axes"),
    "channel_shuffle": channel_shuffle,
    "pixel_shuffle": moved_pixels(F.pixel_shuffle),
    "pixel_unshuffle": moved_pixels(F.pixel_unshuffle),
    "resize": resize,
}
