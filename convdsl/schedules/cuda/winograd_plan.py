"""Which form a Winograd convolution takes on a card, and how long it should take.

Three kernels, or four: what transforms the inputs, the products, what transforms their results back
and goes on with the epilogue; before them, where filters are known in calls only, what transforms
these. Between them lie, of P products a tile,

    V[G P][tiles][C]    M[G P][tiles][K]

in memory, each written and read once. That is what a form costs, beside the multiply-adds it saves.

On the tensor units V and U are rounded once more than the factors of direct sums are: after the
transforms, where they are stored. Only forms that let such errors grow little run there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import prod

from convdsl.kernel.cuda_target import CudaTarget
from convdsl.kernel.expr import Axis, Binary, Cast, Expr, Read, Reduce, Stage, TensorVar
from convdsl.kernel.layout import Layout
from convdsl.kernel.mma import TF32
from convdsl.schedules.contraction import Convolution, match_convolution
from convdsl.schedules.cuda.costs import LAUNCH, moved_bytes, nanoseconds, spread
from convdsl.schedules.cuda.layouts import channels_last
from convdsl.schedules.cuda.plan import Plan, plan_for
from convdsl.schedules.cuda.tile import VECTOR, form_of
from convdsl.schedules.cuda.winograd_filters import whole_vectors
from convdsl.schedules.task import Operand, Output, Task
from convdsl.schedules.winograd_tiling import Tiling, tilings
from convdsl.tensor import DType, TensorType

TILES, FILTERS, PRODUCTS = "tiles", "filters", "products"
"""What the kernels hand on to each other."""

_HELD = 72
"""Numbers of a tile that a thread holds: with as many again for what it makes of them it stays
within the registers that a multiprocessor has for two blocks of its threads."""

_PASSED = 1.2
"""How much longer transforms take than their bytes: an H100 took 1.15 to 1.26 times as long."""

_ROUNDING = 2.0
"""The largest growth of errors that is allowed where V and U are rounded to TF32, in rms: F(2, 3)
along both axes has 1.7, F(4, 3) along one 2.9. Direct sums are off by 3e-4 to 5e-4 of the output's
range, and a thousandth is what TF32 is promised to stay within."""


@dataclass(frozen=True)
class Winograd:
    """How one convolution is run: the tiling; the type that V and U are stored in; how the input is
    read; whether filters are known in calls only (`late`); the products as a task of their own, and
    how that is run."""

    task: Task
    conv: Convolution
    tiling: Tiling
    stored: DType
    x: Layout
    late: bool
    product: Task
    plan: Plan

    @property
    def said(self) -> str:
        """The form, and how much larger than those of direct sums errors may be."""
        if self.stored is DType.F32:
            return self.tiling.said
        return f"{self.tiling.forms}, errors x {self.tiling.rounding:.1f}"

    @property
    def channels(self) -> int:
        """Of the inputs of a group, in whole vectors."""
        return whole_vectors(self.conv.channels_in)

    @property
    def filters(self) -> int:
        """Outputs of a group, in whole vectors."""
        return whole_vectors(self.conv.channels_out)

    @property
    def lanes(self) -> int:
        """Neighbouring channels that a thread transforms."""
        return next(n for n in (VECTOR, 2, 1) if n * self.tiling.products <= _HELD or n == 1)

    @property
    def matrices(self) -> int:
        return self.conv.groups * self.tiling.products

    @property
    def inputs_size(self) -> int:
        """Elements of V."""
        return self.matrices * self.tiling.count * self.channels

    @property
    def filters_size(self) -> int:
        """Elements of U, as it lies where it is made in calls."""
        return self.matrices * self.channels * self.filters

    @property
    def products_size(self) -> int:
        """Elements of M."""
        return self.matrices * self.tiling.count * self.filters

    @property
    def packs_input(self) -> bool:
        """Whether the input is brought to channels inside in each call."""
        return self.task.operand(self.conv.x.tensor.name).layout != self.x

    @cached_property
    def rest(self) -> Task:
        """The task with the operands of its epilogue alone."""
        own = (self.conv.x.tensor, self.conv.w.tensor)
        kept = (
            o for o in self.task.operands if o.var not in own or self.task.read_again(o.var.name)
        )
        return replace(self.task, operands=tuple(kept))

    @property
    def whole_vectors(self) -> bool:
        """Whether neighbouring channels are neighbours in all that leaves: what lies beyond the
        last one is filling there too."""
        return all(o.layout == self.task.layout and o.at is None for o in self.task.outputs)

    def nanoseconds(self, target: CudaTarget) -> float:
        """Predicted time of all kernels."""
        made = self.plan.nanoseconds(self.product, target)
        made += self._inputs(target) + self._outputs(target)
        if self.late:
            made += self._filters(target)
        return made

    def _inputs(self, target: CudaTarget) -> float:
        size = 4.0 * self.x.size
        accesses = 2 * self.inputs_size / self.lanes
        made = nanoseconds(target, _PASSED * (size + 4.0 * self.inputs_size), accesses)
        return made + (LAUNCH + 1e9 * 2 * size / target.facts.bandwidth) * self.packs_input

    def _outputs(self, target: CudaTarget) -> float:
        vectors = self.products_size / self.tiling.products / self.lanes
        accesses = vectors * self.tiling.products
        for output in self.task.outputs:
            place = {axis.name: axis.i for axis in self.task.axes}
            apart = spread(output.offset(place, self.task.axes), self.conv.k.name, self.lanes)
            times = 1.0 if self.whole_vectors else self.lanes * apart
            accesses += vectors * self.tiling.outputs * times
        moved = moved_bytes(self.rest) + 4.0 * self.products_size
        return nanoseconds(target, _PASSED * moved, accesses)

    def _filters(self, target: CudaTarget) -> float:
        """Neighbouring threads read filters that lie apart."""
        taps = self.conv.taps
        size = prod(self.conv.w.tensor.type.sizes)
        accesses = self.filters_size / self.tiling.products * (taps * 8 + self.tiling.products)
        return nanoseconds(target, 4.0 * (size + self.filters_size), accesses)


@lru_cache(maxsize=512)
def winograd_for(task: Task, target: CudaTarget) -> Winograd | None:
    """The fastest form; None where none applies."""
    return min(forms(task, target), key=lambda made: made.nanoseconds(target), default=None)


def forms(task: Task, target: CudaTarget) -> Iterator[Winograd]:
    """All that apply: of f32 in f32, or in TF32 where rounding grows little."""
    conv = match_convolution(task.root, stored=True)
    if conv is None or not _applies(task, conv):
        return
    form, _ = form_of(target, DType.F32, DType.F32)
    if form not in (None, TF32):
        return
    stored = DType.F32 if form is None else DType.TF32
    x = task.operand(conv.x.tensor.name).layout
    assert x is not None
    if x.axis is None:
        x = channels_last(x.shape, DType.F32)
    late = not task.operand(conv.w.tensor.name).static
    for tiling in tilings(conv):
        if form is not None and tiling.rounding > _ROUNDING:
            continue
        product = _product(conv, tiling, stored, late)
        plan = plan_for(product, target, laying=False)  # of what its own kernels make
        if plan is not None:
            yield Winograd(task, conv, tiling, stored, x, late, product, plan)


def _applies(task: Task, conv: Convolution) -> bool:
    """Strides of one, channels side by side in what is made; each group in whole vectors."""
    x = task.operand(conv.x.tensor.name).layout
    if x is None or x.axis not in (None, 1) or (x.axis == 1 and x.blocks > 1):
        return False
    if len(task.reducing) > 1 or task.ending or task.earlier:
        return False
    if task.read_again(conv.w.tensor.name) or task.layout.axis != 1 or task.layout.blocks > 1:
        return False
    factors = {conv.x.dtype, conv.w.dtype}
    ragged = conv.channels_out % VECTOR or conv.channels_in % VECTOR
    f32 = conv.reduce.dtype is DType.F32 and factors <= {DType.F32, DType.TF32}
    if not f32 or (conv.groups > 1 and ragged):
        return False
    return all(s.stride == 1 for s in conv.space)


def _product(conv: Convolution, tiling: Tiling, stored: DType, late: bool) -> Task:
    """M[z, t, k] = sum over c of V[z, t, c] U[z, k, c]; late filters lie as U[z, c, k]. Others are
    rounded as they are packed."""
    z, t, k, c = (
        Axis(name, extent)
        for name, extent in zip(
            "ztkc",
            (
                conv.groups * tiling.products,
                tiling.count,
                whole_vectors(conv.channels_out),
                whole_vectors(conv.channels_in),
            ),
            strict=True,
        )
    )
    v, m = _tensor(TILES, (z, t, c), stored), _tensor(PRODUCTS, (z, t, k))
    order = (z, c, k) if late else (z, k, c)
    u = _tensor(FILTERS, order, stored if late else DType.F32)
    reads = map(_widened, (Read(v, (z.i, t.i, c.i)), Read(u, tuple(axis.i for axis in order))))
    stage = Stage(m, (z, t, k), Reduce("sum", (c,), Binary("mul", *reads), DType.F32))
    layouts = {var: Layout(var.type.sizes) for var in (v, u, m)}
    operands = (Operand(v, layouts[v]), Operand(u, layouts[u] if late else None))
    return Task("winograd", (stage,), operands, (Output(m, layouts[m]),), layouts[m])


def _widened(read: Read) -> Expr:
    return read if read.dtype is DType.F32 else Cast(read, DType.F32)


def _tensor(name: str, axes: Sequence[Axis], dtype: DType = DType.F32) -> TensorVar:
    return TensorVar(name, TensorType(dtype, tuple(axis.extent for axis in axes)))
