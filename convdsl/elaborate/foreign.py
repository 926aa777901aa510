"""Words of other languages and frameworks, and what stands for them here."""

from __future__ import annotations

import re
from collections.abc import Collection

_DEPTHWISE = "bind what flows in, `y = ...`: y -> conv(y.channels, 3x3, groups = y.channels)"

_ATTENTION = 'the zoo has one: `use "zoo:vit.cnn": attention`, then attention(heads)'

_EMBEDDING = (
    "rows of a table by their numbers: `table = parameter([1000, 64])`, then take(table, ids, 0)"
)
_GATED = "a gated unit: `a, b = y -> split(2)`, then a * sigmoid(b); silu(b) or gelu(b) for others"
_RECURRENT = (
    "no layer goes from step to step in time: write conv along it, attention, or `for` over so"
    " many steps"
)
_FILLED = (
    "a constant table is parameter([4, 8, 8], weight = 0.0); of the sizes of a tensor `x` it is"
    " parameter([1], weight = 0.0) -> expand(x.shape)"
)
_TABLE = "a constant tensor is parameter([3], weight = [1, 2, 3])"
_DRAWN = "a table that is trained is parameter([4, 8]); what is drawn in each step is dropout"
_NOISE = "what is drawn in each step is dropout; other noise is an input, `input noise: f32[N, 8]`"
_COMPUTED = "a weight may be computed: conv(..., weight = w), of a tensor `w`"
_REARRANGED = (
    "axes move by transpose([0, 2, 3, 1]), several become one by flatten(2), any by reshape([...])"
)
_CROP = "write slice([2, 3], [top, left], [bottom, right])"

NAMES = {
    "true": "write `true`",
    "false": "write `false`",
    "noise": _NOISE,
    "gaussiannoise": _NOISE,
    "none": "leave the argument out: there is no value that stands for none",
    "null": "leave the argument out: there is no value that stands for none",
    "self": "write `in` for what flows into a block",
    "depthwise": _DEPTHWISE,
    "depthwiseconv": _DEPTHWISE,
    "dwconv": _DEPTHWISE,
    "separableconv": f"{_DEPTHWISE} -> conv(width, 1x1)",
    "sepconv": f"{_DEPTHWISE} -> conv(width, 1x1)",
    "gap": "write avgpool(global)",
    "globalavgpool": "write avgpool(global)",
    "globalaveragepool": "write avgpool(global)",
    "globalaveragepooling": "write avgpool(global)",
    "globalmaxpool": "write maxpool(global)",
    "globalmaxpooling": "write maxpool(global)",
    "dense": "write linear(features)",
    "fc": "write linear(features)",
    "fullyconnected": "write linear(features)",
    "sequential": "write `seq { ... }`, or a chain",
    "convolution": "write conv(width, 3x3)",
    "convtranspose": "write conv_transpose(width, 2x2, stride = 2)",
    "convolutiontranspose": "write conv_transpose(width, 2x2, stride = 2)",
    "pool": "write maxpool(2) or avgpool(2)",
    "pooling": "write maxpool(2) or avgpool(2)",
    "adaptiveavgpool": "write adaptive_avgpool(size), or avgpool(global)",
    "adaptivemaxpool": "write adaptive_maxpool(size), or maxpool(global)",
    "norm": "write bn, layer_norm, group_norm or instance_norm",
    "normalization": "write bn, layer_norm, group_norm or instance_norm",
    "depthtospace": "write pixel_shuffle(factor)",
    "subpixel": "write pixel_shuffle(factor)",
    "spacetodepth": "write pixel_unshuffle(factor)",
    "focus": "write pixel_unshuffle(factor)",
    "maskedfill": "write where(mask, value, x), of a mask such as greater(x, 0)",
    "gt": "write greater(a, b)",
    "ge": "write greater_equal(a, b)",
    "lt": "write less(a, b)",
    "le": "write less_equal(a, b)",
    "eq": "write equal(a, b)",
    "ne": "write not_equal(a, b)",
    "cat": "write concat(a, b)",
    "concatenate": "write concat(a, b)",
    "merge": "write concat(a, b), or a + b",
    "activation": "write relu, gelu, silu, ...",
    "upscale": "write upsample(2)",
    "view": "write reshape([N, ...]), or flatten",
    "shape": "write y.shape, y.channels, y.height of a tensor `y`",
    "print": "nothing is printed: `convdsl report` shows shapes",
    "attention": _ATTENTION,
    "selfattention": _ATTENTION,
    "multiheadattention": _ATTENTION,
    "mha": _ATTENTION,
    "mhsa": _ATTENTION,
    "residual": "bind what is added: `y = x -> ...`, then `x + y`",
    "skip": "bind what is added: `y = x -> ...`, then `x + y`",
    "training": "dropout and norms know whether they are trained: leave the condition out",
    "istraining": "dropout and norms know whether they are trained: leave the condition out",
    "spectralnorm": _COMPUTED,
    "weightnorm": _COMPUTED,
    "l2normalize": "write x / reduce_l2(x, [1], true)",
    "l2norm": "write x / reduce_l2(x, [1], true)",
    "normalize": "write bn or layer_norm; x / reduce_l2(x, [1], true) for vectors of length 1",
    "stack": "unsqueeze each, then concat(a, b, axis = ...)",
    "crop": _CROP,
    "centercrop": _CROP,
    "cropping": _CROP,
    "zeropad": "write pad(1), or pad([[1, 1], [1, 1]])",
    "zeropadding": "write pad(1), or pad([[1, 1], [1, 1]])",
    "channels": "write y.channels of a tensor `y`; axes are numbers, that of channels is 1",
    "embedding": _EMBEDDING,
    "nnembedding": _EMBEDDING,
    "embed": _EMBEDDING,
    "lookup": _EMBEDDING,
    "glu": _GATED,
    "swiglu": _GATED,
    "geglu": _GATED,
    "reglu": _GATED,
    "lstm": _RECURRENT,
    "lstmcell": _RECURRENT,
    "bilstm": _RECURRENT,
    "convlstm": _RECURRENT,
    "gru": _RECURRENT,
    "grucell": _RECURRENT,
    "bigru": _RECURRENT,
    "convgru": _RECURRENT,
    "rnn": _RECURRENT,
    "rnncell": _RECURRENT,
    "simplernn": _RECURRENT,
    "recurrent": _RECURRENT,
    "zeros": _FILLED,
    "ones": _FILLED.replace("0.0", "1.0"),
    "zeroslike": _FILLED,
    "oneslike": _FILLED.replace("0.0", "1.0"),
    "full": _FILLED,
    "fulllike": _FILLED,
    "fill": _FILLED,
    "empty": _FILLED,
    "constant": _TABLE,
    "tensor": _TABLE,
    "array": _TABLE,
    "arange": "write parameter([10], weight = range(10)); `range` is a list of numbers",
    "linspace": "write parameter([9], weight = for i in range(9) { i / 8 })",
    "eye": (
        "write parameter([4, 4], weight = for i in range(4)"
        " { for j in range(4) { if i == j { 1 } else { 0 } } })"
    ),
    "identitymatrix": "write parameter([4, 4], weight = for i in range(4) { ... }), row by row",
    "rand": _DRAWN,
    "randn": _DRAWN,
    "randomnormal": _DRAWN,
    "pi": "write the number: 3.141592653589793",
    "rearrange": _REARRANGED,
    "einopsrearrange": _REARRANGED,
    "swapaxes": "all axes in their new order: transpose([0, 2, 1])",
    "moveaxis": "all axes in their new order: transpose([0, 2, 1])",
    "einopsreduce": "write reduce_mean([2, 3]), reduce_max([2, 3])",
    "repeatinterleave": "write upsample(2, nearest) for space, or expand, then reshape",
    "broadcastto": "write expand([...])",
    "modulelist": "write `seq NAME { ... }`, or `repeat`",
}
"""Bare names, in lower case without `_` and without a number of axes at the end."""

