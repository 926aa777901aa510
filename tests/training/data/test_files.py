"""Data in files become samples: folders, IDX, archives of arrays and tables; what is wrong with
them is said."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convdsl.diagnostics import InputError
from convdsl.tensor import DType, TensorType, symbol
from convdsl.training.data import (
    Wanted,
    idx,
    open_data,
    open_parts,
)

N = symbol("N")
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
    with pytest.raises(InputError, match="a damaged archive: it is cut short"):
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
