"""Arrays for `convdsl run`: read, drawn, written and summarised."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib.format import write_array
from numpy.typing import NDArray

from convdsl.cli import console
from convdsl.cli.building import Network
from convdsl.cli.files import plain_path
from convdsl.cli.parsing import suggestion
from convdsl.diagnostics import InputError, WeightError
from convdsl.places import kind_of, nothing_at
from convdsl.spelling import by_words
from convdsl.tensor import DType, TensorType
from convdsl.tensor.conversion import convert, widen_bf16

Array = NDArray[Any]
RANDOM = "random:"


def load(spec: str, network: Network) -> dict[str, Array]:
    """The input arrays that `--data` names."""
    types = network.executable.inputs
    if spec.startswith(RANDOM):
        seed = spec.removeprefix(RANDOM)
        if not (seed.isascii() and seed.isdigit() and len(seed) < 20):
            raise InputError(
                f"--data {spec}: the seed must be a whole number\nhelp: write random:0, or any "
                "other number: the same one gives the same data"
            )
        shapes = network.shapes()
        return {name: draw(int(seed), name, type, shapes[name]) for name, type in types.items()}
    path, (called, equals, _) = plain_path(spec), spec.partition("=")
    if equals and called in types and not path.exists():
        raise InputError(
            f"--data takes one file for all inputs, and no NAME=FILE\nhelp: {_archive_of(types)}"
        )
    given, words = read(path), by_words(types)
    given = {
        words[name] if name in words and words[name] not in given else name: array
        for name, array in given.items()
    }
    if len(given) == 1 and len(types) == 1:  # a single array needs no name
        ((called, array),), wanted = given.items(), next(iter(types))
        if called not in ("", wanted):
            console.note(f"{spec}: its only array, {called}, is taken for the input {wanted}")
        given = {wanted: array}
    _check_names(spec, given, types)
    return given


def _check_names(spec: str, given: Mapping[str, Array], types: Mapping[str, TensorType]) -> None:
    """InputError where a file's arrays are not called as the inputs are."""
    wanted = ", ".join(types)
    if "" in given:
        raise InputError(
            f"{spec} holds one array, and the model takes {len(types)}: {wanted}\n"
            f"help: {_archive_of(types)}"
        )
    odd = [name for name in given if name not in types]
    missing = [name for name in types if name not in given]
    if not (odd or missing):
        return
    more = f"\n{spec} holds {', '.join(given) or 'nothing'}; the model takes {wanted}"
    if odd:
        near = suggestion(odd[0], types) or f"; the inputs are {wanted}"
        raise InputError(f"{spec}: the model has no input {odd[0]}{near}{more}")
    raise InputError(f"{spec} lacks the inputs {', '.join(missing)}{more}")


def _archive_of(types: Mapping[str, TensorType]) -> str:
    return f"np.savez(file, {', '.join(f'{name}=...' for name in types)}) writes one .npz"


def draw(seed: int, name: str, type: TensorType, shape: tuple[int, ...]) -> Array:
    """Standard normal numbers, fair bits, or bytes; the same for a seed and an input's name."""
    key = hashlib.sha256(f"{seed} {name}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(key, "little"))
    dtype = type.dtype
    if dtype.is_float:
        return convert(random.standard_normal(shape), DType.F64, dtype)
    if dtype is DType.BOOL:
        return random.integers(0, 2, shape).astype(np.bool_)
    if dtype.is_integer and dtype.bytes == 1:
        return random.integers(0, 256, shape, np.uint8).view(dtype.numpy)
    size = ", ".join(map(str, shape))
    raise InputError(
        f"--data random cannot guess sensible {type.dtype} values for {name}\n"
        f"help: np.savez('data.npz', {name}=...) writes them, of [{size}], with the other inputs, "
        "for --data data.npz"
    )


def read(path: Path) -> dict[str, Array]:
    """The arrays of an .npy (its name is empty) or .npz file, without pickle."""
    from convdsl.weights.loading import UnknownFormat
    from convdsl.weights.npz_file import is_npy, read_npy

    if not path.exists():
        drawn = "\nhelp: random:0 draws them" if str(path).lower() in ("random", "rand") else ""
        raise InputError(nothing_at(path, ".npy", ".npz") + drawn)
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no plain file"
        raise InputError(f"the data {path} are {kind}: an .npy or .npz file of arrays is wanted")
    images = path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
    help = "\nhelp: images are for `convdsl classify`" if images else ""
    try:
        if is_npy(path):
            return {"": _native(read_npy(path))}
        from convdsl.weights import WeightStore
        from convdsl.weights import load as open_store

        store = open_store(path)
        assert isinstance(store, WeightStore)
        return {name: _native(store.read(name)) for name in store.entries}
    except UnknownFormat:
        said = f"{path} holds no arrays: it is {kind_of(path)}; read are .npy and .npz files"
        raise InputError(f"{said}{help}") from None
    except WeightError as error:
        raise InputError(f"{error}{help}") from None


def _native(array: Array) -> Array:
    """The same numbers with their bytes in this processor's order."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def save(path: Path, outputs: Mapping[str, Array]) -> None:
    """Write outputs: .npy for one, .npz for several. Raises InputError, and leaves no part of a
    file where there is no room for it."""
    try:
        _save(path, outputs)
    except OSError as error:
        if path.is_file():
            path.unlink()
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def _save(path: Path, outputs: Mapping[str, Array]) -> None:
    if path.suffix == ".npy" and len(outputs) == 1:
        with path.open("wb") as file:
            target = cast("BinaryIO", _Written(file))
            write_array(target, np.asanyarray(next(iter(outputs.values()))), allow_pickle=False)
    elif path.suffix == ".npz":
        with path.open("wb") as file:
            np.savez(file, **outputs)  # pyright: ignore[reportArgumentType]
    else:
        wanted = ".npy or .npz" if len(outputs) == 1 else ".npz, as there are several outputs"
        raise InputError(f"{path} must end in {wanted}")


class _Written:
    """A file that NumPy does not know as one: it then writes through Python, whose errors say what
    is wrong (a full disk) and not how many items were asked for."""

    def __init__(self, file: BinaryIO) -> None:
        self.write = file.write


SMALL = 32
"""Elements of an output that is shown whole."""


def summary(name: str, array: Array, dtype: DType) -> dict[str, Any]:
    """One output in a row. Bits of bf16 are told as the numbers that they are."""
    if dtype is DType.BF16:
        array = widen_bf16(array)
    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
    some = finite.size > 0
    return {
        "output": name,
        "shape": list(array.shape),
        "dtype": "bfloat16" if dtype is DType.BF16 else array.dtype.name,
        "min": float(finite.min()) if some else None,
        "mean": float(finite.mean(dtype=np.float64)) if some else None,
        "max": float(finite.max()) if some else None,
        "not finite": int(array.size - finite.size),
    }


def plain(array: Array, dtype: DType) -> Any:
    """An output as nested lists of numbers, which JSON can hold: what is not finite is a text."""
    made = (widen_bf16(array) if dtype is DType.BF16 else array).tolist()

    def held(item: Any) -> Any:
        if isinstance(item, list):
            return [held(part) for part in cast("list[Any]", item)]
        return str(item) if isinstance(item, float) and not math.isfinite(item) else item

    return held(made)


def values(name: str, array: Array, dtype: DType) -> str:
    """A small output as text, all of its elements."""
    plain = widen_bf16(array) if dtype is DType.BF16 else array
    text = np.array2string(plain, separator=", ", precision=6, suppress_small=True)
    return f"{name} = {text}" if "\n" not in text else f"{name} =\n{text}"