ARGUMENTS = {
    "min": "low",
    "max": "high",
    "dim": "axis",
    "dims": "axes",
    "keepdim": "keepdims",
    "keep_dims": "keepdims",
    "filters": "channels",
    "units": "channels",
    "out_channels": "channels",
    "out_features": "channels",
    "num_filters": "channels",
    "kernel_size": "kernel",
    "kernel_shape": "kernel",
    "padding": "pad",
    "paddings": "pad",
    "strides": "stride",
    "out": "channels",
    "features": "channels",
    "width": "channels",
    "size": "kernel",
    "pool_size": "kernel",
    "rate": "p",
    "prob": "p",
    "probability": "p",
    "alpha": "slope",
    "ksize": "kernel",
    "dilation_rate": "dilation",
    "padding_mode": "pad_mode",
    "use_bias": "bias",
    "scale_factor": "scale",
    "size_factor": "scale",
    "epsilon": "eps",
    "negative_slope": "slope",
    "inplace": "",
    "in_channels": "",
    "in_features": "",
    "num_features": "",
    "num_channels": "",
    "init": "weight",
    "initial": "weight",
    "initializer": "weight",
    "kernel_initializer": "weight",
    "training": "",
}
"""Keywords of operators; without any where it follows from what flows in, or means nothing."""


OPEN_SIZES = frozenset(["", "none", "null", "nil", "any", "nan", "inf", "true", "false"])
"""Words for a size that stays open, or for none, in lower case without `_` around them."""

ELEMENT_TYPES = {
    "float": "f32",
    "single": "f32",
    "double": "f64",
    "half": "f16",
    "bfloat": "bf16",
    "int": "i64",
    "long": "i64",
    "byte": "u8",
    "uint": "u8",
    "char": "i8",
    "boolean": "bool",
    "mask": "bool",
}
"""Element types, in lower case without their bits."""

