"""PTX executed on the processor: the samples as NVRTC compiles them, and each instruction alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda_shim.card import ptx_of
from cuda_shim.handwritten import ASSEMBLY, MISTAKES, SAMPLES
from cuda_shim.modules import compile_ptx
from cuda_shim.ptx import RULES, UnknownPtx, translate
from cuda_shim.running import ORDERS, Caught, Launched, Memory, launch
from cuda_shim.samples import run_sample

pytestmark = pytest.mark.drawn

Array = np.ndarray[Any, Any]

ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "sm_120")
"""Those that the samples' instructions are of."""


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_right_in_every_order(name: str, arch: str) -> None:
    library = compile_ptx(ptx_of(ASSEMBLY + SAMPLES[name].source, arch))
    for order in ORDERS.values():
        run_sample(SAMPLES[name], library, order, noted=True)


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_caught(name: str) -> None:
    mistake = MISTAKES[name]
    library = compile_ptx(ptx_of(ASSEMBLY + mistake.source, "sm_90"))
    for order in ORDERS.values():
        with pytest.raises(Caught) as caught:
            run_sample(SAMPLES[mistake.sample], library, order, noted=True)
        assert caught.value.detector in mistake.caught, caught.value


def module(body: str) -> str:
    return f"""
.version 8.0
.target sm_90
.address_size 64
.visible .entry alone(.param .u64 alone_param_0, .param .u64 alone_param_1) {{
    .reg .pred %p<4>; .reg .b16 %h<8>; .reg .b32 %r<16>; .reg .b64 %d<16>;
    ld.param.u64 %d1, [alone_param_0]; ld.param.u64 %d2, [alone_param_1];
    mov.u32 %r0, %tid.x; mul.wide.u32 %d3, %r0, 32; add.s64 %d4, %d1, %d3; add.s64 %d5, %d2, %d3;
    ld.global.v2.u64 {{%d6, %d7}}, [%d4]; ld.global.u64 %d8, [%d4+16];
    cvt.u32.u64 %r1, %d6; cvt.u32.u64 %r2, %d7; cvt.u32.u64 %r3, %d8;
    {body}
    st.global.u64 [%d5], %d9;
    ret;
}}
"""


def unary32(instruction: str) -> str:
    return f"{instruction} %r4, %r1; cvt.u64.u32 %d9, %r4;"


def binary32(instruction: str) -> str:
    return f"{instruction} %r4, %r1, %r2; cvt.u64.u32 %d9, %r4;"


def ternary32(instruction: str) -> str:
    return f"{instruction} %r4, %r1, %r2, %r3; cvt.u64.u32 %d9, %r4;"


def binary64(instruction: str) -> str:
    return f"{instruction} %d9, %d6, %d7;"


def u32(x: int) -> int:
    return x & 0xFFFFFFFF


def s32(x: int) -> int:
    return (x & 0xFFFFFFFF) - ((x & 0x80000000) << 1)


def s16(x: int) -> int:
    return (x & 0xFFFF) - ((x & 0x8000) << 1)


def s64(x: int) -> int:
    return (x & (1 << 64) - 1) - ((x & 1 << 63) << 1)


def f32(x: int) -> np.float32:
    return np.uint32(u32(x)).view(np.float32)


def bits(x: Any) -> int:
    return int(np.float32(x).view(np.uint32))


def truth(holds: bool) -> int:
    return int(holds)


