"""What stands at a path, and what is said of it by everything that reads files."""

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import convdsl
from convdsl.diagnostics import Error, InputError
from convdsl.places import kind_of, nothing_at
from convdsl.runtime.whole_files import check_place
from convdsl.training.data import Wanted, open_parts

TEXT = """
model m {
    input x: f32[N, 3, 8, 8]
    x -> conv(4, 3x3) -> avgpool(global) -> flatten -> output y
}
"""


def _tar(path: Path) -> None:
    (path.parent / "inside").write_text("x")
    with tarfile.open(path, "w") as made:
        made.add(path.parent / "inside", "inside")


def _bytes(save: Any) -> bytes:
    with io.BytesIO() as held:
        save(held, np.zeros(3))
        return held.getvalue()


def _image(path: Path) -> None:
    Image.new("RGB", (4, 4)).save(path, "PNG")


KINDS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda p: p.write_bytes(b""), "empty"),
    "text": (lambda p: p.write_text("hello\nünder\n"), "a text"),
    "json": (lambda p: p.write_text('{"a": 1}'), "JSON"),
    "page": (lambda p: p.write_text("<!DOCTYPE html>\n<html>404"), "a web page"),
    "lfs": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "gzip": (lambda p: p.write_bytes(gzip.compress(b"x")), "compressed by gzip"),
    "tar": (_tar, "a tar archive"),
    "noise": (lambda p: p.write_bytes(bytes(range(128, 256))), "of no kind that is known"),
    "elf": (lambda p: p.write_bytes(b"\x7fELF\x02\x01"), "machine code"),
    "folder": (lambda p: p.mkdir(), "a folder"),
}
HELD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "npy": (lambda p: p.write_bytes(_bytes(np.save)), "a NumPy array"),
    "npz": (lambda p: p.write_bytes(_bytes(np.savez)), "an archive: an .npz"),
    "weights": (lambda p: save_file({"a": np.zeros(3)}, str(p)), "a safetensors file"),
    "image": (_image, "an image (PNG)"),
    "pickle": (lambda p: p.write_bytes(b"\x80\x04K\x01."), "a pickle"),
    "onnx": (lambda p: p.write_bytes(b"\x08\x09\x12\x07convdsl"), "an ONNX model"),
}


@pytest.mark.parametrize("name", [*KINDS, *HELD])
def test_kinds(tmp_path: Path, name: str) -> None:
    make, kind = (KINDS | HELD)[name]
    make(tmp_path / "file")
    assert kind in kind_of(tmp_path / "file")


def test_what_is_not_there_or_no_file(tmp_path: Path) -> None:
    assert kind_of(tmp_path / "none") == "not there"
    assert kind_of(Path("/dev/null")) == "no plain file"
    assert kind_of(Path("nul\0byte")) == "not there"


READERS: dict[str, Callable[[Path], Any]] = {
    "x.onnx": convdsl.load,
    "x.pt": lambda path: convdsl.weights.load(path),
    "x.cdsl": convdsl.load_executable,
    "y.cdsl": convdsl.load,
    "x.npz": lambda path: open_parts(path, wanted=Wanted()),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", [name for name in KINDS if name != "folder"])
def test_every_reader_says_what_a_file_is(tmp_path: Path, reader: str, name: str) -> None:
    make, kind = KINDS[name]
    make(tmp_path / reader)
    with pytest.raises(Error) as told:
        READERS[reader](tmp_path / reader)
    said = str(told.value)
    assert kind in said or (name == "elf" and "machine code" in said)
    assert "Wire format" not in said
    assert "zip file" not in said


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_names_what_lies_beside(tmp_path: Path, reader: str) -> None:
    ending = Path(reader).suffix
    (tmp_path / f"network{ending}").write_bytes(b"")
    with pytest.raises(Error, match=rf"did you mean .*network\{ending}"):
        READERS[reader](tmp_path / f"netwrok{ending}")


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    said = nothing_at(tmp_path / "no" / "such" / "x.npy")
    assert said.endswith(f"x.npy: {tmp_path / 'no'} is not there")
    (tmp_path / "file").write_text("")
    assert nothing_at(tmp_path / "file" / "x.npy").endswith(f"{tmp_path / 'file'} is no folder")


def test_files_but_for_their_endings_are_meant(tmp_path: Path) -> None:
    (tmp_path / "weights.npz").write_bytes(b"")
    assert nothing_at(tmp_path / "weights").endswith(
        "did you mean " + str(tmp_path / "weights.npz?")
    )


@pytest.mark.parametrize("folder", ["/proc", "/proc/self/fd"])
def test_folders_that_take_no_files(folder: str) -> None:
    with pytest.raises(OSError, match=r"no files can be made|denied|not permitted|Read-only"):
        check_place(Path(folder) / "x.cdsl")


def test_a_probe_leaves_nothing(tmp_path: Path) -> None:
    check_place(tmp_path / "x.cdsl")
    assert not list(tmp_path.iterdir())


def test_a_broken_onnx_file_is_told_from_a_foreign_one(tmp_path: Path) -> None:
    whole = convdsl.export(convdsl.parse(TEXT), "random:0")
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"no sound ONNX model: its [\d,]+ bytes break off"):
        convdsl.load(tmp_path / "cut.onnx")
