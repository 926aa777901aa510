"""`--watch` as it is used: a process on a real terminal or a pipe, files that editors write."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

NET = 'use "parts.cnn": body\nmodel net {\n    input x: f32[N, 3, 8, 8]\n    x -> body(8)\n}\n'
PARTS = "block body(width) { conv(width, 3x3) as c -> relu }\n"
WRONG = PARTS.replace("relu", "rellu")
PATIENCE = 20.0  # seconds; the machine may be busy


class Watching:
    """A command that watches, and what it has written."""

    def __init__(self, folder: Path, arguments: tuple[str, ...], *, terminal: bool) -> None:
        self.said = ""
        self._at = 0
        if terminal:
            self._reads, writes = pty.openpty()
            fcntl.ioctl(writes, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        else:
            self._reads, writes = os.pipe()
        settings = {"NO_COLOR": "1", "TERM": "xterm", "XDG_CACHE_HOME": str(folder / "cache")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "convdsl", *arguments],
            stdin=subprocess.DEVNULL, stdout=writes, stderr=writes, cwd=folder,
            env=os.environ | settings,
        )  # fmt: skip
        os.close(writes)

    def until(self, words: str) -> str:
        """What was written since the last call, up to these words and the end of that run."""
        end = time.monotonic() + PATIENCE
        wanted = re.compile(re.escape(words) + r".*?watched since [^\n]*\n", re.DOTALL)
        while (found := wanted.search(self.said, self._at)) is None:
            assert time.monotonic() < end, f"no {words!r} in {self.said[self._at :]!r}"
            assert self._more(0.1) or self.process.poll() is None, self.said
        start, self._at = self._at, found.end()
        return self.said[start : self._at]

    def _more(self, seconds: float) -> bool:
        if not select.select([self._reads], [], [], seconds)[0]:
            return True
        with contextlib.suppress(OSError):  # of a terminal that nobody has open any more
            text = os.read(self._reads, 65_536).decode()
            self.said += text.replace("\r\n", "\n")
            return bool(text)
        return False

    def quiet(self, seconds: float) -> str:
        """What is written within some time, though nothing should be."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._more(0.05)
        return self.said[self._at :]

    def end(self) -> tuple[int, str]:
        """Ctrl-C: the exit code, and what was written since."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(PATIENCE)
        while self._more(0.1) and select.select([self._reads], [], [], 0)[0]:
            pass
        return code, self.said[self._at :]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._reads)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "net.cnn").write_text(NET)
    (tmp_path / "parts.cnn").write_text(PARTS)
    return tmp_path


@contextlib.contextmanager
def watching(folder: Path, *arguments: str, terminal: bool = True) -> Iterator[Watching]:
    started = Watching(folder, arguments, terminal=terminal)
    try:
        yield started
    finally:
        started.close()


@pytest.mark.dear(share=4)
def test_changes_of_the_file_and_of_what_it_imports(project: Path) -> None:
    with watching(project, "check", "net.cnn", "--watch") as seen:
        first = seen.until("note: 1 file checked, nothing found")
        assert first.startswith("\x1b[H")
        assert "2 files watched since" in first
        (project / "parts.cnn").write_text(WRONG)
        said = seen.until("did you mean `relu`?")
        assert said.count("\x1b[H") == said.count("\x1b[J") == 1  # drawn in one go, not cleared
        assert "\x1b[2J" not in said
        assert all(line.endswith("\x1b[K") for line in said.split("\n")[:-2])
        (project / "parts.cnn").write_text(PARTS)
        seen.until("nothing found")
        (project / "net.cnn").write_text(NET.replace("body(8)", "bodi(8)"))
        seen.until("did you mean `body`?")
        code, said = seen.end()
        assert (code, said.removeprefix("\x1b[?25h")) == (130, "interrupted\n")


@pytest.mark.dear(share=4)
def test_what_editors_do_to_files(project: Path) -> None:
    parts = project / "parts.cnn"
    with watching(project, "check", "net.cnn", "--watch") as seen:
        seen.until("nothing found")
        (project / "parts.cnn.tmp").write_text(WRONG)  # vim, with backupcopy: renamed over
        (project / "parts.cnn.tmp").rename(parts)
        seen.until("did you mean `relu`?")
        parts.unlink()  # removed, and there again at once: no run in between
        time.sleep(0.3)
        parts.write_text(PARTS)
        assert "there is no" not in seen.until("nothing found")
        os.utime(parts, ns=(1, 1))  # touched: as good as changed
        seen.until("nothing found")
        parts.unlink()
        seen.until('there is no file "parts.cnn"')
        parts.write_text(PARTS)
        seen.until("nothing found")
        (project / "net.cnn").unlink()
        seen.until("there is no file net.cnn")
        (project / "net.cnn").write_text(NET)
        seen.until("nothing found")
        assert seen.quiet(1.0) == ""  # nothing has changed, nothing is drawn


@pytest.mark.dear
def test_a_report_on_a_pipe_goes_on_below(project: Path) -> None:
    with watching(project, "report", "net.cnn", "--watch", terminal=False) as seen:
        first = seen.until("params")
        assert "224" in first
        (project / "parts.cnn").write_text(PARTS.replace("3x3", "5x5"))
        assert "608" in seen.until("params")
        (project / "parts.cnn").write_text(WRONG)
        seen.until("did you mean `relu`?")
        assert "\x1b" not in seen.said
        assert seen.end() == (130, "interrupted\n")


@pytest.mark.dear
def test_the_project_file_counts_too(project: Path) -> None:
    (project / "convdsl.toml").write_text('models = ["net.cnn"]\n')
    with watching(project, "check", "--watch", terminal=False) as seen:
        seen.until("nothing found")
        (project / "convdsl.toml").write_text('models = ["net.cnn"]\n[budget.net]\nparams = 1\n')
        seen.until("`net` has 224 parameters; the budget is 1")


@pytest.mark.slow
def test_the_page_is_written_anew(project: Path) -> None:
    with watching(project, "report", "net.cnn", "--html", "net.html", "--watch") as seen:
        seen.until("net.html:")
        (project / "net.cnn").write_text(NET.replace("body(8)", "body(16) as wider"))
        seen.until("net.html:")
        assert "wider" in (project / "net.html").read_text()