def cut(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def prmt(a: int, b: int, pick: int) -> int:
    bytes_ = (u32(a) | u32(b) << 32).to_bytes(8, "little")
    made = []
    for i in range(4):
        how = pick >> 4 * i & 15
        byte = bytes_[how & 7]
        made.append((255 if byte & 128 else 0) if how & 8 else byte)
    return int.from_bytes(bytes(made), "little")


def bfe(a: int, at: int, count: int) -> int:
    at, count = at & 255, count & 255
    wide = a >> at if at < 64 else (-1 if a < 0 else 0)
    if count == 0:
        return 0
    kept = min(count, 64)
    wide &= (1 << kept) - 1
    return u32(wide - (1 << kept) if wide >> kept - 1 & 1 else wide)


def setp(compare: str) -> str:
    return f"setp.{compare} %p1, %r1, %r2; selp.u32 %r4, 1, 0, %p1; cvt.u64.u32 %d9, %r4;"


Reference = Callable[[int, int, int], int]

INSTRUCTIONS: dict[str, tuple[str, Reference]] = {
    "add.s32": (binary32("add.s32"), lambda a, b, c: u32(a + b)),
    "sub.s64": (binary64("sub.s64"), lambda a, b, c: a - b),
    "mul.lo.s32": (binary32("mul.lo.s32"), lambda a, b, c: u32(a * b)),
    "mul.hi.u32": (binary32("mul.hi.u32"), lambda a, b, c: u32(u32(a) * u32(b) >> 32)),
    "mul.hi.s32": (binary32("mul.hi.s32"), lambda a, b, c: u32(s32(a) * s32(b) >> 32)),
    "mul.hi.s64": (binary64("mul.hi.s64"), lambda a, b, c: s64(a) * s64(b) >> 64),
    "mul.wide.s32": ("mul.wide.s32 %d9, %r1, %r2;", lambda a, b, c: s32(a) * s32(b)),
    "mul.wide.u16": (
        """cvt.u16.u32 %h1, %r1; cvt.u16.u32 %h2, %r2; mul.wide.u16 %r4, %h1, %h2;
        cvt.u64.u32 %d9, %r4;""",
        lambda a, b, c: (a & 0xFFFF) * (b & 0xFFFF),
    ),
    "mad.lo.s32": (ternary32("mad.lo.s32"), lambda a, b, c: u32(a * b + c)),
    "mad.lo.s64": ("mad.lo.s64 %d9, %d6, %d7, %d8;", lambda a, b, c: a * b + c),
    "min.s32": (binary32("min.s32"), lambda a, b, c: u32(min(s32(a), s32(b)))),
    "max.u32": (binary32("max.u32"), lambda a, b, c: max(u32(a), u32(b))),
    "min.s64": (binary64("min.s64"), lambda a, b, c: min(s64(a), s64(b))),
    "div.s32": (binary32("div.s32"), lambda a, b, c: u32(cut(s32(a), s32(b)) if u32(b) else -1)),
    "rem.u32": (binary32("rem.u32"), lambda a, b, c: u32(a) % u32(b) if u32(b) else u32(a)),
    "abs.s32": (unary32("abs.s32"), lambda a, b, c: u32(abs(s32(a)))),
    "neg.s32": (unary32("neg.s32"), lambda a, b, c: u32(-a)),
    "and.b32": (binary32("and.b32"), lambda a, b, c: u32(a & b)),
    "or.b64": (binary64("or.b64"), lambda a, b, c: a | b),
    "xor.b32": (binary32("xor.b32"), lambda a, b, c: u32(a ^ b)),
    "not.b32": (unary32("not.b32"), lambda a, b, c: u32(~a)),
    "shl.b32": (
        binary32("and.b32 %r2, %r2, 63; shl.b32"),
        lambda a, b, c: u32(a << (b & 63)),
    ),
    "shr.u32": (binary32("and.b32 %r2, %r2, 63; shr.u32"), lambda a, b, c: u32(a) >> (b & 63)),
    "shr.s32": (
        binary32("and.b32 %r2, %r2, 63; shr.s32"),
        lambda a, b, c: u32(s32(a) >> (b & 63)),
    ),
    "shr.s64": (
        "and.b32 %r2, %r2, 127; shr.s64 %d9, %d6, %r2;",
        lambda a, b, c: s64(a) >> (b & 127),
    ),
    "shf.l.wrap.b32": (
        ternary32("shf.l.wrap.b32"),
        lambda a, b, c: u32((u32(b) << 32 | u32(a)) << (c & 31) >> 32),
    ),
    "shf.r.clamp.b32": (
        ternary32("and.b32 %r3, %r3, 63; shf.r.clamp.b32"),
        lambda a, b, c: u32((u32(b) << 32 | u32(a)) >> min(c & 63, 32)),
    ),
    "lop3.b32 0xd8": (
        "lop3.b32 %r4, %r1, %r2, %r3, 0xd8; cvt.u64.u32 %d9, %r4;",
        lambda a, b, c: u32(b & c | a & ~c),
    ),
    "prmt.b32": (ternary32("prmt.b32"), lambda a, b, c: prmt(a, b, c & 0xFFFF)),
    "bfe.s32": (ternary32("bfe.s32"), lambda a, b, c: bfe(s32(a), b, c)),
    "dp2a.lo.u32.u32": (
        ternary32("dp2a.lo.u32.u32"),
        lambda a, b, c: u32((a & 65535) * (b & 255) + (a >> 16 & 65535) * (b >> 8 & 255) + c),
    ),
    "dp2a.hi.s32.u32": (
        ternary32("dp2a.hi.s32.u32"),
        lambda a, b, c: u32(s16(a) * (b >> 16 & 255) + s16(a >> 16) * (b >> 24 & 255) + c),
    ),
    "popc.b32": (unary32("popc.b32"), lambda a, b, c: u32(a).bit_count()),
    "clz.b32": (unary32("clz.b32"), lambda a, b, c: 32 - u32(a).bit_length()),
    "brev.b32": (unary32("brev.b32"), lambda a, b, c: int(f"{u32(a):032b}"[::-1], 2)),
    "setp.lt.s32": (setp("lt.s32"), lambda a, b, c: truth(s32(a) < s32(b))),
    "setp.hi.u32": (setp("hi.u32"), lambda a, b, c: truth(u32(a) > u32(b))),
    "setp.ne.f32": (
        setp("ne.f32"),
        lambda a, b, c: truth(f32(a) < f32(b) or f32(a) > f32(b)),
    ),
    "setp.neu.f32": (setp("neu.f32"), lambda a, b, c: truth(f32(a) != f32(b))),
    "setp.leu.f32": (setp("leu.f32"), lambda a, b, c: truth(not f32(a) > f32(b))),
    "setp.nan.f32": (setp("nan.f32"), lambda a, b, c: truth(f32(a) != f32(a) or f32(b) != f32(b))),
    "setp.lt.and.s32": (
        """setp.lt.s32 %p2, %r2, %r3; setp.lt.and.s32 %p1, %r1, %r2, %p2;
        selp.u32 %r4, 1, 0, %p1; cvt.u64.u32 %d9, %r4;""",
        lambda a, b, c: truth(s32(a) < s32(b) < s32(c)),
    ),
    "mov pack": ("mov.b64 %d9, {%r1, %r2};", lambda a, b, c: u32(b) << 32 | u32(a)),
    "mov unpack": (
        "mov.b64 {%r4, %r5}, %d6; sub.u32 %r4, %r4, %r5; cvt.u64.u32 %d9, %r4;",
        lambda a, b, c: u32(a - (a >> 32)),
    ),
    "cvt.s64.s32": ("cvt.s64.s32 %d9, %r1;", lambda a, b, c: s32(a)),
    "cvt.s32.s8": (unary32("cvt.s32.s8"), lambda a, b, c: u32(((a & 255) ^ 128) - 128)),
    "cvt.rn.f32.s32": (unary32("cvt.rn.f32.s32"), lambda a, b, c: bits(np.int32(s32(a)))),
    "bra": (
        "mov.u64 %d9, 7; setp.gt.s32 %p1, %r1, %r2; @!%p1 bra $L_1; mov.u64 %d9, 9; $L_1:",
        lambda a, b, c: 9 if s32(a) > s32(b) else 7,
    ),
}  # fmt: skip


def operands() -> Array:
    """Triples of words: drawn ones, small ones, ends of the range, infinities and NaN as bits."""
    random = np.random.default_rng(1)
    special = [0, 1, 2, 31, 32, 33, 63, 64, 127, 255, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,
               0x7F800000, 0xFF800000, 0x7FC00000, 0x3F800000, 0x8000000000000000,
               0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF]  # fmt: skip
    drawn = random.integers(0, 1 << 63, (64, 3), np.uint64) * np.uint64(2)
    some = random.choice(np.array(special, np.uint64), (128, 3))
    mixed = np.where(random.integers(0, 2, (64, 3)) > 0, some[:64], drawn)
    return np.concatenate([drawn, some, mixed])


def run_alone(body: str, given: Array) -> Array:
    x, y = np.zeros((len(given), 4), np.uint64), np.zeros((len(given), 4), np.uint64)
    x[:, :3] = given
    memories = [Memory("x", x.reshape(-1), written=False), Memory("y", y.reshape(-1), written=True)]
    launched = Launched("alone", (1, 1, 1), (len(given), 1, 1))
    launch(compile_ptx(module(body)), launched, memories, noted=True)
    return y[:, 0]


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_instructions_of_integers(name: str) -> None:
    body, reference = INSTRUCTIONS[name]
    given = operands()
    found = run_alone(body, given)
    with np.errstate(all="ignore"):
        expected = [reference(*map(int, row)) & (1 << 64) - 1 for row in given]
    assert found.tolist() == expected


FLOATS: dict[str, tuple[str, Callable[[Array, Array, Array], Array]]] = {
    "add.f32": (binary32("add.f32"), lambda a, b, c: a + b),
    "mul.rn.f32": (binary32("mul.rn.f32"), lambda a, b, c: a * b),
    "fma.rn.f32": (
        ternary32("fma.rn.f32"),
        lambda a, b, c: (a.astype(np.longdouble) * b + c).astype(np.float32),
    ),
    "div.rn.f32": (binary32("div.rn.f32"), lambda a, b, c: a / b),
    "min.f32": (binary32("min.f32"), lambda a, b, c: np.fmin(a, b)),
    "max.NaN.f32": (binary32("max.NaN.f32"), lambda a, b, c: np.maximum(a, b)),
    "abs.f32": (unary32("abs.f32"), lambda a, b, c: np.abs(a)),
    "neg.f32": (unary32("neg.f32"), lambda a, b, c: -a),
    "sqrt.rn.f32": (unary32("sqrt.rn.f32"), lambda a, b, c: np.sqrt(a)),
    "copysign.f32": (binary32("copysign.f32"), lambda a, b, c: np.copysign(b, a)),
    "cvt.rni.f32.f32": (unary32("cvt.rni.f32.f32"), lambda a, b, c: np.rint(a)),
    "cvt.rmi.f32.f32": (unary32("cvt.rmi.f32.f32"), lambda a, b, c: np.floor(a)),
    "cvt.rpi.f32.f32": (unary32("cvt.rpi.f32.f32"), lambda a, b, c: np.ceil(a)),
    "cvt.rzi.f32.f32": (unary32("cvt.rzi.f32.f32"), lambda a, b, c: np.trunc(a)),
    "cvt f16 and back": (
        "cvt.rn.f16.f32 %h1, %r1; cvt.f32.f16 %r4, %h1; cvt.u64.u32 %d9, %r4;",
        lambda a, b, c: a.astype(np.float16).astype(np.float32),
    ),
    "cvt bf16 and back": (
        "cvt.rn.bf16.f32 %h1, %r1; cvt.f32.bf16 %r4, %h1; cvt.u64.u32 %d9, %r4;",
        lambda a, b, c: rounded(a, 16, even=True),
    ),
    "cvt.rna.tf32.f32": (unary32("cvt.rna.tf32.f32"), lambda a, b, c: rounded(a, 13, even=False)),
}  # fmt: skip


def rounded(x: Array, dropped: int, *, even: bool) -> Array:
    """Without the lowest bits: to the nearest, ties to even or away from zero, by exact sums."""
    unit = np.ldexp(np.float64(1), np.frexp(x.astype(np.float64))[1] - 24 + dropped)
    steps = x / unit
    nearest = np.rint(steps) if even else np.copysign(np.floor(np.abs(steps) + 0.5), steps)
    return np.where(np.isfinite(x), nearest * unit, x).astype(np.float32)


@pytest.mark.parametrize("name", FLOATS)
def test_instructions_of_floats(name: str) -> None:
    body, reference = FLOATS[name]
    random = np.random.default_rng(2)
    drawn = random.standard_normal((200, 3)) * 10.0 ** random.integers(-3, 4, (200, 3))
    ends = random.choice(np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 0.5, 1.5, -2.5]), (40, 3))
    given = np.concatenate([drawn, ends]).astype(np.float32)
    found = run_alone(body, given.view(np.uint32).astype(np.uint64))
    with np.errstate(all="ignore"):
        expected = reference(*given.T)
    np.testing.assert_array_equal(found.astype(np.uint32).view(np.float32), expected)


