"""Batches: prepared as `classify` prepares, in an order that follows from counters, by any number
of workers."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convdsl
from convdsl import preprocessing
from convdsl.diagnostics import InputError
from convdsl.ir.preprocess import Preprocessing, PreprocessingStep
from convdsl.loading import parse
from convdsl.tensor import DType, TensorType, symbol
from convdsl.training.data import ArrayData, Loader, Preparation, open_data, preparation

N, H, W = symbol("N"), symbol("H"), symbol("W")
RNG = np.random.default_rng(0)
SMALL = TensorType(DType.F32, (N, 1, 2, 2))


def steps(*parts: tuple[str, dict[str, Any]]) -> Preprocessing:
    return Preprocessing("image", tuple(PreprocessingStep(name, args) for name, args in parts))


def numbered(count: int) -> ArrayData:
    x = np.repeat(np.arange(count, dtype=np.uint8), 4).reshape(count, 2, 2)
    return ArrayData({"x": x, "y": np.arange(count)})


def loader(count: int, batch: int, **more: Any) -> Loader:
    return Loader(numbered(count), Preparation("image", SMALL, steps()), batch, **more)


# Preparation

DECLARED = [
    steps(),
    steps(("rescale", {"factor": 1 / 255})),
    steps(("resize", {"size": 9}), ("center_crop", {"size": [8, 9]}), ("rescale", {"factor": 0.1})),
    steps(("resize", {"size": [6, 11], "filter": "bicubic"})),
    steps(("center_crop", {"fraction": 0.7}), ("normalize", {"mean": [3.5], "std": [2.5]})),
    steps(("pad", {"size": [7, 30]}), ("normalize", {"mean": [100], "std": [7]})),
]


@pytest.mark.parametrize("declared", DECLARED)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [DType.F32, DType.F64, DType.F16])
def test_images_become_what_classify_makes_of_them(
    tmp_path: Path, declared: Preprocessing, channels: int, dtype: DType
) -> None:
    wanted = TensorType(dtype, (N, channels, H, W))
    made = Preparation("image", wanted, declared)
    for shape in ((12, 17, 3), (20, 10, 3), (12, 12)):
        pixels = RNG.integers(0, 256, shape).astype(np.uint8)
        path = tmp_path / "a.png"
        Image.fromarray(pixels).save(path)
        expected = preprocessing.prepare(path, declared, wanted)[0]
        sample = {"x": pixels if pixels.ndim == 3 else pixels[..., None]}
        if channels == 3 or pixels.ndim == 2:
            found = made.finish(made.place(sample)["x"])
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == expected.dtype
            assert found.flags.c_contiguous
        from convdsl.training.data.images import read_image

        decoded = made.place({"x": read_image(path, channels)})
        np.testing.assert_array_equal(made.finish(decoded["x"]), expected)


def test_colour_becomes_grey_as_classify_makes_it() -> None:
    pixels = RNG.integers(0, 256, (5, 6, 3)).astype(np.uint8)
    made = Preparation("image", TensorType(DType.F32, (N, 1, 5, 6)), steps())
    np.testing.assert_array_equal(
        made.finish(pixels)[0], np.asarray(Image.fromarray(pixels).convert("L"))
    )


MODEL = """
model m {{
    input image: f32[N, 1, 8, 8]
    {}
    image -> flatten -> linear(2) -> output y
}}
"""


def test_what_is_done_where_nothing_is_declared() -> None:
    model = parse(MODEL.format(""))
    values = RNG.integers(0, 256, (4, 6, 1)).astype(np.uint8)
    resized = preparation(model)
    found = resized.finish(resized.place({"x": values})["x"])
    pillow = np.asarray(Image.fromarray(values[..., 0]).resize((8, 8), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(found[0], (pillow.astype(np.float64) / 255).astype(np.float32))
    centred = preparation(model, fit="pad")
    expected = np.zeros((8, 8), np.float32)
    expected[2:6, 1:7] = (values[..., 0] * (1 / 255)).astype(np.float32)
    np.testing.assert_array_equal(centred.finish(centred.place({"x": values})["x"])[0], expected)
    declared = preparation(parse(MODEL.format("preprocess image: resize(8x8)")), fit="pad")
    assert declared.finish(np.full((8, 8, 1), 200, np.uint8)).max() == 200


@pytest.mark.parametrize("channels", [1, 3, 2])
def test_classify_sees_what_training_saw(tmp_path: Path, channels: int) -> None:
    """A network with a `train` block and no `preprocess` takes images as they were trained on."""
    text = MODEL.format("").replace("f32[N, 1", f"f32[N, {channels}")
    trained = text + '\ntrain { loss = cross_entropy(y, label)\n fit = "pad" }'
    assert convdsl.compile(parse(text), "random:0").preprocessing is None
    declared = convdsl.compile(parse(trained), "random:0").preprocessing
    if channels == 2:
        assert declared is None
        return
    assert declared is not None
    found = Preprocessing.from_json(declared)
    assert found == preparation(parse(trained), fit="pad").preprocessing
    convdsl.compile(parse(trained), "random:0").save(tmp_path / "net.cdsl")
    assert convdsl.load_executable(tmp_path / "net.cdsl").preprocessing == declared


def test_floats_are_what_the_network_takes() -> None:
    model = parse(MODEL.format("preprocess image: normalize(mean = 3, std = 2)"))
    x = RNG.standard_normal((8, 8, 1)).astype(np.float32)
    np.testing.assert_array_equal(preparation(model).finish(x)[0], x[..., 0])


def test_sizes_and_channels_that_do_not_fit() -> None:
    made = Preparation("image", SMALL, steps())
    with pytest.raises(InputError, match=r"becomes \[1, 3, 2\], and the network takes"):
        made.finish(np.zeros((3, 2, 1), np.uint8))
    with pytest.raises(InputError, match="have 4 channels, and the network takes 1"):
        made.finish(np.zeros((2, 2, 4), np.uint8))
    vectors = Preparation("x", TensorType(DType.F32, (N, 5)), None)
    assert vectors.finish(np.arange(5)).dtype == np.float32
    with pytest.raises(InputError, match=r"becomes \[4\]"):
        vectors.finish(np.zeros(4))


def test_masks_and_boxes_go_where_the_image_goes() -> None:
    """A drawn rectangle is where its mask and its box say."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[8:24, 12:36] = 255
    mask = (image[..., 0] > 0).astype(np.int64)
    sample = {"x": image, "mask": mask, "boxes": np.array([12, 8, 36, 24], np.float32)}
    for size in ([20, 30], [80, 180], [40, 20]):
        declared = steps(
            ("resize", {"size": size, "filter": "nearest"}), ("center_crop", {"size": [14, 18]})
        )
        wanted = TensorType(DType.F32, (N, 3, 14, 18))
        placed = Preparation("image", wanted, declared).place(sample)
        np.testing.assert_array_equal(placed["mask"], placed["x"][..., 0] // 255)
        left, top, right, bottom = np.rint(placed["boxes"]).astype(int)
        drawn = np.zeros((14, 18))
        drawn[top:bottom, left:right] = 1
        np.testing.assert_array_equal(drawn, placed["mask"])


def test_nearest_is_pillow_s() -> None:
    mask = RNG.integers(0, 9, (13, 17)).astype(np.int64)
    sample = {"x": np.zeros((13, 17, 1), np.uint8), "mask": mask}
    for size in ([5, 40], [26, 3], [13, 18]):
        made = Preparation("image", TensorType(DType.F32, (N, 1, H, W)), None)
        placed = made.place(sample, steps(("resize", {"size": size})).steps)
        pillow = Image.fromarray(mask.astype(np.uint8)).resize(size[::-1], Image.Resampling.NEAREST)
        np.testing.assert_array_equal(placed["mask"], np.asarray(pillow))


def test_boxes_outside_have_no_area() -> None:
    made = Preparation("image", TensorType(DType.F32, (N, 1, H, W)), None)
    boxes = np.array([[0, 0, 2, 2], [8, 8, 10, 10], [1, 1, 5, 9]], np.float32)
    placed = made.place(
        {"x": np.zeros((10, 10, 1), np.uint8), "boxes": boxes},
        steps(("center_crop", {"size": 4})).steps,
    )
    assert placed["boxes"].tolist() == [[0, 0, 0, 0], [4, 4, 4, 4], [0, 0, 2, 4]]


@pytest.mark.parametrize(
    ("name", "given", "wanted", "shape"),
    [
        ("label", np.int64(3), TensorType(DType.F32, (N, 1)), (1,)),
        ("label", np.int64(3), TensorType(DType.I64, (N,)), ()),
        ("mask", np.zeros((4, 5), np.int64), TensorType(DType.F32, (N, 1, 4, 5)), (1, 4, 5)),
        ("mask", np.zeros((4, 5), np.int64), TensorType(DType.I64, (N, 4, 5)), (4, 5)),
        ("mask", np.zeros((4, 5, 2), np.uint8), TensorType(DType.F32, (N, 2, 4, 5)), (2, 4, 5)),
        ("boxes", np.zeros(4, np.float32), TensorType(DType.F64, (N, 1, 4)), (1, 4)),
        ("boxes", np.zeros(4, np.float32), TensorType(DType.F32, (N, 5)), (5,)),
        ("boxes", np.zeros((3, 5), np.float32), TensorType(DType.F32, (N, 3, 5)), (3, 5)),
    ],
)
def test_targets_as_losses_take_them(
    name: str, given: Any, wanted: TensorType, shape: tuple[int, ...]
) -> None:
    made = Preparation("x", SMALL, None, {name: wanted}).target(name, np.asarray(given))
    assert made.shape == shape
    assert made.dtype == np.dtype(wanted.dtype.numpy)


# Batches


def test_an_epoch_holds_every_sample_once() -> None:
    made = loader(10, 4)
    batches = list(made.epoch(0))
    assert [len(batch["label"]) for batch in batches] == [4, 4, 2]
    assert len(made) == 3
    labels = np.concatenate([batch["label"] for batch in batches])
    assert sorted(labels) == list(range(10))
    for batch in batches:
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["label"])
    assert batches[0]["image"].shape == (4, 1, 2, 2)
    dropped = loader(10, 4, keep_last=False)
    assert (len(dropped), len(list(dropped.epoch(0)))) == (2, 2)
    chosen = loader(10, 4, indices=[7, 7, 2], shuffle=False)
    assert next(iter(chosen.epoch(5)))["label"].tolist() == [7, 7, 2]


