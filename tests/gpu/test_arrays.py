"""Arrays of CuPy and PyTorch in, CuPy's out; streams, graphs of callers, threads; errors."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

import convdsl
from convdsl.diagnostics import DeviceError


@pytest.fixture(scope="module")
def net() -> convdsl.Executable:
    return convdsl.compile("lenet5", "random:1", device="cuda")


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 1, 32, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(x: np.ndarray) -> np.ndarray:
    return convdsl.compile("lenet5", "random:1")(x)


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_numpy(net: convdsl.Executable, x: np.ndarray, expected: np.ndarray) -> None:
    close(net(x), expected)


def test_cupy_on_a_stream(net: convdsl.Executable, x: np.ndarray, expected: np.ndarray) -> None:
    import cupy

    with cupy.cuda.Stream(non_blocking=True) as stream:
        given = cupy.asarray(x)
        results = [net(given) for _ in range(20)]
        stream.synchronize()
    for y in results:
        assert isinstance(y, cupy.ndarray)
        close(y.get(), expected)


def test_views(net: convdsl.Executable, x: np.ndarray, expected: np.ndarray) -> None:
    import cupy

    whole = cupy.zeros(x.size + 1, np.float32)
    whole[1:] = cupy.asarray(x).ravel()
    close(net(whole[1:].reshape(x.shape)).get(), expected)  # begins at four bytes
    turned = cupy.asarray(np.ascontiguousarray(x[:, :, :, ::-1]))[:, :, :, ::-1]
    close(net(turned).get(), expected)


def test_pytorch(net: convdsl.Executable, x: np.ndarray, expected: np.ndarray) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not part of what the suite needs")
    close(net(torch.from_numpy(x).cuda()).get(), expected)
    close(net(torch.from_numpy(x)), expected)


def test_a_callers_graph(net: convdsl.Executable, x: np.ndarray, expected: np.ndarray) -> None:
    import cupy

    given = cupy.zeros(x.shape, np.float32)
    net(given)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        y = net(given)
        graph = stream.end_capture()
        given.set(x)
        graph.launch(stream)
        stream.synchronize()
    close(y.get(), expected)


def test_many_threads(net: convdsl.Executable, x: np.ndarray, expected: np.ndarray) -> None:
    import cupy

    wrong: list[str] = []

    def work() -> None:
        with cupy.cuda.Stream(non_blocking=True):
            for _ in range(30):
                try:
                    close(net(x), expected)
                except AssertionError as error:
                    wrong.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_artifacts(net: convdsl.Executable, x: np.ndarray, tmp_path: Path) -> None:
    net.save(tmp_path / "net.cdsl", N=2)
    np.testing.assert_array_equal(convdsl.load_executable(tmp_path / "net.cdsl")(x), net(x))


def test_an_older_architectures_code(x: np.ndarray, expected: np.ndarray, tmp_path: Path) -> None:
    """By the PTX in it, which the driver translates."""
    convdsl.compile("lenet5", "random:1", target="cuda", arch="sm_75").save(
        tmp_path / "n.cdsl", N=2
    )
    close(convdsl.load_executable(tmp_path / "n.cdsl")(x), expected)


def test_too_little_memory() -> None:
    import cupy

    net = convdsl.compile("lenet5", "random:1", device="cuda")
    x = np.zeros((4096, 1, 32, 32), np.float32)
    pool = cupy.get_default_memory_pool()
    kept = pool.get_limit()
    pool.set_limit(size=pool.used_bytes() + (1 << 20))
    try:
        with pytest.raises(DeviceError, match="scratch memory"):
            net(x)
    finally:
        pool.set_limit(size=kept)
    assert net(x).shape == (4096, 10)