def test_shared_memory_of_one_element() -> None:
    """Is a variable without brackets."""
    body = """.shared .align 16 .u64 one; st.shared.u64 [one], %d6; bar.sync 0;
        ld.shared.u64 %d9, [one];"""
    given = np.array([[2**63 + 5, 0, 0]], np.uint64)
    assert run_alone(body.replace(";", ";\n"), given).tolist() == [2**63 + 5]


def without_denormals(x: Array) -> Array:
    tiny = np.finfo(np.float32).tiny
    return np.where(np.abs(x) < tiny, np.copysign(np.float32(0), x), x)


FLUSHING: dict[str, tuple[str, Callable[[Array, Array, Array], Array]]] = {
    "add": (binary32("add.ftz.f32"), lambda a, b, c: a + b),
    "sub": (binary32("sub.rn.ftz.f32"), lambda a, b, c: a - b),
    "mul": (binary32("mul.rn.ftz.f32"), lambda a, b, c: a * b),
    "fma": (
        ternary32("fma.rn.ftz.f32"),
        lambda a, b, c: (a.astype(np.longdouble) * b + c).astype(np.float32),
    ),
    "div": (binary32("div.rn.ftz.f32"), lambda a, b, c: a / b),
    "abs": (unary32("abs.ftz.f32"), lambda a, b, c: np.abs(a)),
    "neg": (unary32("neg.ftz.f32"), lambda a, b, c: -a),
    "sqrt": (unary32("sqrt.rn.ftz.f32"), lambda a, b, c: np.sqrt(a)),
    "ceil": (unary32("cvt.rpi.ftz.f32.f32"), lambda a, b, c: np.ceil(a)),
    "setp": (
        """setp.gt.ftz.f32 %p1, %r1, %r2; selp.u32 %r4, 0x3F800000, 0, %p1;
        cvt.u64.u32 %d9, %r4;""",
        lambda a, b, c: (a > b).astype(np.float32),
    ),
}


