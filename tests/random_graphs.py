"""Random branched graphs: groups, dilation, asymmetric padding, transposed layers, gates.

Drawn from a seed alone, so that a failure names its graph. They serve the analyses, the passes
and whatever compares two ways of running a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from graphs import Builder

from convdsl.ir.graph import Graph, Value
from convdsl.ir.opdef import OpError
from convdsl.tensor import DType

Step = Callable[["Growth"], "Value | None"]

LARGEST = 4096  # elements of one sample of a value


class Growth:
    """A graph as it grows: a pool of values of one rank, all usable as operands."""

    def __init__(self, random: Random, rank: int, batch: int, size: int, dtype: DType) -> None:
        self.random = random
        self.rank = rank
        self.b = Builder()
        channels = random.choice([2, 4, 6])
        shape = [size + random.randrange(3) for _ in range(rank)]
        self.pool = [self.b.input("x", batch, channels, *shape, dtype=dtype)]

    def pick(self) -> Value:
        """A value, later ones more likely."""
        weights = range(1, len(self.pool) + 1)
        return self.random.choices(self.pool, weights)[0]

    def sizes(self, options: Sequence[int]) -> tuple[int, ...]:
        return tuple(self.random.choice(options) for _ in range(self.rank))

    def padding(self, most: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Before and after each axis, up to `most`, independently."""
        return tuple((self.random.randint(0, m), self.random.randint(0, m)) for m in most)

    def groups(self, channels: int, outputs: int) -> int:
        return self.random.choice(
            [g for g in (1, 1, 2, 3, 4) if channels % g == 0 and outputs % g == 0]
        )

    def flag(self) -> bool:
        return self.random.random() < 0.5


def channels_of(value: Value) -> int:
    channels = value.type.shape[1]
    assert isinstance(channels, int)
    return channels


