"""What operators refuse, whom they blame, and what they advise."""

from __future__ import annotations

from typing import Any

import pytest

from convdsl.ir.opdef import OpError
from convdsl.ops import SPELLINGS
from convdsl.tensor import Dim, DType, TensorType, symbol

N, H, W = symbol("N"), symbol("H"), symbol("W")
IMAGE = (N, 8, 32, 32)


def objection(
    name: str, shapes: dict[str, tuple[Dim, ...]], attributes: dict[str, Any], dtype: DType
) -> OpError:
    types = {operand: TensorType(dtype, shape) for operand, shape in shapes.items()}
    with pytest.raises(OpError) as caught:
        _ = SPELLINGS[name].call(types, attributes).outputs
    return caught.value


CASES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("conv", {"x": (N, 8)}, {"channels": 4, "kernel": 3}, "at least one spatial axis"),
    ("conv", {"x": (N, H, 8, 8)}, {"channels": 4, "kernel": 3}, "known number of channels"),
    ("conv", {"x": IMAGE}, {"channels": 4, "kernel": 4}, "an even kernel (4x4) has no middle"),
    ("conv", {"x": IMAGE}, {"channels": 4, "kernel": (3, 3, 3)}, "kernel 3x3x3 has 3 axes"),
    ("conv", {"x": IMAGE}, {"channels": 4, "kernel": 3, "groups": 3},
     "8 input channels do not divide into 3 groups"),
    ("conv", {"x": IMAGE}, {"channels": 9, "kernel": 3, "groups": 8},
     "9 output channels do not divide into 8 groups"),
    ("conv", {"x": (N, 8, 4, 4)}, {"channels": 4, "kernel": 7, "pad": 0},
     "a window of 7 does not fit axis 2"),
    ("conv", {"x": (N, 8, 4, 4)}, {"channels": 4, "kernel": 9, "pad_mode": "reflect"},
     "reflect padding of 4 does not fit an input of 4"),
    ("conv", {"x": (N, 8, 4, 4)}, {"channels": 4, "kernel": 11, "pad_mode": "circular"},
     "circular padding of 5 does not fit an input of 4"),
    ("deform_conv", {"x": IMAGE, "offset": (N, 17, 32, 32)}, {"channels": 4, "kernel": 3},
     "two numbers for each of 9 taps, which 17 channels are not"),
    ("deform_conv", {"x": IMAGE, "offset": (N, 6, 32, 32)}, {"channels": 4, "kernel": 1},
     "8 channels do not divide into 3 parts"),
    ("deform_conv", {"x": IMAGE, "offset": (N, 18, 32, 16)}, {"channels": 4, "kernel": 3},
     "16 is not 32"),
    ("deform_conv", {"x": IMAGE, "offset": (N, 18, 32, 32), "mask": (N, 8, 32, 32)},
     {"channels": 4, "kernel": 3}, "8 is not 9"),
    ("deform_conv", {"x": (N, 8, 9), "offset": (N, 18, 9)}, {"channels": 4, "kernel": 3},
     "both are planes"),
    ("conv_transpose", {"x": IMAGE}, {"channels": 4, "kernel": 3, "output_pad": 1},
     "output padding of 1 must be less than the stride 1 or the dilation 1"),
    ("conv_transpose", {"x": IMAGE}, {"channels": 4, "kernel": 1, "stride": 3, "pad": "same"},
     "a window of 1 cannot fill a stride of 3"),
    ("conv_transpose", {"x": (N, 8, 1, 1)}, {"channels": 4, "kernel": 3, "pad": 2},
     "nothing is left of axis 2"),
    ("max_pool", {"x": IMAGE}, {"kernel": 2, "pad": 2}, "padding of 2 is more than half"),
    ("max_pool", {"x": IMAGE}, {"kernel": "global", "pad": 1}, "global pooling has no pad"),
    ("max_unpool", {"x": IMAGE, "positions": IMAGE}, {"kernel": 2}, "are not those of"),
    ("batch_norm", {"x": (N,)}, {}, "needs batch and channels"),
    ("batch_norm", {"x": (N, H, 3)}, {}, "known number of channels, not H"),
    ("group_norm", {"x": IMAGE}, {"groups": 3}, "8 channels do not divide into 3 groups"),
    ("instance_norm", {"x": (N, 8)}, {}, "instance_norm needs space"),
    ("layer_norm", {"x": (N, 8, H)}, {}, "needs a known size along axis 2, not H"),
    ("linear", {"x": (N, H)}, {"channels": 3}, "known number of features, not H"),
    ("matmul", {"a": (N, 3, 4), "b": (5, 6)}, {}, "4 is not 5"),
    ("matmul", {"a": (N, 3, 4), "b": (4,)}, {}, "matmul needs matrices"),
    ("add", {"a": (N, 256, 56), "b": (N, 64, 56)}, {}, "256 is not 64"),
    ("add", {"a": (N, H), "b": (N, W)}, {}, "H == W cannot be proven"),
    ("hard_tanh", {"x": IMAGE}, {"min": 2.0, "max": 1.0}, "nothing lies between 2 and 1"),
    ("softmax", {"x": (N, 8)}, {"axis": 2}, "axis 2 does not exist in a tensor of rank 2"),
    ("concat", {"x0": IMAGE, "x1": (N, 8, 16, 32)}, {}, "32 is not 16"),
    ("concat", {"x0": IMAGE, "x1": (N, 8)}, {}, "their ranks differ"),
    ("split", {"x": IMAGE}, {"parts": 3}, "does not divide into 3 parts"),
    ("split", {"x": IMAGE}, {"parts": (3, 4)}, "8 is not 7"),
    ("flatten", {"x": IMAGE}, {"start": 3, "end": 1}, "start 3 lies behind end 1"),
    ("flatten", {"x": IMAGE}, {"start": 5}, "start 5 does not exist"),
    ("reshape", {"x": (2, 6)}, {"shape": (5, -1)}, "do not divide by 5"),
    ("reshape", {"x": (2, 6)}, {"shape": (-1, -1)}, "one extent of -1, not several"),
    ("reshape", {"x": (2, 6)}, {"shape": (3, 5)}, "12 is not 15"),
    ("reshape", {"x": (2, 6)}, {"shape": (-2, 5)}, "-2 is no extent"),
    ("squeeze", {"x": IMAGE}, {"axes": 1}, "axis 1 of"),
    ("unsqueeze", {"x": (N, 3)}, {"axes": (1, -3)}, "names an axis twice"),
    ("transpose", {"x": IMAGE}, {"axes": (0, 1, 2)}, "do not name every axis"),
    ("slice", {"x": IMAGE}, {"axes": 1, "start": 8}, "nothing of axis 1"),
    ("slice", {"x": (N, 8, H)}, {"axes": 2, "stop": H - 4}, "the front or from the end is open"),
    ("slice", {"x": IMAGE}, {"axes": 1, "step": 0}, "cannot step by 0"),
    ("slice", {"x": IMAGE}, {"axes": (1, 2), "start": (1, 2, 3)}, "3 entries for 2 axes"),
    ("pad", {"x": IMAGE}, {"pad": (1, 2, 3)}, "3 entries for 2 axes"),
    ("pad", {"x": IMAGE}, {"pad": 32, "mode": "reflect"}, "does not fit an input of 32"),
    ("expand", {"x": IMAGE}, {"shape": (N, 8, 32, 64)}, "32 is not 64"),
    ("expand", {"x": IMAGE}, {"shape": (32, 32)}, "fewer axes"),
    ("tile", {"x": IMAGE}, {"repeats": (1, 2)}, "2 entries for 4 axes"),
    ("channel_shuffle", {"x": IMAGE}, {"groups": 3}, "8 channels do not divide into 3 groups"),
    ("pixel_shuffle", {"x": IMAGE}, {"factor": 3}, "do not divide into blocks of 3x3"),
    ("pixel_unshuffle", {"x": (N, 3, 5, 4)}, {"factor": 2}, "axis 2 of"),
    ("resize", {"x": IMAGE}, {}, "either a size or a scale"),
    ("resize", {"x": IMAGE}, {"size": (4, 4), "scale": 2.0}, "either a size or a scale"),
    ("resize", {"x": IMAGE}, {"scale": -1.0}, "cannot resize to scale -1.0"),
    ("resize", {"x": IMAGE}, {"scale": 0.01}, "nothing of"),
    ("resize", {"x": IMAGE}, {"scale": 2.0, "roi": (0.0, 0.0, 1.0, 1.0)}, "roi belongs to"),
    ("reduce_sum", {"x": (N, 3)}, {"axes": "space"}, "no axes to reduce"),
    ("top_k", {"x": (N, 3)}, {"k": 4}, "there are 3 elements along axis 1, not 4"),
    ("top_k", {"x": (N, H)}, {"k": 4}, "known size along axis 1, not H"),
    ("clip", {"x": (N, 3)}, {"low": 2.0, "high": 1.0}, "nothing lies between"),
    ("dropout", {"x": (N, 3)}, {"p": 1.5}, "1.5 is no probability"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "shapes", "attributes", "message"), CASES)
