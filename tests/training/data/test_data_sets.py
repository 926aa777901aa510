"""Arrays, iterators and objects become samples; what is wrong with them is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convdsl.diagnostics import InputError
from convdsl.ir.preprocess import PreprocessingStep
from convdsl.tensor import DType, TensorType, symbol
from convdsl.training.data import (
    DataSet,
    Parts,
    Preparation,
    Subset,
    Wanted,
    arrays,
    check_labels,
    open_data,
    open_parts,
)

N, H, W = symbol("N"), symbol("H"), symbol("W")


def test_what_python_holds() -> None:
    x, y = np.zeros((3, 4, 5), np.uint8), np.array([2, 0, 1])
    for data in ((x, y), {"x": x, "y": y}, {"images": x, "labels": y}):
        found = open_data(data)
        assert found[0]["label"] == 2
        assert found[0]["x"].shape == (4, 5, 1)
    assert open_data(x, y)[2]["label"] == 1
    assert set(open_data(x)[0]) == {"x"}
    given = open_data((x, y))
    assert open_data(given) is given
    rows = ({"x": x[i], "label": y[i], "weight": np.float64(i)} for i in range(3))
    found = open_data(rows)
    assert found[1]["weight"] == 1
    assert open_data(zip(x, y, strict=True)).labels is not None
    assert len(open_data([x[0], x[1]])) == 2


def test_a_data_set_of_one_s_own() -> None:
    class Squares:
        source, classes, labels = "squares", None, None

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"x": np.full((2, 2, 1), index * index, np.uint8)}

    assert isinstance(Squares(), DataSet)
    assert open_data(Squares())[2]["x"].max() == 4


def test_whole_boxes_move_by_parts_of_pixels() -> None:
    data = open_data({"x": np.zeros((1, 9, 9), np.uint8), "boxes": np.array([[1, 2, 3, 4]])})
    made = Preparation("image", TensorType(DType.F32, (N, 1, H, W)), None)
    step = PreprocessingStep("resize", {"size": [3, 3]})
    assert data[0]["boxes"].dtype == np.float32
    for sample in (data[0], {"x": data[0]["x"], "boxes": np.array([1, 2, 3, 4])}):
        moved = made.place(sample, [step])["boxes"]
        np.testing.assert_allclose(moved, np.array([1, 2, 3, 4]) / 3, rtol=1e-6)


def test_layouts() -> None:
    odd = np.zeros((2, 3, 5, 3), np.uint8)
    with pytest.raises(InputError, match=r"\[2, 3, 5, 3\]: which axis holds the channels\?"):
        open_data(odd)
    assert open_data(odd, wanted=Wanted(layout="nchw"))[0]["x"].shape == (5, 3, 3)
    assert open_data(odd, wanted=Wanted(layout="nhwc"))[0]["x"].shape == (3, 5, 3)
    many = np.zeros((2, 13, 5, 6), np.float32)
    with pytest.raises(InputError, match="which axis"):
        open_data(many)
    wanted = Wanted(TensorType(DType.F32, (N, 13, 5, 6)))
    assert open_data(many, wanted=wanted)[0]["x"].shape == (5, 6, 13)


def test_inputs_that_are_no_images() -> None:
    wanted = Wanted(TensorType(DType.F32, (N, 16, 3)))
    data = open_data(np.zeros((5, 16, 3)), wanted=wanted)
    assert data[0]["x"].shape == (16, 3)


def test_an_input_by_its_own_name() -> None:
    wanted = Wanted(TensorType(DType.F32, (N, 3, 4, 4)), name="photo")
    photos, masks = np.zeros((5, 4, 4, 3), np.uint8), np.ones((5, 4, 4), np.uint8)
    data = open_data({"photo": photos, "mask": masks}, wanted=wanted)
    assert (len(data), set(data[0])) == (5, {"x", "mask"})
    both = open_data({"photo": masks, "x": photos}, wanted=wanted)
    assert both[0]["x"].shape == (4, 4, 3)
    assert both[0]["photo"].shape == (4, 4)
    with pytest.raises(InputError, match=r"no array `x`, but image\nhelp: .*`x`, or `photo`,"):
        open_data({"image": photos}, wanted=wanted)


def test_parts_of_an_input_by_its_own_name() -> None:
    wanted = Wanted(TensorType(DType.F32, (N, 3)), name="points")
    arrays = {"points_train": np.zeros((5, 3)), "points_test": np.zeros((2, 3))}
    parts = open_parts(arrays, wanted=wanted)
    assert len(parts.train) == 5
    assert parts.test is not None
    assert parts.test[0]["x"].shape == (3,)


def test_numbers_to_learn_are_no_classes() -> None:
    data = open_data(np.zeros((2, 3, 3), np.uint8), np.array([0.5, 2.0]))
    assert data.labels is None
    assert data[0]["label"].dtype == np.float32
    vectors = open_data(np.zeros((2, 3, 3), np.uint8), np.eye(2))
    assert vectors[1]["label"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"y": np.zeros(3)}, ": no array `x`, but y"),
        ({}, ": no array `x`, but none"),
        ({"x": np.zeros((3, 2, 2)), "y": np.zeros(2)}, "3 of x, 2 of label"),
        ({"x": np.zeros((0, 2, 2)), "y": np.zeros(0)}, "no samples"),
        ({"x": np.zeros((3, 2, 2), np.int64)}, "holds int64; images are uint8"),
        ({"x": np.array(["a"])}, "not numbers"),
        ({"x": np.array([{}], object)}, "not numbers"),
        ({"x": np.float32(1)}, "single number"),
        ({"x": np.zeros((3, 2))}, r"x is \[3, 2\]; images are"),
        ({"x": np.zeros((3, 2, 2)), "y": np.zeros(3), "label": np.zeros(3)}, "several arrays"),
        (
            {"x": np.zeros((3, 2, 2)), "boxes": np.zeros((3, 6))},
            r"boxes is \[3, 6\]; a box is left",
        ),
        ({"x": np.zeros((3, 2, 2)), "boxes": np.zeros(3)}, r"boxes is \[3\]; a box is left"),
        ((1, 2, 3), "3 things are no data"),
        (7, "a int is no data"),
        (iter([]), "yields no samples"),
        (iter([np.zeros((2, 2)), np.zeros((2, 3))]), r"x of sample 1 is \[2, 3\]"),
        (iter([{"x": np.zeros(2)}, {"y": np.zeros(2)}]), "sample 1 has y, the first x"),
    ],
)
def test_what_is_wrong_with_arrays(given: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        open_data(given)


def test_iterators_are_bounded() -> None:
    def endless() -> Any:
        while True:
            yield np.zeros((10, 10), np.uint8)

    with pytest.raises(InputError, match="kept in memory\nhelp: give an object"):
        arrays.iterated(endless(), most=1000)


# Labels


def test_labels_out_of_range() -> None:
    data = open_data(np.zeros((4, 2, 2), np.uint8), np.array([0, 1, 2, 255]))
    check_labels(data, 3, ignored=255)
    with pytest.raises(InputError, match=r"sample 3 is 255, .* 3 classes apart \(0 to 2\)"):
        check_labels(data, 3)
    with pytest.raises(InputError, match="label of sample 2 is 2"):
        check_labels(data, 2, ignored=255)
    with pytest.raises(InputError, match="sample 0 is -1"):
        check_labels(open_data(np.zeros((1, 2, 2), np.uint8), np.array([-1])), 2)


def test_a_subset() -> None:
    data = open_data(np.arange(16, dtype=np.uint8).reshape(4, 2, 2), np.arange(4))
    some = Subset(data, [3, 1])
    assert some.labels is not None
    assert some.labels.tolist() == [3, 1]
    assert some[0]["x"].min() == 12
    assert Parts(some).validation is None


# Boxes


@pytest.mark.parametrize("counts", [(2, 1), (1, 3), (1, 0)])
def test_different_numbers_of_boxes_are_told(counts: tuple[int, int]) -> None:
    """As arrays, and as samples of an iterator."""
    boxes = [np.ones((count, 4), "f4") for count in counts]
    x = np.zeros((2, 8, 8), "u1")
    said = rf"image 1 has \[{counts[1]}\] boxes, the first \[{counts[0]}\]"
    with pytest.raises(InputError, match=said):
        open_data({"x": x, "boxes": boxes})
    rows = [{"x": image, "boxes": some} for image, some in zip(x, boxes, strict=True)]
    with pytest.raises(InputError, match=r"(?s)boxes of sample 1 .*as many boxes"):
        open_data(rows)


def test_as_many_boxes_in_a_list() -> None:
    boxes = [np.full((2, 4), number, "f4") for number in range(2)]
    data = open_data({"x": np.zeros((2, 8, 8), "u1"), "boxes": boxes})
    np.testing.assert_array_equal(data[1]["boxes"], boxes[1])
