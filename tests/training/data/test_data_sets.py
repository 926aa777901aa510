"""Data in files and arrays become samples; what is wrong with them is said."""

from __future__ import annotations

import gzip
import io
import itertools
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convdsl import parse
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
    idx,
    open_data,
    open_parts,
)
from convdsl.training.feeding import open_training_data
from convdsl.training.settings import complete

N, H, W = symbol("N"), symbol("H"), symbol("W")
RNG = np.random.default_rng(0)


def picture(value: int = 0, size: tuple[int, int] = (4, 6)) -> Image.Image:
    return Image.fromarray(np.full((*size, 3), value, np.uint8))


def save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def idx_bytes(array: np.ndarray[Any, Any], type: int = 0x08) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, type, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


# Folders


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    for number, name in enumerate(("zebra", "ant", "Bee")):
        for k in range(3):
            save(tmp_path / name / f"{k}.png", picture(10 * number + k))
    save(tmp_path / "ant" / "deep" / "er" / "9.JPG", picture(19))
    (tmp_path / "ant" / "notes.txt").write_text("no image")
    (tmp_path / ".cache").mkdir()
    save(tmp_path / "zebra" / ".hidden.png", picture())
    data = open_data(tmp_path)
    assert data.classes == ("Bee", "ant", "zebra")  # sorted as Python sorts
    assert data.labels is not None
    assert data.labels.tolist() == [0] * 3 + [1] * 4 + [2] * 3
    values = [int(data[i]["x"][0, 0, 0]) for i in range(len(data))]
    assert values == [20, 21, 22, 10, 11, 12, 19, 0, 1, 2]
    assert data[4]["x"].shape == (4, 6, 3)
    assert data[4]["x"].dtype == np.uint8
    assert data[4]["label"] == 1


def test_grey_is_decoded_as_grey(tmp_path: Path) -> None:
    colours = RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    save(tmp_path / "a" / "0.png", Image.fromarray(colours))
    data = open_data(tmp_path, wanted=Wanted(TensorType(DType.F32, (N, 1, 5, 7))))
    grey = np.asarray(Image.fromarray(colours).convert("L"))
    np.testing.assert_array_equal(data[0]["x"], grey[..., None])


def test_parts_by_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / "train" / name / "0.png", picture(1))
        save(tmp_path / "test" / name / "0.png", picture(3))
    save(tmp_path / "Val" / "b" / "0.png", picture(2))
    parts = open_parts(tmp_path)
    assert parts.validation is not None
    assert parts.test is not None
    assert [len(p) for p in (parts.train, parts.validation, parts.test)] == [2, 1, 2]
    assert parts.validation[0]["label"] == 1  # as the training part counts
    assert parts.validation.classes == ("a", "b")
    assert open_data(tmp_path, part="test")[0]["x"].max() == 3
    save(tmp_path / "Val" / "c" / "0.png", picture(2))
    with pytest.raises(InputError, match=r"c is no class of the training data.*a, b"):
        open_parts(tmp_path)


def test_a_class_called_train(tmp_path: Path) -> None:
    for name in ("train", "bus", "test"):
        save(tmp_path / name / "0.png", picture(1))
    assert open_data(tmp_path).classes == ("bus", "test", "train")


def test_masks_beside_images(tmp_path: Path) -> None:
    drawn = RNG.integers(0, 5, (4, 6)).astype(np.uint8)
    for k in range(2):
        save(tmp_path / "images" / f"{k}.jpg", picture(k))
        image = Image.fromarray(drawn + k)
        if k:
            image = image.convert("P")
            image.putdata(drawn.ravel().tolist())
        save(tmp_path / "masks" / f"{k}.png", image)
    data = open_data(tmp_path)
    for k in range(2):
        np.testing.assert_array_equal(data[k]["mask"], drawn)
    assert data[0]["mask"].dtype == np.int64
    assert data.labels is None
    save(tmp_path / "masks" / "0.png", Image.fromarray(drawn[:3]))
    with pytest.raises(InputError, match=r"0\.png is 3x6, its image .*0\.jpg 4x6"):
        data[0]
    save(tmp_path / "masks" / "0.png", picture())
    with pytest.raises(InputError, match="in colour"):
        data[0]
    (tmp_path / "masks" / "0.png").unlink()
    with pytest.raises(InputError, match=r"images/0\.jpg has no mask of its name"):
        open_data(tmp_path)