def test_refusals(name: str, shapes: Any, attributes: Any, message: str) -> None:
    error = objection(name, shapes, attributes, DType.F32)
    assert message in error.message
    assert error.operands or error.attributes
    assert set(error.attributes) <= {a.name for a in SPELLINGS[name].attributes}
    assert set(error.operands) <= set(shapes)


@pytest.mark.parametrize("name", ["conv", "relu", "linear", "softmax", "max_pool", "batch_norm"])
def test_arithmetic_needs_floating_point(name: str) -> None:
    error = objection(name, {"x": IMAGE}, {"channels": 4, "kernel": 3}, DType.I64)
    assert f"{name} needs floating-point data, not i64" in error.message


@pytest.mark.parametrize(
    ("shapes", "attributes", "message"),
    [
        ({"x": (2, 3, 8, 8), "regions": (5, 5), "images": (5,)}, {}, "5 is not 4"),
        ({"x": (2, 3, 8, 8), "regions": (5, 4), "images": (4,)}, {}, "4 is not 5"),
        ({"x": (2, 3, 8), "regions": (5, 4), "images": (5,)}, {}, "maps [N, C, H, W]"),
        ({"x": (2, 3, 8, 8), "regions": (5, 4), "images": (5, 1)}, {}, "its images are [R], i64"),
        ({"x": (2, 3, 8, 8), "regions": (5, 4), "images": (5,)}, {"mode": "max"}, "their number"),
    ],
)
def test_regions(shapes: Any, attributes: Any, message: str) -> None:
    types = {name: TensorType(DType.F32, shape) for name, shape in shapes.items()}
    types["images"] = TensorType(DType.I64, shapes["images"])
    with pytest.raises(OpError) as caught:
        _ = SPELLINGS["roi_align"].call(types, {"size": 2, **attributes}).outputs
    assert message in caught.value.message