@pytest.mark.parametrize("name", FLUSHING)
def test_denormals_are_zeros_where_an_instruction_says_so(name: str) -> None:
    """Operands and results, of their signs: kernels for cards are compiled so."""
    body, reference = FLUSHING[name]
    random = np.random.default_rng(3)
    given = random.standard_normal((200, 3)) * 10.0 ** random.integers(-44, -36, (200, 3))
    given = given.astype(np.float32)
    found = run_alone(body, given.view(np.uint32).astype(np.uint64)).astype(np.uint32)
    with np.errstate(all="ignore"):
        exact = reference(*without_denormals(given).T)
    expected = without_denormals(exact.astype(np.float32))
    assert found.tolist() == expected.view(np.uint32).tolist()


def test_floats_become_integers_within_their_range() -> None:
    x = np.array([0.5, 2.5, -2.5, 3e9, -3e9, np.inf, -np.inf, np.nan], np.float32)
    given = np.zeros((len(x), 3), np.uint64)
    given[:, 0] = x.view(np.uint32)
    found = run_alone(unary32("cvt.rzi.s32.f32"), given).astype(np.uint32).view(np.int32)
    assert found.tolist() == [0, 2, -2, 2**31 - 1, -(2**31), 2**31 - 1, -(2**31), 0]


@pytest.mark.parametrize(
    "text",
    ["frobnicate.u32 %r4, %r1;", "add.sat.s32 %r4, %r1, %r2;", "cvt.rp.f32.s32 %r4, %r1;",
     "bar.sync 1;", "mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {%r1}, {%r1}, {%r1}, {%r1};",
     "ld.const.u32 %r4, [%d1];", "st.async.u32 [%d1], %r1;", ".reg .b128 %q<2>;"],
)  # fmt: skip
def test_what_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(UnknownPtx):
        translate(module(f"mov.u64 %d9, 0; {text}"))


def test_rules_stay_few() -> None:
    """What NVRTC writes for these kernels, and no more: each rule is one to get wrong."""
    assert len(RULES) <= 55
