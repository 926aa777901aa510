"""Commands that look: report, zoo, ops, passes, doctor, compile --emit."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from convdsl import driver, ops, passes, zoo
from convdsl.cli import doctor, listing, main
from convdsl.cli.compile import LEVELS
from convdsl.runtime.cache import ObjectCache


def test_report_reproduces_reference_figures(convdsl) -> None:
    said = convdsl("report", "resnet50", "--batch", 1, "--count", "torchvision", "--format", "json")
    report = json.loads(said.out)
    assert (said.code, said.err) == (0, "")
    assert report["total"]["params"] == 25_557_032
    assert report["total"]["macs"] == 4_089_184_256
    assert report["total"]["flops"] == 2 * 4_089_184_256
    assert report["count"] == "torchvision"


def test_report_keeps_symbols(convdsl, folder: Path) -> None:
    free = json.loads(convdsl("report", folder / "sized.cnn", "--format", "json").out)
    assert free["total"]["macs"] == "18*N*H*W"
    for options in (["--batch", 2, "--input", "1x5x7"], ["--input", "image=2x1x5x7"]):
        bound = json.loads(
            convdsl("report", folder / "sized.cnn", "--format", "json", *options).out
        )
        assert bound["total"]["macs"] == 18 * 2 * 5 * 7


def test_report_formats(convdsl, small: Path) -> None:
    table = convdsl("report", small).out
    assert "conv1" in table
    assert all(line == line.rstrip() for line in table.splitlines())
    markdown = convdsl("report", small, "--format", "md").out
    assert "| `conv1` |" in markdown
    rows = list(csv.DictReader(convdsl("report", small, "--format", "csv").out.splitlines()))
    assert rows[0]["name"] == "conv1"
    assert len(convdsl("report", small, "--depth", 1, "--verbose").out) > len(table)


def test_report_of_a_machine(convdsl, small: Path) -> None:
    said = convdsl("report", small, "--machine", "100/10")
    assert said.out.startswith("machine 100/10: 100.0 GFLOP/s, 10.0 GB/s")
    assert "conv + relu" in said.out
    roof = json.loads(convdsl("report", small, "--machine", "a100", "--format", "json").out)
    assert roof["machine"]["name"] == "a100"
    assert roof["kernels"][0]["ops"] == ["conv", "relu"]
    wrong = convdsl("report", small, "--machine", "a1000")
    assert wrong.code == 2
    assert "did you mean a100" in wrong.err


def test_report_parameters(convdsl, small: Path) -> None:
    small.write_text(small.read_text().replace('    labels "names.txt"\n', ""))
    report = json.loads(convdsl("report", small, "--format", "json", "--set", "classes=7").out)
    assert report["layers"][-1]["output_shape"][-1] == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input", "nonesuch=3x8x8"], "no input `nonesuch`"),
        (["--input", "3x9x9"], "expected f32[N, 3, 8, 8]"),
        (["--input", "3x8x8", "--input", "3x8x8"], "--input needs names"),
        (["--set", "clases=4"], "did you mean `classes`?"),
        (["--batch", "3", "--input", "2x3x8x8"], "the batch is 3, but the input shapes say 2"),
    ],
)
def test_report_options_that_do_not_fit(
    convdsl, small: Path, options: list[str], message: str
) -> None:
    said = convdsl("report", small, *options)
    assert said.code == 2
    assert message in said.err


def test_a_fixed_batch_cannot_be_chosen(convdsl, tmp_path: Path) -> None:
    path = tmp_path / "fixed.cnn"
    path.write_text(
        "convdsl 1\nmodel fixed {\n    input x: f32[2, 3]\n    x -> relu -> output y\n}\n"
    )
    for command in ("report", "compile", "passes"):
        said = convdsl(command, path, "--batch", 3)
        assert said.code == 2
        assert "fixed has no N in its inputs" in said.err
    assert convdsl("run", path, "--data", "random:0").code == 0


ASKED = ("lenet5", "mobilenet_v1", "resnet18", "resnet50", "unet", "vgg16")
"""Of the zoo: all of it takes longer to load than every test here."""


@pytest.fixture(scope="module")
def listed() -> dict[str, dict[str, Any]]:
    """What `zoo` says of some models, by name."""
    entries = zoo.names()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.setattr(zoo, "names", lambda: {name: entries[name] for name in ASKED})
        assert main(["zoo", "--format", "json"]) == 0
    return {row["name"]: row for row in json.loads(out.getvalue())}


@pytest.mark.dear
def test_the_whole_zoo_is_listed(convdsl) -> None:
    rows = json.loads(convdsl("zoo", "--format", "json").out)
    assert [row["name"] for row in rows] == list(zoo.names())
    assert all(row["params"] is not None and row["macs"] is not None for row in rows)


def test_zoo(convdsl, listed: dict[str, dict[str, Any]]) -> None:
    assert list(listed) == list(ASKED)
    assert convdsl("zoo", "resnet50").out == zoo.names()["resnet50"].path.read_text()
    said = convdsl("zoo", "resnet49")
    assert said.code == 2
    assert "did you mean resnet" in said.err


def test_ops(convdsl) -> None:
    listed = json.loads(convdsl("ops", "--format", "json").out)
    assert [row["name"] for row in listed] == [op.name for op in ops.OPERATORS]
    assert {row["name"]: row["pytorch"] for row in listed}["max_pool"] == "functional.max_poolNd"
    assert {row["name"]: row["onnx"] for row in listed}["silu"] is None
    text = convdsl("ops", "conv2d").out
    assert text.startswith("conv(x, weight, bias?) (also conv1d, conv2d, conv3d)")
    assert "required" in text
    assert "\nONNX: Conv\nPyTorch: nn.ConvNd\n" in text
    assert "ONNX: LeakyRelu(alpha = slope)\n" in convdsl("ops", "leaky_relu").out
    facts = json.loads(convdsl("ops", "conv", "--format", "json").out)
    assert facts["attributes"][0]["attribute"] == "channels"
    assert (facts["onnx"], facts["pytorch"], facts["pytorch_lacks"]) == ("Conv", "nn.ConvNd", [])
    (reason,) = json.loads(convdsl("ops", "resize", "--format", "json").out)["pytorch_lacks"]
    assert f"But {reason}." in convdsl("ops", "resize").out
    assert "| `stride` |" in convdsl("ops", "conv", "--format", "md").out
    said = convdsl("ops", "covn")
    assert said.code == 2
    assert "did you mean conv?" in said.err


def test_passes(convdsl, small: Path) -> None:
    listed = json.loads(convdsl("passes", "--format", "json").out)
    assert [row["name"] for row in listed] == [p.name for p in passes.PASSES]
    assert all(row["summary"] for row in listed)
    compared = json.loads(convdsl("passes", small, "--format", "json").out)
    assert [row["label"] for row in compared] == ["as written", *(p.name for p in passes.PASSES)]
    assert compared[-1]["kernels"] < compared[0]["kernels"]
    less = json.loads(
        convdsl("passes", small, "--format", "json", "--disable", "fuse-elementwise").out
    )
    assert len(less) == len(compared) - 1


def test_pass_options(convdsl, small: Path) -> None:
    said = convdsl(
        *("passes", small, "--format", "json", "--verify", "--time-passes"),
        *("--print-after", "fold-batchnorm", "--pass-option", "fold-constants.limit=10"),
    )
    assert said.code == 0
    assert "# after fold-batchnorm" in said.err
    assert "changes" in said.err
    for options, message in [
        (["--disable", "fold-batchnrm"], "did you mean fold-batchnorm?"),
        (["--print-after", "fold-batchnrm"], "did you mean fold-batchnorm?"),
        (["--pass-option", "fold-constants.limt=3"], "did you mean limit?"),
    ]:
        said = convdsl("passes", small, *options)
        assert said.code == 2
        assert message in said.err


def test_doctor(convdsl) -> None:
    said = convdsl("doctor", "--format", "json")
    found = {row["what"]: row for row in json.loads(said.out)}
    assert {"convdsl", "processor", "vectors", "threads", "code cache"} <= set(found)
    assert {f"extra {name}" for name in doctor.EXTRAS} <= set(found)
    assert said.code == (1 if any(row["advice"] for row in found.values()) else 0)


def test_doctor_finds_trouble(convdsl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    said = convdsl("doctor", "--format", "json")
    assert said.code == 1
    (row,) = [row for row in json.loads(said.out) if row["what"] == "code cache"]
    assert row["value"] == "off"
    assert row["advice"]


def test_doctor_says_which_package_is_missing(convdsl, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "safetensors":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(doctor, "version", version)
    said = convdsl("doctor", "--format", "json")
    assert said.code == 1
    (found,) = [row for row in json.loads(said.out) if row["what"] == "packages"]
    assert found["advice"] == "pip install safetensors"


@pytest.mark.dear(share=4)
@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("lark", ["check", "net.cnn"]),
        ("safetensors", ["run", "net.cnn", "--weights", "w.safetensors", "--data", "random:0"]),
    ],
)
def test_a_package_that_is_missing_is_no_bug(
    package: str, command: list[str], tmp_path: Path
) -> None:
    """Said in a line, by whatever command needs it."""
    model = "model m {\n    input x: f32[N, 3]\n    x -> linear(2) as fc -> output y\n}\n"
    (tmp_path / "net.cnn").write_text(model)
    arrays = {"fc.weight": np.zeros((2, 3), np.float32), "fc.bias": np.zeros(2, np.float32)}
    save_file(arrays, tmp_path / "w.safetensors")
    without = f"import sys; sys.modules[{package!r}] = None; from convdsl.cli import main; "
    asked = [sys.executable, "-c", f"{without}sys.exit(main({command!r}))"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert said.returncode == 2
    assert f"the Python package {package} is missing" in said.stderr
    assert "bug" not in said.stderr
    assert "Traceback" not in said.stderr


def test_doctor_clears_the_cache(convdsl) -> None:
    ObjectCache().put("key", b"value")
    assert "entries 1," in convdsl("doctor").out
    assert "entries 0," in convdsl("doctor", "--clear-cache").out
    assert ObjectCache().get("key") is None


# compile --emit


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize(
    ("level", "text"),
    [
        ("graph", "conv1"),
        ("gradient", "dconv1.weight = conv.grad(weight)("),
        ("expr", "conv1 = conv"),
        ("loops", "program small"),
        ("llvm", "define"),
        ("asm", ".text"),
    ],
)
def test_emit_text(convdsl, small: Path, tmp_path: Path, level: str, text: str) -> None:
    said = convdsl("compile", small, "--emit", level)
    assert (said.code, said.err) == (0, "")
    assert text in said.out
    assert convdsl("compile", small, "--emit", level, "-o", tmp_path / "out").out == ""
    assert (tmp_path / "out").read_text().strip() == said.out.strip()


def test_emit_object(convdsl, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (*driver.LEVELS, "library") == LEVELS  # help does not load the driver
    assert convdsl("compile", small, "--emit", "object", "-o", tmp_path / "net.o").code == 0
    assert (tmp_path / "net.o").read_bytes().startswith(b"\x7fELF")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    said = convdsl("compile", small, "--emit", "object")
    assert said.code == 2
    assert "not for terminals" in said.err


def test_emit_gradient_of_what_by_what(convdsl, small: Path) -> None:
    said = convdsl("compile", small, "--emit", "gradient", "--of", "logits", "--wrt", "*.bias")
    assert said.code == 0
    assert said.out.startswith("gradient of logits by conv1.bias")
    assert "dconv1.weight" not in said.out
    said = convdsl("compile", small, "--emit", "gradient", "--of", "nothing")
    assert (said.code, "there is no output nothing" in said.err) == (2, True)
    said = convdsl("compile", small, "--emit", "graph", "--wrt", "x")
    assert (said.code, "go with --emit gradient" in said.err) == (2, True)


def test_emit_for_another_processor(convdsl, small: Path) -> None:
    wide = convdsl("compile", small, "--emit", "asm", "--cpu", "x86-64-v3").out
    assert "ymm" in wide
    assert "zmm" not in wide
    said = convdsl("compile", small, "--emit", "asm", "--cpu", "x86-64-v33")
    assert said.code == 2
    assert "x86-64-v33" in said.err


def test_emit_says_what_weights_do(convdsl, small: Path) -> None:
    said = convdsl("compile", small, "--emit", "graph", "--weights", "random:0")
    assert "plays no part in --emit graph" in said.err


# Listings

ROWS = [{"name": "a|b", "count": 1234, "share": 0.5, "also": ["x", "y"], "none": None, "on": True}]


def test_listing_formats(capsys: pytest.CaptureFixture[str]) -> None:
    def shown(format: str) -> str:
        listing.show(ROWS, format)
        return capsys.readouterr().out

    assert json.loads(shown("json")) == ROWS
    assert shown("csv").splitlines()[1] == "a|b,1234,0.5,\"['x', 'y']\",,True"
    assert shown("md").splitlines() == [
        "| name | count | share | also | none | on |",
        "| --- | --: | --: | --- | --- | --- |",
        "| `a|b` | 1,234 | 0.500 | x, y | - | yes |",
    ]
    words = " ".join(shown("table").split())
    words = words.replace("─", "").replace("  ", " ")
    assert words == "name count share also none on a|b 1,234 0.500 x, y - yes"


def test_tables_are_never_cut_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    listing.show([{"name": "x" * 500, "more": "y" * 500}], "table")
    assert "x" * 500 + "   " + "y" * 500 in capsys.readouterr().out


def test_empty_listings(capsys: pytest.CaptureFixture[str]) -> None:
    for format in ("table", "json", "md", "csv"):
        listing.show([], format)
    assert "[]" in capsys.readouterr().out


SCALED = """model net(width = 8, kernel = 3x3, depths = [1, 2]) {
    input image: f32[N, 2, 8, 8]
    image -> scope stem { conv(width, kernel) } -> for depth in depths { repeat depth { relu } }
          -> avgpool(global) -> flatten -> linear(3) -> output y
}
"""


@pytest.mark.dear(share=4)
def test_a_sweep_has_a_column_a_value(convdsl, tmp_path: Path) -> None:
    path = tmp_path / "net.cnn"
    path.write_text(SCALED)
    said = convdsl("report", path, "--set", "width=4, 8,16", "--batch", 1)
    lines = [line.split() for line in said.out.splitlines()]
    assert lines[0] == ["figure", "width=4", "width=8", "width=16"]
    params = {w: w * 2 * 9 + w + 3 * w + 3 for w in (4, 8, 16)}
    assert lines[2] == ["params", *map(str, params.values())]
    alone = json.loads(convdsl("report", path, "--batch", 1, "--format", "json").out)
    found = json.loads(
        convdsl("report", path, "--set", "width=4,8", "--set", "kernel=1x1,3x3", "--batch", 1,
                "--format", "json").out
    )  # fmt: skip
    assert [one["set"] for one in found] == [
        {"width": w, "kernel": k} for w in ("4", "8") for k in ("1x1", "3x3")
    ]
    assert {k: v for k, v in found[3].items() if k != "set"} == alone
    blocks = convdsl("report", path, "--set", "width=4,8", "--batch", 1, "--depth", 1).out
    assert ["macs", "of", "stem", "4,608", "9,216"] in [
        line.split() for line in blocks.splitlines()
    ]
    assert convdsl("report", path, "--set", "depths=[1, 2]").code == 0  # commas in a list
    assert "at most 32" in convdsl("report", path, "--set", f"width={'1,' * 32}1").err
    assert convdsl("report", path, "--set", "width=4,none").code == 2


def test_columns_of_reports(convdsl, tmp_path: Path) -> None:
    path = tmp_path / "net.cnn"
    path.write_text(
        SCALED.replace("conv(width, kernel)", "conv(width, 3x5, stride = 2, pad = 1x2)")
    )
    said = convdsl("report", path, "--columns", "layer,input,kernel/stride,output").out
    rows = [line.split() for line in said.splitlines()]
    assert ["stem.conv", "Nx2x8x8", "3x5/2", "Nx8x4x4"] in rows
    assert ["relu", "Nx8x4x4", "Nx8x4x4"] in rows
    assert "kernel/stride" in convdsl("report", path, "--verbose").out
    assert "no column is called kernl" in convdsl("report", path, "--columns", "kernl").err


@pytest.mark.dear(share=4)
def test_sizes_that_the_text_fixes(convdsl, small: Path) -> None:
    said = convdsl("report", "resnet18", "--input", "3x256x256").err
    assert "--set resolution=256" in said
    said = convdsl("report", small, "--input", "3x16x16").err
    assert "write `input image: f32[N, 3, H, W]`" in said
    assert convdsl("report", "resnet18", "--input", "3x224x224").code == 0


@pytest.mark.dear
def test_the_zoo_shows_parameters_and_macs(convdsl, listed: dict[str, dict[str, Any]]) -> None:
    rows = listed
    for name in ("resnet50", "unet", "mobilenet_v1", "lenet5"):
        total = json.loads(convdsl("report", name, "--batch", 1, "--format", "json").out)["total"]
        assert (rows[name]["params"], rows[name]["macs"]) == (total["params"], total["macs"])
    assert rows["lenet5"]["parameters"] == ["classes = 10"]


def test_the_zoo_shows_papers_and_receptive_fields(listed: dict[str, dict[str, Any]]) -> None:
    """Of the last map, as Araujo et al. 2019 tell them: pooled to one position all is seen."""
    rows = listed
    first = ["name", "title", "paper", "params", "macs", "receptive_field"]
    assert all(list(row)[:6] == first for row in rows.values())
    assert rows["resnet50"]["paper"] == "He et al. 2015, arXiv:1512.03385"
    for name, size, stride, padding in (
        ("vgg16", 212, 32, 90),
        ("mobilenet_v1", 315, 32, 126),
        ("resnet50", 427, 32, 213),
        ("resnet18", 435, 32, 217),
        ("lenet5", 16, 4, 0),
    ):
        field = rows[name]["receptive_field"]["image"]
        assert field["size"] == [size, size]
        assert field["stride"] == [stride, stride]
        assert field["padding"] == [padding, padding]


def test_report_as_a_page(convdsl, small: Path, folder: Path) -> None:
    page = folder / "page.html"
    said = convdsl("report", small, "--html", page, "--machine", "140/12", "--batch", 2)
    assert (said.code, said.out) == (0, "")
    text = page.read_text("utf-8")
    assert said.err == f"note: {page}: {len(text.encode()):,} bytes\n"
    assert "f32[2, 3, 8, 8]" in text
    assert "140 GFLOP/s, 12 GB/s" in text
    assert convdsl("report", small, "--html", folder / "no" / "page.html").code == 2


@pytest.mark.parametrize("format", ["table", "md", "csv"])
def test_totals_alone(convdsl, small: Path, format: str) -> None:
    """`--depth 0` leaves what stands above the table."""
    said = convdsl("report", small, "--depth", "0", "--format", format)
    whole = convdsl("report", small, "--format", format)
    assert said.code == 0
    assert whole.out.startswith(said.out.rstrip("\n"))
    assert "conv1" not in said.out.replace("at conv1", "")
    swept = convdsl("report", small, "--depth", "0", "--set", "classes=3,4")
    assert swept.out == convdsl("report", small, "--set", "classes=3,4").out


def test_sizes_of_small_artifacts(convdsl, small: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.cdsl"
    said = convdsl("compile", small, "--weights", "random:0", "-o", path)
    assert f"{path}: {path.stat().st_size:,} bytes in " in said.err
