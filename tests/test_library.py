"""Networks as shared libraries: the same results as in Python, from C, by many threads at once."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import Builder

import convdsl
from convdsl import InputError
from convdsl.ir.model import Model
from convdsl.runtime.cpu.library import identifier
from convdsl.tensor import symbol

EXAMPLE = Path(__file__).parents[1] / "examples" / "library" / "numbers.c"
OTHER = {"x86_64": "aarch64", "aarch64": "x86_64"}[platform.machine()]

TWO = """model register {
    input a: f32[N, 3, 9, 9]
    input int: f32[N, 3, 9, 9]
    input which: i64[N]
    h = a + int -> conv(8, 3, stride=2) -> silu -> conv(24, 3, groups=8)
    h -> output y
    h -> avgpool(global) -> flatten -> softmax -> output network
    which + 1 -> output next
}
"""


class Network:
    """A library through ctypes."""

    def __init__(self, path: Path, name: str, threads: int = 2) -> None:
        self.functions = ctypes.CDLL(str(path))
        self.name = name
        self.handle = ctypes.c_void_p()
        assert self.call("create", ctypes.byref(self.handle), threads) == 0

    def call(self, function: str, *arguments: Any) -> int:
        return getattr(self.functions, f"{self.name}_{function}")(*arguments)

    def run(self, inputs: list[np.ndarray], outputs: list[np.ndarray]) -> int:
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (*inputs, *outputs)]
        return self.call("run", self.handle, *pointers)

    def destroy(self) -> None:
        self.call("destroy", self.handle)


def drawn(executable: convdsl.Executable, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    types = {name: type.bind({"N": 1}) for name, type in executable.inputs.items()}
    return {
        name: rng.normal(size=type.sizes).astype(type.dtype.numpy) for name, type in types.items()
    }


def expected_of(executable: convdsl.Executable, arrays: Mapping[str, np.ndarray]) -> list[Any]:
    return list(executable.by_name(**arrays).values())


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("threads", [1, 3])
def test_the_same_results(tmp_path: Path, threads: int) -> None:
    """Several inputs and outputs of several types, with names that C keeps for itself."""
    model = convdsl.parse(TWO)
    executable = convdsl.compile(model, "random:1", batch=1)
    header = convdsl.build_library(model, "random:1", tmp_path / "libtwo.so")
    assert header == tmp_path / "two.h"
    text = header.read_text()
    assert (
        "int net_register_run(net_register *network, const float *a, const float *net_int" in text
    )
    network = Network(tmp_path / "libtwo.so", "net_register", threads)
    for seed in range(3):
        arrays = drawn(executable, seed)
        wanted = expected_of(executable, arrays)
        found = [np.full_like(array, 77) for array in wanted]
        assert network.run(list(arrays.values()), found) == 0
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(a, b)
    network.destroy()


def test_many_threads_call_at_once(tmp_path: Path) -> None:
    executable = convdsl.compile("lenet5", "random:2", batch=1)
    convdsl.build_library("lenet5", "random:2", tmp_path / "liblenet5.so")
    network = Network(tmp_path / "liblenet5.so", "lenet5", 3)
    wrong: list[int] = []

    def work(seed: int) -> None:
        arrays = drawn(executable, seed)
        (wanted,) = expected_of(executable, arrays)
        for _ in range(50):
            found = np.zeros_like(wanted)
            if network.run(list(arrays.values()), [found]) or not np.array_equal(found, wanted):
                wrong.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    network.destroy()
    assert not wrong


@pytest.mark.dear(share=4)
def test_two_networks_in_one_process(tmp_path: Path) -> None:
    """Nothing of one is seen by the other, though both are made of the same pieces."""
    made: list[tuple[Network, np.ndarray, np.ndarray]] = []
    for seed in (3, 4):
        executable = convdsl.compile("lenet5", f"random:{seed}", batch=1)
        path = tmp_path / f"lib{seed}.so"
        convdsl.build_library("lenet5", f"random:{seed}", path)
        (x,) = drawn(executable).values()
        made.append((Network(path, "lenet5"), x, executable(x)))
    for network, x, wanted in made:
        found = np.zeros_like(wanted)
        assert network.run([x], [found]) == 0
        np.testing.assert_array_equal(found, wanted)
    assert not np.array_equal(made[0][2], made[1][2])


def test_states_change_from_call_to_call(tmp_path: Path) -> None:
    """Each network made of a library has its own, which begin as the weights say."""
    b = Builder()
    x, count = b.input("x", symbol("N"), 3), b.parameter("count", 3)
    step, total = b.parameter("step", 1), b.parameter("total", 3)
    b.update(count, b("add", count, step, name="after"))
    b.update(total, b("add", total, x, name="sum"))
    graph = b.output(y=b("add", x, count, name="both"), before=total)
    arrays = {"count": np.zeros(3, "f4"), "step": np.ones(1, "f4"), "total": np.ones(3, "f4")}
    convdsl.build_library(Model("session", graph), arrays, tmp_path / "libsession.so")
    networks = [Network(tmp_path / "libsession.so", "session", threads) for threads in (1, 2)]
    x = np.array([[5, 6, 7]], np.float32)
    for network in networks:
        for number in range(4):
            found = [np.zeros((1, 3), np.float32), np.zeros(3, np.float32)]
            assert network.run([x], found) == 0
            np.testing.assert_array_equal(found[0], x + number)
            np.testing.assert_array_equal(found[1], 1 + number * x[0])
        network.destroy()


def test_errors_are_codes(tmp_path: Path) -> None:
    convdsl.build_library("lenet5", "random:2", tmp_path / "liblenet5.so")
    network = Network(tmp_path / "liblenet5.so", "lenet5")
    message = network.functions.lenet5_message
    message.restype = ctypes.c_char_p
    assert message(0) == b"no error"
    x = np.zeros((1, 1, 32, 32), np.float32)
    code = network.call("run", network.handle, ctypes.c_void_p(x.ctypes.data), None)
    assert b"an argument is null" in message(code)
    assert network.call("run", None, None, None) == code
    assert network.call("create", None, 1) == code
    for threads in (0, -1, 257):
        assert network.call("create", ctypes.byref(ctypes.c_void_p()), threads) == code
    assert message(99) == b"no error of this library"
    network.call("destroy", None)  # as free(NULL)


@pytest.mark.dear
def test_the_example(tmp_path: Path) -> None:
    """examples/library, with the command line that it names."""
    run_example(tmp_path, [], ["cc"], [])


@pytest.mark.skipif(
    not (shutil.which(f"qemu-{OTHER}") and shutil.which(f"{OTHER}-linux-gnu-gcc")),
    reason=f"qemu-user and a cross compiler for {OTHER} are not installed",
)
def test_another_architecture(tmp_path: Path) -> None:
    """Made for a processor that is not here, and run by an emulator of it."""
    cpu = {"aarch64": "aarch64-linux-gnu:cortex-a76", "x86_64": "x86_64-linux-gnu:x86-64-v2"}[OTHER]
    emulator = [f"qemu-{OTHER}", "-L", f"/usr/{OTHER}-linux-gnu"]
    run_example(tmp_path, ["--cpu", cpu], [f"{OTHER}-linux-gnu-gcc"], emulator)


def run_example(folder: Path, options: list[str], cc: list[str], before: list[str]) -> None:
    x = np.random.default_rng(1).normal(size=(1, 1, 32, 32)).astype(np.float32)
    wanted = convdsl.compile("lenet5", "random:5", batch=1)(x)
    command = [sys.executable, "-m", "convdsl", "compile", "lenet5", "--weights", "random:5"]
    subprocess.run(
        [*command, "--emit", "library", *options], cwd=folder, check=True, capture_output=True
    )
    link = ["-L.", "-llenet5", "-Wl,-rpath,$ORIGIN", "-Wall", "-Werror", "-I."]
    subprocess.run([*cc, str(EXAMPLE), "-o", "numbers", *link], cwd=folder, check=True)
    said = subprocess.run([*before, "./numbers"], cwd=folder, input=x.tobytes(),
                          capture_output=True, check=True)  # fmt: skip
    found = np.array(said.stdout.split(), np.float64)
    np.testing.assert_allclose(found, wanted[0], rtol=0, atol=2e-6 * np.abs(wanted).max())


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(InputError, match="is put together by a C compiler, and there is no cc"):
        convdsl.build_library("lenet5", "random:2", tmp_path / "liblenet5.so")
    monkeypatch.setenv("CC", "/bin/false")
    with pytest.raises(InputError, match="failed"):
        convdsl.build_library("lenet5", "random:2", tmp_path / "liblenet5.so")
    assert not list(tmp_path.glob("*.so"))


@pytest.mark.dear(share=4)
def test_a_library_is_a_file_of_its_own(tmp_path: Path) -> None:
    """Not its header, not a folder, not in a folder that is not there: and nothing is left."""
    for path in (tmp_path / "net.h", tmp_path, Path()):
        with pytest.raises(InputError, match="name the library, say libnet.so"):
            convdsl.build_library("lenet5", "random:2", path)
    where = tmp_path / "no" / "libnet.so"
    with pytest.raises(
        InputError, match=f"cannot write {where}: the folder {where.parent} is not there"
    ):
        convdsl.build_library("lenet5", "random:2", where)
    assert not list(tmp_path.iterdir())


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize(
    ("library", "header"),
    [
        ("libm.so", "m.h"),
        ("m.so", "m.h"),
        ("m", "m.h"),
        ("lib", "lib.h"),
        ("lib.so", "lib.h"),
        ("lib2.so", "lib2.h"),
        ("lib_m.so", "lib_m.h"),
        ("library.so", "library.h"),
        ("libm.so.1.2", "m.h"),
        ("libé.so", "é.h"),
        ("m.v2.so", "m.v2.h"),
    ],
)
def test_the_header_has_a_name(tmp_path: Path, library: str, header: str) -> None:
    model = convdsl.parse("model m {\n input x: f32[N, 3]\n x -> relu -> output y\n}\n")
    made = convdsl.build_library(model, None, tmp_path / library, batch=1)
    assert made == tmp_path / header
    assert {path.name for path in tmp_path.iterdir()} == {library, header}


def test_sizes_must_be_given(tmp_path: Path) -> None:
    model = convdsl.parse("model m {\n input x: f32[N, 3, H, W]\n x -> relu -> output y\n}\n")
    with pytest.raises(InputError, match="fixed sizes; not given: H, W"):
        convdsl.build_library(model, None, tmp_path / "libm.so")
    convdsl.build_library(model, None, tmp_path / "libm.so", inputs=(3, 4, 5), batch=2)
    assert "M_X_ELEMENTS 120" in (tmp_path / "m.h").read_text()


@pytest.mark.dear(share=4)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_given_back(tmp_path: Path) -> None:
    """A hundred networks made, run and destroyed: no thread is left, and memory stays."""
    convdsl.build_library("lenet5", "random:2", tmp_path / "liblenet5.so")
    x, y = np.zeros((1, 1, 32, 32), np.float32), np.zeros((1, 10), np.float32)

    def once() -> None:
        network = Network(tmp_path / "liblenet5.so", "lenet5", 3)
        assert network.run([x], [y]) == 0
        network.destroy()

    for _ in range(20):
        once()
    threads = len(list(Path("/proc/self/task").iterdir()))
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    for _ in range(100):
        once()
    assert len(list(Path("/proc/self/task").iterdir())) == threads
    assert int(Path("/proc/self/statm").read_text().split()[1]) - pages < 500


@pytest.mark.parametrize(
    ("name", "in_c"),
    [("net", "net"), ("int", "net_int"), ("3d", "net_3d"), ("a-b.c", "a_b_c"), ("übung", "_bung")],
)
def test_names_in_c(name: str, in_c: str) -> None:
    assert identifier(name) == in_c