WITH_BITS = {
    "float16": "f16",
    "float64": "f64",
    "int8": "i8",
    "int32": "i32",
}
"""Those that mean another type with their bits than without."""


def element_type(word: str) -> tuple[str, ...]:
    """Help for an unknown element type, where it is one of elsewhere."""
    plain = word.lower()
    meant = WITH_BITS.get(plain) or ELEMENT_TYPES.get(re.sub(r"\d+$", "", plain))
    return (f"did you mean `{meant}`?",) if meant else ()


def name(word: str) -> tuple[str, ...]:
    """Help for an unknown name, where it is one of elsewhere."""
    plain = re.sub(r"_|[123]d$", "", word.lower())
    return (NAMES[plain],) if plain in NAMES else ()


def method(said: str, word: str) -> tuple[str, ...]:
    """Help for what other libraries call on a tensor `said`."""
    type = element_type(word)
    if type:
        return (f"write `{said} -> cast({type[0].split('`')[1]})`",)
    if word.lower() in ("t", "mt"):
        return (f"all axes in their new order: `{said} -> transpose([0, 2, 1])`",)
    if word in ("contiguous", "clone", "to", "cuda", "cpu"):
        return ("leave it out: where and how tensors lie is decided elsewhere",)
    return name(word)


def argument(word: str, known: Collection[str]) -> tuple[str, ...]:
    """Help for an unknown keyword of an operator, where it is one of elsewhere."""
    meant = ARGUMENTS.get(word)
    if word in SPREADS:
        return (_WIDELY,)
    if word == "trainable":
        return ("what has `weight = [...]` is a constant, all else is trained: leave it out",)
    if word in ("activation", "act", "nonlinearity"):
        return ("layers follow each other: conv(...) -> relu",)
    if word == "name":
        return ("a name stands behind the layer: `conv(...) as stem`",)
    if word == "size" and "stop" in known:
        return ("a part goes from `start` up to `stop`, which is `start` and the size",)
    if meant == "":
        return ("leave it out: it follows from what flows in, or means nothing here",)
    if meant == "axis" and meant not in known:
        meant = "axes"
    return (f"did you mean `{meant}`?",) if meant in known else ()


SPREADS = ("std", "stddev", "gain", "init_std", "init_range")
_WIDELY = (
    "what is drawn is as wide as a layer's inputs ask for; another width is a factor behind it"
)

WORDS = {
    "mirror": "reflect",
    "edge": "replicate",
    "border": "replicate",
    "clamp": "replicate",
    "wrap": "circular",
    "periodic": "circular",
    "constant": "zeros",
    "zero": "zeros",
}
"""Words that stand for an attribute's value elsewhere: how a border is filled."""

_LIKE = "what is drawn as widely as a layer asks for is `kaiming_uniform`, as it starts anyway"

STARTS = {
    **dict.fromkeys(
        ("normal", "uniform", "gaussian", "random", "truncnormal", "truncatednormal", "xavier",
         "xavieruniform", "xaviernormal", "glorot", "glorotuniform", "glorotnormal", "he",
         "henormal", "heuniform", "kaiming", "kaimingnormal", "lecun", "lecunnormal", "orthogonal",
         "default"),
        _LIKE,
    ),
    "zero": "did you mean `zeros`?",
    "one": "did you mean `ones`?",
    "constant": "write weight = initial(0.5); weight = 0.5 is not trained",
    "identity": "write the rows in a list, or `kaiming_uniform`",
    "dirac": "write the rows in a list, or `kaiming_uniform`",
}  # fmt: skip
"""Words for what a weight starts from elsewhere, in lower case without `_`."""


def start(word: str) -> tuple[str, ...]:
    """Help for a word that no weight starts from here, where it is one of elsewhere."""
    meant = STARTS.get(word.lower().replace("_", "").strip('"'))
    return (meant,) if meant is not None else ()


def value(word: str, known: Collection[str]) -> tuple[str, ...]:
    """Help for a word that an attribute does not take, where it is one of elsewhere."""
    meant = WORDS.get(word.lower())
    if word.lower() in ("cubic", "bicubic", "lanczos", "area") and "linear" in known:
        return ("nothing is smoother here than `linear`; `grid_sample` has `cubic`",)
    return (f"did you mean `{meant}`?",) if meant in known else ()


def flowing(function: str, call: str) -> str:
    """Help for a function that a tensor flows into."""
    if function == "initial":
        said = call if len(call) <= _SHORT and "\n" not in call else "initial(0.5)"
        return f"it is what a weight starts from: `conv(..., bias = {said})`"
    if function == "sum":
        return "of a list of tensors: `sum([a, b])`; along axes `x -> reduce_sum([1])`"
    if function in ("zip", "enumerate", "reversed", "range", "len"):
        return f"it is of lists: `{function}(...)`, in `for` or behind `let`"
    return f"it is of numbers, when the file is loaded: `let n = {function}(...)`"


_SHORT = 24
"""Letters of a call that is shown as it is written."""