def test_what_is_wrong_with_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no data\nhelp: put the images of each class"):
        open_data(tmp_path)
    save(tmp_path / "a" / "0.png", picture())
    (tmp_path / "b").mkdir()
    with pytest.raises(InputError, match=r"class folder .*b holds no images\nhelp: remove it"):
        open_data(tmp_path)
    save(tmp_path / "b" / "0.png", picture())
    data = open_data(tmp_path)
    (tmp_path / "b" / "0.png").write_bytes(b"broken")
    assert data[0]["label"] == 0
    with pytest.raises(InputError, match=r"cannot read the image .*b/0\.png"):
        data[1]
    with pytest.raises(InputError, match="there are no data at"):
        open_data(tmp_path / "missing")
    with pytest.raises(InputError, match="neither a folder nor a plain file"):
        open_data("/dev/zero")
    with pytest.raises(InputError, match="data"):
        open_data("a\0b")
    with pytest.raises(InputError, match="say their labels themselves"):
        open_data(tmp_path, "labels.csv")
    with pytest.raises(InputError, match=r"the network takes f32\[N, 10\]"):
        open_data(tmp_path, wanted=Wanted(TensorType(DType.F32, (N, 10))))


# IDX


@pytest.mark.parametrize("packed", [False, True])
def test_idx_pairs(tmp_path: Path, packed: bool) -> None:
    images = RNG.integers(0, 256, (5, 3, 4)).astype(np.uint8)
    labels = np.arange(5, dtype=np.uint8)
    for name, array in (("x", images), ("y", labels)):
        data = idx_bytes(array)
        (tmp_path / name).write_bytes(gzip.compress(data) if packed else data)
    found = open_data(tmp_path / "x", tmp_path / "y")
    assert len(found) == 5
    np.testing.assert_array_equal(found[3]["x"], images[3][..., None])
    assert found[3]["label"] == 3
    assert found.labels is not None
    assert found.labels.dtype == np.int64
    assert isinstance(idx.read_idx(tmp_path / "x"), np.memmap) is not packed


@pytest.mark.parametrize(
    ("type", "numpy"),
    [(8, "u1"), (9, "i1"), (11, "i2"), (12, "i4"), (13, "f4"), (14, "f8")],
)
def test_idx_types(tmp_path: Path, type: int, numpy: str) -> None:
    values = np.array([[1, 2, 3], [4, 5, 100]], numpy)
    (tmp_path / "a").write_bytes(idx_bytes(values, type))
    np.testing.assert_array_equal(idx.read_idx(tmp_path / "a"), values)


def test_mnist_by_its_names(tmp_path: Path) -> None:
    for part, count in (("train", 6), ("t10k", 2)):
        images = np.zeros((count, 28, 28), np.uint8)
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        labels = gzip.compress(idx_bytes(np.arange(count, dtype=np.uint8)))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(labels)
    parts = open_parts(tmp_path)
    assert parts.test is not None
    assert (len(parts.train), len(parts.test), parts.validation) == (6, 2, None)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match="lacks t10k-labels-idx1-ubyte"):
        open_parts(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(InputError, match="no part called validation"):
        open_data(tmp_path, part="validation")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda data: data[:3], "is no"),
        (lambda data: data[:9], "ends in its header"),
        (lambda data: data[:-1], "cut short: its header declares 60 bytes of elements, 59"),
        (lambda data: data + b"0", "more follows than the 60 bytes"),
        (lambda data: data[:4] + b"\xff" * 12 + data[16:], "cut short|a compressed file"),
        (lambda data: b"\0\0\x08\x09" + data[4:], "an array of 9 axes"),
    ],
)
def test_idx_that_is_damaged(tmp_path: Path, packed: bool, change: Any, match: str) -> None:
    data = change(idx_bytes(np.zeros((5, 3, 4), np.uint8)))
    (tmp_path / "x").write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(InputError, match=match):
        idx.read_idx(tmp_path / "x")


