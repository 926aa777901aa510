"""What all tests share: golden files and hypothesis profiles."""

from __future__ import annotations

import difflib
import gc
import os
import signal
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from sample import draw_cases, sampled

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # a machine that has a card, and little else, runs tests/gpu
    pass
else:
    # Deterministic by default, so that a red run is red again; `make fuzz` draws anew, and more.
    settings.register_profile("default", deadline=None, derandomize=True, database=None)
    settings.register_profile(
        "fuzz",
        deadline=None,
        max_examples=2000,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    settings.load_profile("default")

GOLDEN = Path(__file__).parent / "golden"


def pytest_configure() -> None:
    """A shell that starts a run in the background has it ignore Ctrl-C, and so all it starts; the
    workers of pytest-xdist say that lines have 80 columns, to which tables would be fitted."""
    os.environ.pop("COLUMNS", None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write tests/golden/ anew instead of comparing with it",
    )
    parser.addoption(
        "--evidence",
        choices=["sample", "all"],
        default="sample",
        help="of the tests marked `ladder`, those that the commit draws, or all",
    )
    parser.addoption(
        "--drawn",
        choices=["sample", "all"],
        default="sample",
        help="of the tests marked `drawn` or `dear`, those that the commit draws, or all",
    )


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What the modules of all tests hold stays: it is not looked at for garbage again and again,
    neither while it grows (a quarter of the time) nor after each test."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Generator[None, object, object]:
    """Most cases of what is `drawn` are left out: no tests are made of them."""
    result = yield
    if metafunc.config.getoption("--drawn") == "sample" and not _names_a_case(metafunc.config):
        draw_cases(metafunc)
    return result


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    options = {"ladder": "--evidence", "dear": "--drawn"}
    if _names_a_case(config):
        options["drawn"] = "--drawn"
    marks = [mark for mark, option in options.items() if config.getoption(option) == "sample"]
    left = {item for mark in marks for item in sampled(items, mark)}
    if left:
        config.hook.pytest_deselected(items=list(left))
        items[:] = [item for item in items if item not in left]


def _names_a_case(config: pytest.Config) -> bool:
    """Whether the command line does (`test_a.py::test_b[case]`): it runs, drawn or not."""
    return any("[" in argument for argument in config.args)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured (`record_property("measured", text)`), from all workers."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, text in report.user_properties:
            if name == "measured":
                terminalreporter.write_line(f"{report.nodeid}: {text}")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden("loops/relu.txt", text)` compares text with a file under tests/golden/."""
    update = bool(request.config.getoption("--update-golden"))

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        if not path.exists():
            pytest.fail(f"no golden file {name}: run `make golden` and read it", pytrace=False)
        expected = path.read_text(encoding="utf-8")
        if text != expected:
            diff = difflib.unified_diff(
                expected.splitlines(), text.splitlines(), f"golden/{name}", "now", lineterm=""
            )
            pytest.fail("\n".join(diff), pytrace=False)

    return compare