def convolution(g: Growth) -> Value:
    x, outputs = g.pick(), g.random.choice([2, 4, 6])
    kernel, dilation = g.sizes([1, 2, 3, 5]), g.sizes([1, 1, 2])
    return g.b(
        "conv",
        x,
        channels=outputs,
        kernel=kernel,
        stride=g.sizes([1, 1, 2]),
        dilation=dilation,
        pad=g.padding([d * (k - 1) // 2 + 1 for k, d in zip(kernel, dilation, strict=True)]),
        groups=g.groups(channels_of(x), outputs),
        bias=g.flag(),
        flip=g.flag(),
    )


def depthwise(g: Growth) -> Value:
    x = g.pick()
    channels = channels_of(x)
    return g.b("conv", x, channels=channels, kernel=3, groups=channels, bias=False,
               stride=g.sizes([1, 2]))  # fmt: skip


def transposed(g: Growth) -> Value:
    x, outputs = g.pick(), g.random.choice([2, 4])
    return g.b(
        "conv_transpose",
        x,
        channels=outputs,
        kernel=g.sizes([1, 2, 3, 4]),
        stride=g.sizes([1, 2, 3]),
        dilation=g.sizes([1, 1, 2]),
        groups=g.groups(channels_of(x), outputs),
        bias=g.flag(),
    )


def pooling(g: Growth) -> Value:
    kernel = g.sizes([2, 3])
    op = g.random.choice(["max_pool", "avg_pool"])
    pad = g.padding([k // 2 for k in kernel])
    more = {"count_include_pad": g.flag()} if op == "avg_pool" else {}
    return g.b(op, g.pick(), kernel=kernel, stride=g.sizes([1, 2]), pad=pad,
               ceil_mode=g.flag(), **more)  # fmt: skip


def batch_norm(g: Growth) -> Value:
    return g.b("batch_norm", g.pick(), affine=g.flag())


def activation(g: Growth) -> Value:
    return g.b(g.random.choice(["relu", "relu6"]), g.pick())


def copy(g: Growth) -> Value:
    return g.b(g.random.choice(["dropout", "identity"]), g.pick())


def join(g: Growth) -> Value | None:
    """Two values of one spatial size, brought to the same channels if need be."""
    a = g.pick()
    partners = [v for v in g.pool if v.type.shape[2:] == a.type.shape[2:]]
    b = g.random.choice(partners)
    if g.flag():
        return g.b("concat", a, b) if channels_of(a) + channels_of(b) <= 12 else None
    if channels_of(a) != channels_of(b):
        b = g.b("conv", b, channels=channels_of(a), kernel=1)
    return g.b(g.random.choice(["add", "mul"]), a, b)


def difference(g: Growth) -> Value:
    """Of two values made alike, so that it may well be all zeros."""
    a = g.pick()
    return g.b("sub", a, g.random.choice([v for v in g.pool if v.type == a.type]))


def gate(g: Growth) -> Value:
    """Squeeze and excite."""
    x = g.pick()
    h = g.b("avg_pool", x, kernel="global")
    return g.b("mul", x, g.b("conv", h, channels=channels_of(x), kernel=1))


def scaled(g: Growth) -> Value:
    """Arithmetic with weights that stand in the graph on their own."""
    x = g.pick()
    name = f"gain{len(g.b.graph)}"
    ones = (1,) * g.rank
    gain = g.b.parameter(name, channels_of(x), *ones, dtype=x.type.dtype)
    return g.b(g.random.choice(["add", "mul"]), gain, x)


STEPS: tuple[Step, ...] = (
    convolution,
    convolution,
    depthwise,
    transposed,
    pooling,
    batch_norm,
    activation,
    copy,
    join,
    join,
    difference,
    gate,
    scaled,
)


# More operators, for gradients: their shapes are alike, so that branches meet again.

GATES = ("silu", "gelu", "mish", "elu", "sigmoid", "tanh", "softplus", "leaky_relu", "hardswish")


def gated(g: Growth) -> Value:
    return g.b(g.random.choice(GATES), g.pick())


def slope(g: Growth) -> Value:
    return g.b("prelu", g.pick(), shared=g.flag())


def normalised(g: Growth) -> Value:
    x = g.pick()
    match g.random.randrange(4):
        case 0:
            return g.b("layer_norm", x, axis=g.random.choice([1, -1]), eps=0.1)
        case 1:
            groups = g.groups(channels_of(x), channels_of(x))
            return g.b("group_norm", x, groups=groups, eps=0.1)
        case 2:
            return g.b("instance_norm", x, affine=g.flag(), eps=0.1)
        case _:
            return g.b("lrn", x, size=3, alpha=0.5)


def shares(g: Growth) -> Value:
    return g.b(g.random.choice(["softmax", "log_softmax"]), g.pick(), axis=g.random.choice([1, -1]))


def padded(g: Growth) -> Value:
    mode = g.random.choice(["zeros", "reflect", "replicate", "circular"])
    return g.b("pad", g.pick(), pad=g.padding([1] * g.rank), mode=mode)


def folded(g: Growth) -> Value:
    """A convolution with padding that is not zeros."""
    mode = g.random.choice(["reflect", "replicate", "circular"])
    return g.b("conv", g.pick(), channels=4, kernel=3, pad_mode=mode, stride=g.sizes([1, 2]))


def resized(g: Growth) -> Value:
    mode = g.random.choice(["nearest", "linear"])
    return g.b("resize", g.pick(), scale=g.random.choice([2.0, 0.5]), mode=mode)


def cut(g: Growth) -> Value:
    """Every other position of one axis, forwards or backwards."""
    step = g.random.choice([2, -1])
    return g.b("slice", g.pick(), axes=(g.random.randrange(1, g.rank + 2),), step=(step,))


def summed_up(g: Growth) -> Value:
    """A statistic along an axis, with which all of it is compared."""
    x = g.pick()
    kinds = ["sum", "mean", "max", "l2", "log_sum_exp", "sum_square"]
    axes = (g.random.randrange(1, g.rank + 2),)
    total = g.b(f"reduce_{g.random.choice(kinds)}", x, axes=axes, keepdims=True)
    return g.b(g.random.choice(["sub", "add"]), x, total)


def other_pooling(g: Growth) -> Value:
    match g.random.randrange(3):
        case 0:
            return g.b("lp_pool", g.pick(), kernel=2, order=2)
        case 1:
            return g.b("adaptive_avg_pool", g.pick(), size=3)
        case _:
            return g.b("adaptive_max_pool", g.pick(), size=3)


def chosen(g: Growth) -> Value:
    """The larger of two values, or one of them where the other is positive."""
    a = g.pick()
    b = g.random.choice([v for v in g.pool if v.type == a.type])
    if g.flag():
        return g.b(g.random.choice(["max", "min"]), a, b)
    zero = g.b.constant(f"zero{len(g.b.graph)}", 0.0, a.type.dtype)
    return g.b("where", g.b("greater", b, zero), a, g.b("mul", b, b))


def stopped(g: Growth) -> Value:
    x = g.pick()
    return g.b("mul", x, g.b("stop_gradient", g.b("sigmoid", x)))


def shared(g: Growth) -> Value:
    """One filter applied twice."""
    x = g.pick()
    channels = channels_of(x)
    space = (3,) * g.rank
    w = g.b.parameter(
        f"shared{len(g.b.graph)}.weight", channels, channels, *space, dtype=x.type.dtype
    )
    for _ in range(2):
        x = g.b("conv", x, states={"weight": w}, channels=channels, kernel=3, bias=False)
    return x


SMOOTH_STEPS: tuple[Step, ...] = (
    *STEPS,
    gated,
    gated,
    slope,
    normalised,
    shares,
    padded,
    folded,
    resized,
    cut,
    summed_up,
    other_pooling,
    chosen,
    stopped,
    shared,
)
"""What gradients are tried on."""


def smooth_graph(seed: int, dtype: DType = DType.F32) -> Graph:
    """A small graph of these, for gradients."""
    batch = 1 + seed % 2
    return random_graph(seed, steps=SMOOTH_STEPS, batch=batch, size=5, length=8, dtype=dtype)


def random_graph(
    seed: int,
    *,
    rank: int | None = None,
    batch: int = 2,
    size: int = 9,
    steps: Sequence[Step] = STEPS,
    length: int = 10,
    tail: bool = True,
    dtype: DType = DType.F32,
) -> Graph:
    """A graph of about `length` operators; with `tail` a classifier hangs on one output."""
    random = Random(seed)
    g = Growth(random, rank or random.choice([1, 2, 2, 2, 3]), batch, size, dtype)
    while len(g.pool) <= length:
        try:
            value = random.choice(steps)(g)
        except OpError:  # a window that does not fit
            continue
        if value is not None and _elements(value) <= LARGEST:
            g.pool.append(value)
    outputs = {"y": g.pool[-1]}
    if tail:
        h = g.b("linear", g.b("flatten", g.pick()), channels=3)
        outputs["logits"] = g.b("softmax", h)
    return g.b.output(**outputs)


def with_updates(graph: Graph, seed: int) -> Graph:
    """The graph with updates for some of its states, from old values of themselves and of others,
    so that many kinds of order and of circles come up; some readers see the new value. Positive
    states stay positive. Some values of the graph have running means, which are outputs."""
    random = Random(seed)
    b = Builder()
    b.graph = graph
    values = [v for node in graph.op_nodes() for v in node.outputs if v.type.dtype.is_float]
    states = [s.output for s in graph.states.values() if s.data is None]
    for state in states:
        alike = [s for s in states if s.type == state.type and _varies(s) == _varies(state)]
        other = random.choice(alike)
        share = b.constant(f"share of {state.name}", random.choice([0.25, 0.5, 1.0]))
        users = graph.users(state)
        match random.randrange(5):
            case 0:
                new = b("mul", state, share, name=f"new {state.name}")
            case 1:
                new = other
            case 2 | 3:
                sum = b("add", state, other, name=f"both {state.name}")
                new = b("mul", sum, share, name=f"new {state.name}")
            case _:
                continue  # a weight
        graph.updates[state.name] = new
        if users and random.random() < 0.4:
            graph.set_input(*random.choice(users), new)
    for number, value in enumerate(random.sample(values, 2)):
        mean = b.parameter(f"mean{number}", *value.type.sizes)
        half = b.constant(f"half{number}", 0.5)
        new = b("mul", b("add", mean, value), half, name=f"new mean{number}")
        graph.updates[mean.name] = new
        graph.outputs[mean.name] = b("add", random.choice([mean, new]), value)
    return graph


def _varies(state: Value) -> bool:
    return state.name.endswith("running_var")


def _elements(value: Value) -> int:
    total = 1
    for extent in value.type.shape[1:]:
        assert isinstance(extent, int)
        total *= extent
    return total
