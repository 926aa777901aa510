"""Fourier transforms as products with constant matrices, long ones as several short ones.

    n = m n1 + n2, k = k1 + r k2, L = r m:
    X[k1 + r k2] = sum over n2 of w_L^(n2 k1) (sum over n1 of x[m n1 + n2] w_r^(n1 k1)) w_m^(n2 k2)

Cooley and Tukey 1965: an inner transform of length r, a factor for each number, an outer transform
of length m, which is split again where it is long. Matrices and factors are made in double
precision. Numbers lie in planes meanwhile, [.., part, position], so that both parts are added up in
one product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from convdsl.ir.build import Build
from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.ir.shapes import known_size
from convdsl.ops.fourier import DFT, divisor, made, matrix, used
from convdsl.passes.rewrite import Pass, Pattern, Rewriter, rewrite_greedily
from convdsl.tensor import Dim


@dataclass(frozen=True)
class ExpandTransforms(Pass):
    """Make products with constant matrices of Fourier transforms."""

    name: ClassVar[str] = "expand-transforms"

    def run(self, graph: Graph) -> int:
        return rewrite_greedily(graph, (TransformByProducts(),))


class TransformByProducts(Pattern):
    """dft(x)  ->  products with matrices, along the last axis."""

    def rewrite(self, node: OpNode, rewriter: Rewriter) -> bool:
        if node.op is not DFT:
            return False
        build = rewriter.at(node)
        rewriter.replace(node, _transformed(node, build), node.name)
        return True


def _transformed(node: OpNode, build: Build) -> Value:
    """The parts before the axis, both last, on the way; positions that are not read are cut."""
    call, x = node.call, node.inputs["x"]
    axis, rank = call["axis"], x.type.rank
    others = [i for i in range(rank - 1) if i != axis]
    order = (*others, rank - 1, axis)
    if used(call) < x.type.shape[axis]:
        x = build("slice", x, axes=(axis,), start=(0,), stop=(used(call),))
    z = _turned(build, x, order)
    length, inverse = call["length"], call["inverse"]
    real = inverse and call["onesided"]
    if divisor(length) is None:
        own = known_size(call, "x", rank - 1)
        m = matrix(own, used(call), length, inverse=inverse, onesided=call["onesided"])
        z = _product(build, z, m.transpose(1, 0, 3, 2))
    else:
        if real:
            z = _twice(build, z, used(call), length)
        if used(call) < length:
            z = build("pad", z, pad=((0, length - used(call)),), axes=(rank - 1,))
        z = _split(build, z, length, -1.0 if inverse else 1.0, 1 if real else 2)
        if made(call) < length:
            z = build("slice", z, axes=(rank - 1,), start=(0,), stop=(made(call),))
    return _turned(build, z, tuple(int(i) for i in np.argsort(order)))


def _turned(build: Build, x: Value, order: tuple[int, ...]) -> Value:
    return x if order == tuple(range(len(order))) else build("transpose", x, axes=order)


def _twice(build: Build, z: Value, count: int, length: int) -> Value:
    """Half a spectrum as a whole one whose real part is meant: all but the ends count twice."""
    counts = np.ones(count)
    counts[1 : (length + 1) // 2] = 2
    return build("mul", z, build.constant(counts, z.type.dtype))


def _product(build: Build, z: Value, m: npt.NDArray[np.float64]) -> Value:
    """y[.., q, k] = sum over p, n of z[.., p, n] m[p, n, q, k]"""
    p, n, q, k = m.shape
    kept = z.type.shape[:-2]
    rows = build.reshape(z, (*(kept or (1,)), p * n))
    factors = build.constant(m.reshape(p * n, q * k), z.type.dtype, name="matrix")
    return build.reshape(build("matmul", rows, factors), (*kept, q, k))


def _split(build: Build, z: Value, length: int, sign: float, parts: int) -> Value:
    """The transform of z[.., p, n] that keeps so many parts of the result; back where `sign` is
    negative, each factor of the length divided by itself."""
    kept: tuple[Dim, ...] = z.type.shape[:-2]
    p, rank = _parts(z), len(kept)
    r = divisor(length)
    if r is None:
        m = matrix(p, length, length, inverse=sign < 0)[..., :parts]
        return _product(build, z, m.transpose(1, 0, 3, 2))
    m = length // r
    lead = tuple(range(rank))
    z = build.reshape(z, (*kept, p, r, m))
    z = _turned(build, z, (*lead, rank + 2, rank, rank + 1))  # [.., n2, p, n1]
    z = _product(build, z, matrix(p, r, r, inverse=sign < 0).transpose(1, 0, 3, 2))
    z = _twiddled(build, z, m, r, sign)  # [.., n2, part, k1]
    z = _turned(build, z, (*lead, rank + 2, rank + 1, rank))  # [.., k1, part, n2]
    z = _split(build, z, m, sign, parts)  # [.., k1, part, k2]
    z = _turned(build, z, (*lead, rank + 1, rank + 2, rank))
    return build.reshape(z, (*kept, parts, length))


def _parts(z: Value) -> int:
    parts = z.type.shape[-2]
    assert isinstance(parts, int)
    return parts


def _twiddled(build: Build, z: Value, m: int, r: int, sign: float) -> Value:
    """(a + i b) w_L^(n2 k1), of z[.., n2, part, k1]"""
    turns = np.outer(np.arange(m), np.arange(r)) / (m * r)
    cosine, sine = (
        build.constant(wave(2 * np.pi * turns), z.type.dtype, name="turn")
        for wave in (np.cos, np.sin)
    )
    axis = z.type.rank - 2
    a, b = (
        build("squeeze", build("slice", z, axes=(axis,), start=(at,), stop=(at + 1,)), axes=(axis,))
        for at in (0, 1)
    )
    forth, back = build("mul", a, cosine), build("mul", b, sine)
    real = build("add" if sign > 0 else "sub", forth, back)
    forth, back = build("mul", b, cosine), build("mul", a, sine)
    imaginary = build("sub" if sign > 0 else "add", forth, back)
    planes = (build("unsqueeze", plane, axes=(axis,)) for plane in (real, imaginary))
    return build("concat", *planes, axis=axis)
