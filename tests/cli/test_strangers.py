"""What the command line does with names, images and interrupts from outside."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

import convdsl
from convdsl.cli import app, main
from convdsl.diagnostics import InputError, printable
from convdsl.runtime import artifact

STEERING = "\x1b]0;title\x07\x1b[2J\x1b[31m\x9b1m\r\u202e\x7f\udcff"
ADDRESS_SPACE = 1 << 30


def net(tmp_path: Path, **facts: object) -> Path:
    """An artifact of two classes whose manifest a stranger has changed."""
    text = """model m { input image: f32[N, 3, 8, 8]
      image -> avgpool(global) -> flatten -> linear(2) -> output y
      preprocess image: resize(8x8) -> rescale(1 / 255)
    }"""
    path = tmp_path / "net.cdsl"
    convdsl.compile(convdsl.parse(text), "random:0", cache=False).save(path)
    manifest, sections = artifact.read(path)
    whole = {name: bytes(data) for name, data in sections.items()}
    artifact.write(path, whole, manifest | facts)
    return path


def test_printable_keeps_text_and_nothing_that_steers() -> None:
    kept = "Käse, 猫 \t\n🐈"
    assert printable(kept) == kept
    clean = printable(STEERING)
    assert clean.isprintable()
    assert json.loads(f'"{clean}"') == STEERING


@pytest.mark.parametrize("color", ["never", "always"])
@pytest.mark.parametrize("format", ["table", "json"])
def test_names_do_not_steer_terminals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], color: str, format: str
) -> None:
    from PIL import Image

    picture = tmp_path / f"photo{STEERING[:-1]}.png"
    Image.new("RGB", (9, 9)).save(picture)
    path = net(tmp_path, labels=["cat" + STEERING, "dog" + STEERING], notes=["n" + STEERING])
    command = ["classify", str(path), str(picture), "--format", format, "--color", color, "-v"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "cat" in said.out
    for text in (said.out, said.err):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", text)


@pytest.mark.parametrize("color", ["never", "always"])
def test_errors_do_not_steer_terminals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], color: str
) -> None:
    for command in (["report", "no" + STEERING], ["check", str(tmp_path / f"x{STEERING}.cnn")]):
        assert main([*command, "--color", color])
        said = capsys.readouterr()
        colours = r"\x1b\[[0-9;]*m" if color == "always" else "$^"
        for text in (said.out, said.err):
            assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", re.sub(colours, "", text))
            assert "\x1b[31m" not in text


def bomb(path: Path, width: int, height: int, *, alpha: bool = False) -> Path:
    """A PNG of one colour, in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    depth, kind, row = (8, 6, 4 * width) if alpha else (1, 0, -(-width // 8))
    packer, body = zlib.compressobj(9), b""
    for _ in range(height):
        body += packer.compress(bytes(1 + row))
    body += packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


def classified(path: Path, image: Path) -> tuple[int, int, str]:
    """(exit code, most memory in bytes, what was said) of a process of its own. Linux counts what
    the process that started it had into ru_maxrss; VmHWM is its own."""
    script = (
        "import re, sys; from convdsl.cli import main\n"
        f"code = main(['classify', {str(path)!r}, {str(image)!r}])\n"
        "status = open('/proc/self/status').read()\n"
        "print('peak', int(re.search(r'VmHWM:\\s+(\\d+) kB', status)[1]) * 1024)\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    peak = int(done.stdout.split("peak ")[1])
    return done.returncode, peak, done.stdout + done.stderr


@pytest.mark.dear
@pytest.mark.parametrize(
    ("width", "height", "alpha", "fits"),
    [
        (9400, 9400, False, False),
        (8164, 8165, False, True),
        (8165, 8166, False, False),
        (5773, 5773, True, True),
        (5774, 5774, True, False),
    ],
)
def test_images_that_grow(tmp_path: Path, width: int, height: int, alpha: bool, fits: bool) -> None:
    image = bomb(tmp_path / "b.png", width, height, alpha=alpha)
    assert image.stat().st_size < 300_000
    code, peak, said = classified(net(tmp_path), image)
    assert peak < ADDRESS_SPACE, f"{peak:,} bytes"
    assert code == (0 if fits else 2), said
    assert fits or "MB to open, more than 800: make it smaller" in said


def test_arithmetic_on_huge_images_is_refused() -> None:
    from PIL import Image

    from convdsl.ir.preprocess import Preprocessing, PreprocessingStep
    from convdsl.preprocessing import MOST_PIXELS, prepare
    from convdsl.tensor import DType, TensorType

    declared = Preprocessing("image", (PreprocessingStep("rescale", {"factor": 1.0}),))
    wanted = TensorType(DType.F32, (1, 1, 1, MOST_PIXELS))
    assert prepare(Image.new("L", (MOST_PIXELS, 1)), declared, wanted).size == MOST_PIXELS
    with pytest.raises(InputError, match="resize must come before"):
        prepare(Image.new("L", (MOST_PIXELS + 1, 1)), declared, wanted)


@pytest.mark.parametrize("moment", ["parser_of", "_dispatch"])
def test_interrupts_are_answered_by_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], moment: str
) -> None:
    def interrupted(given: list[str]) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return 0 * np.zeros(len(given)).size

    monkeypatch.setattr(app, moment, interrupted)
    assert main(["ops"]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")