def test_gzip_that_is_cut_short(tmp_path: Path) -> None:
    data = gzip.compress(idx_bytes(RNG.integers(0, 256, (50, 9, 9)).astype(np.uint8)))
    (tmp_path / "x").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"cannot read .*x"):
        open_data(tmp_path / "x")


def test_what_is_compressed_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = b"\0\0\x08\x01" + struct.pack(">I", 10) + bytes(1 << 22)
    (tmp_path / "x").write_bytes(gzip.compress(bomb))
    with pytest.raises(InputError, match="more follows"):
        open_data(tmp_path / "x")
    (tmp_path / "y").write_bytes(gzip.compress(idx_bytes(np.zeros(10, np.uint8))))
    monkeypatch.setattr(idx, "MOST_BYTES", 10)
    assert len(idx.read_idx(tmp_path / "y")) == 10
    monkeypatch.setattr(idx, "MOST_BYTES", 9)
    with pytest.raises(InputError, match=r"decompress it \(gunzip\)"):
        idx.read_idx(tmp_path / "y")


# npz and npy


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.float16])
@pytest.mark.parametrize("layout", ["hw", "hwc", "chw"])
@pytest.mark.parametrize("packed", [False, True])
def test_npz(tmp_path: Path, dtype: Any, layout: str, packed: bool) -> None:
    images = RNG.integers(0, 256, (4, 8, 6, 3)).astype(dtype)
    if layout == "hw":
        images = images[..., :1]
    stored = {"hw": images[..., 0], "hwc": images, "chw": images.transpose(0, 3, 1, 2)}[layout]
    write: Any = np.savez_compressed if packed else np.savez
    write(tmp_path / "d.npz", x=stored, y=np.arange(4)[:, None], boxes=np.ones((4, 4)))
    data = open_data(tmp_path / "d.npz")
    np.testing.assert_array_equal(data[2]["x"], images[2])
    assert data[2]["x"].dtype == (np.uint8 if dtype is np.uint8 else np.float32)
    assert data[2]["label"].shape == ()
    assert data[2]["label"].dtype == np.int64
    assert data[2]["boxes"].dtype == np.float32


def test_stored_arrays_are_mapped_where_they_lie(tmp_path: Path) -> None:
    x = RNG.integers(0, 256, (7, 5, 5)).astype(np.uint8)
    np.savez(tmp_path / "d.npz", first=np.arange(13), x=np.asfortranarray(x), y=np.arange(7.0))
    from convdsl.weights.npz_file import NpzFile

    archive = NpzFile(tmp_path / "d.npz")
    mapped = archive.map("x")
    assert isinstance(mapped, np.memmap)
    for name in ("first", "x", "y"):
        np.testing.assert_array_equal(archive.map(name), archive.read(name))


def test_parts_by_name(tmp_path: Path) -> None:
    shapes = {"train": 5, "test": 2}
    named = {f"x_{p}": np.zeros((n, 28, 28), np.uint8) for p, n in shapes.items()}
    named |= {f"y_{p}": np.zeros(n, np.uint8) for p, n in shapes.items()}
    np.savez(tmp_path / "mnist.npz", **named)
    parts = open_parts(tmp_path / "mnist.npz")
    assert parts.test is not None
    assert (len(parts.train), len(parts.test)) == (5, 2)
    np.savez(tmp_path / "odd.npz", **named, x=np.zeros((5, 2, 2)))
    with pytest.raises(InputError, match="arrays of parts and others"):
        open_parts(tmp_path / "odd.npz")
    np.savez(tmp_path / "odd.npz", x_test=np.zeros((5, 2, 2)))
    with pytest.raises(InputError, match="no arrays of the training part"):
        open_parts(tmp_path / "odd.npz")