def test_dtypes_must_agree() -> None:
    types = {"a": TensorType(DType.F32, (3,)), "b": TensorType(DType.F64, (3,))}
    with pytest.raises(OpError, match="their dtypes differ"):
        SPELLINGS["add"].call(types)
    with pytest.raises(OpError, match="needs masks, not f32"):
        SPELLINGS["logical_and"].call(types)
    with pytest.raises(OpError, match="needs a mask to choose by"):
        SPELLINGS["where"].call({"condition": types["a"], **types})
    mask = TensorType(DType.BOOL, (3,))
    with pytest.raises(OpError, match="needs numbers, not bool"):
        SPELLINGS["argmax"].call({"x": mask}, {"axis": 0})
    x = TensorType(DType.I64, (1, 1, 3))
    with pytest.raises(OpError, match="is no i64"):
        SPELLINGS["pad"].call({"x": x}, {"pad": 1, "value": 0.5})


@pytest.mark.parametrize(
    ("other", "advice"),
    [
        ((H // 2) * 2, "declare it on the input: where H % 2 == 0"),
        ((H // 16) * 16, "declare it on the input: where H % 16 == 0"),
        ((H // 4) * 4 + 1, "declare it on the input: where H % 4 == 1"),
        (((H + 1) // 2) * 2 - 1, "declare it on the input: where H % 2 == 1"),
        ((((H // 2) // 3) * 3) * 2, "declare it on the input: where H % 6 == 0"),
        (W, "where they are equal, call both H"),
        (H + 1, None),
    ],
)
def test_the_missing_constraint_is_named(other: Dim, advice: str | None) -> None:
    shapes = {"a": (N, 3, H), "b": (N, 3, other)}
    error = objection("add", shapes, {}, DType.F32)
    assert error.help == (() if advice is None else (advice,))