def test_orders_differ_by_epoch_and_seed_alone() -> None:
    orders = {(e, s): tuple(loader(50, 4, seed=s).order(e)) for e in range(4) for s in (0, 1, -1)}
    assert len(set(orders.values())) == 12
    assert tuple(loader(50, 7, workers=3).order(2)) == orders[2, 0]


def test_orders_are_fair() -> None:
    """Each sample comes first alike often: chi squared of 10 cells over 2,000 epochs."""
    made = loader(10, 4)
    counts = np.bincount([made.order(e)[0] for e in range(2000)], minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 27.9  # one in a thousand exceeds it


def test_any_number_of_workers_and_any_start() -> None:
    expected = [batch["label"].tolist() for batch in loader(50, 3, workers=0).epoch(3)]
    for workers in (1, 2, 5):
        for start in (0, 1, 16, 17):
            found = loader(50, 3, workers=workers).epoch(3, start)
            assert [batch["label"].tolist() for batch in found] == expected[start:]


class Watched:
    """Samples that say what is read, and fail at one of them."""

    source, classes, labels = "watched", None, None

    def __init__(self, bad: int | None = None) -> None:
        self.read: list[int] = []
        self.bad = bad

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == self.bad:
            raise InputError("sample 7 is broken")
        self.read.append(index)
        return {"x": np.full((2, 2, 1), index, np.uint8)}


def threads() -> int:
    return sum(t.name.startswith("convdsl-data") for t in threading.enumerate())


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_errors_come_where_their_batch_comes(workers: int) -> None:
    prepare = Preparation("image", SMALL, steps())
    made = Loader(Watched(bad=7), prepare, 3, shuffle=False, workers=workers)
    found: list[Any] = []
    with pytest.raises(InputError, match="sample 7 is broken"):
        found.extend(made.epoch(0))
    assert len(found) == 2
    assert threads() == 0


def test_what_is_read_ahead_is_bounded_and_ends() -> None:
    data = Watched()
    made = Loader(data, Preparation("image", SMALL, steps()), 2, shuffle=False, workers=2)
    batches: Any = made.epoch(0)
    next(batches)
    assert threads() > 0
    batches.close()
    assert threads() == 0
    assert len(data.read) <= 2 * (2 * 2 + 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("declared", DECLARED)
@pytest.mark.parametrize("channels", [1, 3])
def test_samples_at_once_are_as_one_by_one(
    declared: Preprocessing, channels: int, dtype: Any
) -> None:
    """Bit for bit, where arrays can be read at once and where they cannot."""

    class OneByOne:
        source, classes, labels = "one by one", None, None

        def __init__(self, data: ArrayData) -> None:
            self.data = data

        def __len__(self) -> int:
            return len(self.data)

        def __getitem__(self, index: int) -> Any:
            return self.data[index]

    x = RNG.integers(0, 256, (9, 12, 17, channels)).astype(dtype)
    named = {"x": x, "y": np.arange(9), "weights": RNG.standard_normal((9, 2, 3))}
    data = ArrayData(named)
    targets = {"label": TensorType(DType.F32, (N, 1))}
    made = Preparation("image", TensorType(DType.F32, (N, channels, H, W)), declared, targets)
    whole = list(Loader(data, made, 4).epoch(1))
    single = list(Loader(OneByOne(data), made, 4).epoch(1))
    for a, b in zip(whole, single, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype
            assert a[name].flags.c_contiguous
            np.testing.assert_array_equal(a[name], b[name])


def test_what_does_not_fit_is_said_with_its_sample() -> None:
    x = np.zeros((4, 2, 3), np.uint8)
    made = Loader(ArrayData({"x": x}), Preparation("image", SMALL, steps()), 4, shuffle=False)
    with pytest.raises(
        InputError, match=r"sample 0 of the given arrays: a sample becomes \[1, 2, 3"
    ):
        list(made.epoch(0))


def test_batches_of_one_shape() -> None:
    class Ragged(Watched):
        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"x": np.zeros((2 + index, 2, 1), np.uint8)}

    free = Preparation("image", TensorType(DType.F32, (N, 1, H, W)), steps())
    with pytest.raises(InputError, match=r"image of sample 1 is \[1, 3, 2\], of sample 0"):
        next(iter(Loader(Ragged(), free, 2, shuffle=False).epoch(0)))


def test_batches_that_cannot_be() -> None:
    with pytest.raises(InputError, match="batch of 0"):
        loader(10, 0)
    with pytest.raises(InputError, match="3 samples make no batch of 4\nhelp"):
        loader(3, 4, keep_last=False)


def test_data_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays of the network's size need no imaging library; others say which."""
    import sys

    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "convdsl.preprocessing", raising=False)
    model = parse(MODEL.format(""))
    data = open_data(np.zeros((3, 6, 6), np.uint8), np.zeros(3))
    assert next(iter(Loader(data, preparation(model, fit="pad"), 2).epoch(0)))["image"].shape
    with pytest.raises(InputError, match="images need Pillow"):
        next(iter(Loader(data, preparation(model), 2).epoch(0)))