def test_npy_pairs(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    np.save(tmp_path / "y.npy", np.array([1, 0], ">i2"))
    data = open_data(str(tmp_path / "x.npy"), str(tmp_path / "y.npy"))
    assert data[1]["x"][2, 3, 0] == 23
    assert data[0]["label"] == 1
    assert data[0]["label"].dtype == np.int64
    with pytest.raises(InputError, match="there is no file"):
        open_data(tmp_path / "x.npy", tmp_path / "z.npy")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.array([{}], object), y=np.zeros(1))
    with pytest.raises(InputError, match="no plain array of numbers"):
        open_data(tmp_path / "d.npz")
    np.save(tmp_path / "d.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError, match="no plain array of numbers"):
        open_data(tmp_path / "d.npy")


def test_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "d.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(InputError, match="data are folders of images, .npz"):
        open_data(tmp_path / "d.npz")
    np.savez(tmp_path / "d.npz", x=np.zeros((4, 8, 8), np.uint8))
    whole = (tmp_path / "d.npz").read_bytes()
    (tmp_path / "d.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a sound .npz"):
        open_data(tmp_path / "d.npz")


@pytest.mark.parametrize("field", [26, 28])
def test_archives_that_point_beyond_themselves(tmp_path: Path, field: int) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((4, 8, 8), np.uint8))
    data = bytearray((tmp_path / "d.npz").read_bytes())
    data[field : field + 2] = b"\xff\xff"  # a longer name, or more beside it, than is there
    (tmp_path / "d.npz").write_bytes(data)
    with pytest.raises(InputError, match="sound|cannot read"):
        open_data(tmp_path / "d.npz")[0]


def test_zip_members_of_two_headers(tmp_path: Path) -> None:
    """What is mapped is what the directory says of the array, whatever stands at its place."""
    buffer = io.BytesIO()
    np.save(buffer, np.arange(6, dtype=np.uint8).reshape(6, 1, 1))
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as file:
        info = zipfile.ZipInfo("x.npy")
        info.extra = b"\x01\x99\x04\x00abcd"
        file.writestr(info, buffer.getvalue())
    data = open_data(tmp_path / "d.npz")
    assert [int(data[i]["x"].item()) for i in range(6)] == list(range(6))


# Arrays


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


# Tables


def table(folder: Path, text: str) -> Path:
    for k in range(3):
        save(folder / f"{k}.png", picture(k))
        Image.fromarray(np.full((4, 6), k, np.uint8)).save(folder / f"m{k}.png")
    (folder / "t.csv").write_text(text)
    return folder / "t.csv"


@pytest.mark.parametrize("header", ["", "path,label\n", "\ufefffilename , class\n"])
def test_tables_of_numbers(tmp_path: Path, header: str) -> None:
    data = open_data(table(tmp_path, f"{header}0.png, 7\n\n2.png,3\n"))
    assert data.labels is not None
    assert data.labels.tolist() == [7, 3]
    assert data.classes is None
    assert data[1]["x"].max() == 2


def test_tables_of_names(tmp_path: Path) -> None:
    data = open_data(table(tmp_path, "0.png,dog\n1.png,cat\n2.png,dog\n"))
    assert data.classes == ("cat", "dog")
    assert [int(data[i]["label"]) for i in range(3)] == [1, 0, 1]


def test_tables_of_tabs(tmp_path: Path) -> None:
    text = table(tmp_path, "").with_suffix(".tsv")
    text.write_text("0.png\tdog, black\n1.png\tcat\n")
    assert open_data(text).classes == ("cat", "dog, black")


