"""Words of other languages and frameworks, and what stands for them here."""

from __future__ import annotations

import re
from collections.abc import Collection

_DEPTHWISE = "write conv(in.channels, 3x3, groups = in.channels)"

NAMES = {
    "true": "write `true`",
    "false": "write `false`",
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
    "modulelist": "write `seq NAME { ... }`, or `repeat`",
}
"""Bare names, in lower case without `_` and without a number of axes at the end."""

ARGUMENTS = {
    "dim": "axis",
    "dims": "axes",
    "filters": "channels",
    "units": "channels",
    "out_channels": "channels",
    "out_features": "channels",
    "num_filters": "channels",
    "kernel_shape": "kernel",
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
}
"""Keywords of operators; without any where it follows from what flows in, or means nothing."""


def name(word: str) -> tuple[str, ...]:
    """Help for an unknown name, where it is one of elsewhere."""
    plain = re.sub(r"_|[123]d$", "", word.lower())
    return (NAMES[plain],) if plain in NAMES else ()


def argument(word: str, known: Collection[str]) -> tuple[str, ...]:
    """Help for an unknown keyword of an operator, where it is one of elsewhere."""
    meant = ARGUMENTS.get(word)
    if meant == "":
        return ("leave it out: it follows from what flows in, or means nothing here",)
    return (f"did you mean `{meant}`?",) if meant in known else ()