def test_tables_of_boxes_and_masks(tmp_path: Path) -> None:
    text = "label,xmax,mask,image,xmin,ymin,ymax,age\n0.5,4,m1.png,1.png,0,1,3,40\n"
    sample = open_data(table(tmp_path, text))[0]
    assert sample["boxes"].tolist() == [0, 1, 4, 3]
    assert sample["mask"].tolist() == [[1] * 6] * 4
    assert sample["label"] == 0.5
    assert sample["age"] == 40


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "holds no rows"),
        ("path,label\n", "no rows but its names"),
        ("0.png,1,2\n", r"t\.csv:1 has 3 columns, not 2"),
        ("path,label\n0.png,1\n1.png\n", r"t\.csv:3 has 1 columns"),
        ("path,label\n0.png,cat\n1.png,\n", r"t\.csv:3: no label"),
        ("path,label\n,cat\n", r"t\.csv:2 names no image"),
        ("path,age\n0.png,old\n", "age is 'old', which is no number"),
        ("path,path\n0.png,0.png\n", "several columns are called `path`"),
        ('path,label\n"0.png,1', "cannot read the table"),
    ],
)
def test_what_is_wrong_with_tables(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        open_data(table(tmp_path, text))


def test_images_that_a_table_lacks(tmp_path: Path) -> None:
    data = open_data(table(tmp_path, "0.png,1\nmissing.png,0\n"))
    with pytest.raises(InputError, match=r"cannot read the image .*missing\.png"):
        data[1]
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot read the table"):
        open_data(tmp_path / "t.csv")


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


# Names of classes

NAMES = ["rot", "blau", "grün", "blau", "日本", "rot"]
SORTED = ("blau", "grün", "rot", "日本")


def _named_data(tmp_path: Path, how: str) -> Any:
    x, names = np.zeros((6, 2, 2), "u1"), np.array(NAMES)
    path = tmp_path / "d.npz"
    match how:
        case "stored":
            np.savez(path, x=x, y=names)
        case "packed":
            np.savez_compressed(path, x=x, labels=names)
        case "big-endian column":
            np.savez(path, x=x, y=names.astype(">U7")[:, None])
        case "Fortran":
            np.savez(path, x=x, y=np.asfortranarray(names))
        case "npy":
            np.save(tmp_path / "x.npy", x)
            np.save(tmp_path / "y.npy", names)
            return tmp_path / "x.npy"
        case "bytes":
            return {"x": x, "y": np.char.encode(names, "utf-8")}
        case "objects":
            return {"x": x, "y": names.astype(object)}
        case "list":
            return (x, NAMES)
        case _:
            return zip(x, NAMES, strict=True)
    return path


HOW = [
    *("stored", "packed", "big-endian column", "Fortran", "npy"),
    *("bytes", "objects", "list", "iterator"),
]


@pytest.mark.parametrize("how", HOW)
def test_labels_may_be_names(tmp_path: Path, how: str) -> None:
    given = _named_data(tmp_path, how)
    data = open_data(given, tmp_path / "y.npy" if how == "npy" else None)
    assert data.classes == SORTED
    assert data.labels is not None
    assert [SORTED[number] for number in data.labels] == NAMES
    assert data[4]["label"] == 3
    assert data[4]["label"].dtype == np.int64


@pytest.mark.parametrize("named", ["train", "val"])
@pytest.mark.parametrize("how", ["parts", "apart"])
def test_classes_are_all_named_or_all_numbered(tmp_path: Path, named: str, how: str) -> None:
    """Which name a number is, no rule says: of parts of one file, and of a file apart."""
    x = np.zeros((6, 2, 2), "u1")
    labels = {"train": np.arange(6) % 3, "val": np.arange(6) % 3, named: np.array(NAMES)}
    said = r"the classes are (numbers|names \(.*\)), and those of the training data, .*help: give"
    flat = "model m {\n input x: f32[N, 2, 2]\n x -> flatten -> linear(4) -> output y\n}\n"
    if how == "parts":
        given = {f"{k}_{part}": a for part in labels for k, a in (("x", x), ("y", labels[part]))}
        np.savez(tmp_path / "d.npz", **given)
        with pytest.raises(InputError, match=f"(?s){said}"):
            open_parts(tmp_path / "d.npz")
        return
    for part, numbers in labels.items():
        np.savez(tmp_path / f"{part}.npz", x=x, y=numbers)
    model = parse(flat)
    places = (tmp_path / "train.npz", None, tmp_path / "val.npz")
    with pytest.raises(InputError, match=f"(?s)val.npz: {said}"):
        open_training_data(model, *places, complete(model))


def test_names_are_numbered_as_in_training(tmp_path: Path) -> None:
    """Where a part of the data lacks a class, those after it keep their numbers."""
    x = np.zeros((6, 2, 2), "u1")
    arrays = {
        "x_train": x,
        "y_train": np.array(NAMES),
        "x_val": x[:2],
        "y_val": np.array(["rot"] * 2),
    }
    np.savez(tmp_path / "d.npz", **arrays)
    parts = open_parts(tmp_path / "d.npz")
    assert parts.validation is not None
    assert parts.validation.labels is not None
    assert parts.validation.labels.tolist() == [2, 2]
    np.savez(tmp_path / "d.npz", **{**arrays, "y_val": np.array(["rot", "gelb"])})
    with pytest.raises(InputError, match="class 'gelb' of sample 1 is none of the training data"):
        open_parts(tmp_path / "d.npz")


def _validation(tmp_path: Path, how: str) -> Any:
    x = np.zeros((4, 6, 6), "u1")
    if how == "arrays":
        return (x, ["rot"] * 4)
    for number in range(2):
        (tmp_path / "val/rot").mkdir(parents=True, exist_ok=True)
        Image.new("L", (6, 6)).save(tmp_path / f"val/rot/{number}.png")
    if how == "folder":
        return tmp_path / "val"
    (tmp_path / "val.csv").write_text("path,label\nval/rot/0.png,rot\n")
    return tmp_path / "val.csv"


@pytest.mark.parametrize("how", ["arrays", "folder", "table"])
def test_other_validation_data_too(tmp_path: Path, how: str) -> None:
    model = parse(
        "model m { input image: f32[N, 1, 6, 6]\n image -> flatten -> linear(4) -> output y }"
    )
    data = (np.zeros((6, 6, 6), "u1"), NAMES)
    found = open_training_data(model, data, None, _validation(tmp_path, how), complete(model))
    assert found.validation is not None
    assert found.validation.labels is not None
    assert set(found.validation.labels.tolist()) == {2}


@pytest.mark.parametrize(
    ("label", "match"),
    [
        (np.array(["a", "", "b"]), "label of sample 1 is an empty name"),
        (np.array([["a", "b"]] * 3), r"label is \[3, 2\] names, not one"),
        (np.array([b"a", b"\xff", b"b"]), "label holds no names"),
        (np.array(["a", "b"]), "3 of x, 2 of label"),
        (np.array(["a", 1, None], object), "holds object, not numbers"),
    ],
)
def test_names_that_are_none(label: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        open_data({"x": np.zeros((3, 2, 2), "u1"), "y": label})


def test_names_from_files_of_strangers(tmp_path: Path) -> None:
    """Text that is none, names elsewhere, objects, which are named and never unpickled."""
    x = np.zeros((2, 2, 2), "u1")
    for kept in (np.savez, np.savez_compressed):
        for order, number in itertools.product("<>", (0x110000, 0xFFFFFFFF, 0xD800)):
            bad = np.array([number, 65], f"{order}u4").view(f"{order}U1")
            kept(tmp_path / "d.npz", x=x, y=bad)
            with pytest.raises(InputError, match="label holds no names"):
                open_data(tmp_path / "d.npz")
        kept(tmp_path / "d.npz", x=np.array(["a", "b"]), y=np.zeros(2, "i8"))
        with pytest.raises(InputError, match="x holds <U1, not numbers"):
            open_data(tmp_path / "d.npz")
        kept(tmp_path / "d.npz", x=x, y=np.array(["a", "b"], object))
        with pytest.raises(InputError, match=r"y: an array of Python objects.*np\.array\(names"):
            open_data(tmp_path / "d.npz")
