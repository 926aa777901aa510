"""examples/notebook.ipynb is run anew by a real kernel, and shows what it shows in the file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.ipynb"


def executed(cells: list[str], folder: Path, **options: Any) -> list[Any]:
    """The cells of code, run in a folder."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    run(notebook, folder, **options)
    return notebook.cells


def run(notebook: Any, folder: Path, **options: Any) -> None:
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources=resources, **options
    ).execute()


def outputs(cell: Any) -> list[tuple[str, ...]]:
    """What a cell puts out, without figures that differ from run to run and machine to machine:
    the kinds, and the text."""
    found: list[tuple[str, ...]] = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        text = data.get("text/plain", output.get("text", "\n".join(output.get("traceback", ()))))
        found.append((output["output_type"], *sorted(data), re.sub(r"\d+\.\d+", "#", text)))
    return found


def test_the_example(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    kept = nbformat.read(NOTEBOOK, as_version=4)
    again = nbformat.read(NOTEBOOK, as_version=4)
    run(again, tmp_path)
    for cell in again.cells:
        cell.metadata.pop("execution", None)  # when it ran
    if request.config.getoption("--update-golden"):
        again.metadata = {"kernelspec": again.metadata["kernelspec"]}
        nbformat.write(again, NOTEBOOK)
        return
    for old, new in zip(kept.cells, again.cells, strict=True):
        assert outputs(new) == outputs(old), f"{old.source}\nrun with --update-golden"


def test_the_example_is_small() -> None:
    assert NOTEBOOK.stat().st_size < 300_000


def test_objects_show_themselves_without_the_extension(tmp_path: Path) -> None:
    cells = executed(
        ["import convdsl\nnet = convdsl.load('lenet5')\nnet", "net.graph", "convdsl.report(net)"],
        tmp_path,
    )
    for cell in cells:
        (output,) = cell.outputs
        assert output["data"]["text/html"].startswith('<div class="convdsl">')
        assert len(output["data"]["text/plain"]) < 3_000


def test_what_is_wrong_has_carets_and_no_traceback(tmp_path: Path) -> None:
    wrong = "%%cnn\nmodel m {\n    input x: f32[N, 3, 8, 8]\n    x -> cnov(4, 3x3)\n}"
    cells = executed(
        [
            "%load_ext convdsl",
            wrong,
            "def f():\n    return convdsl.load('nonsense')\n",
            "import convdsl\nf()",
        ],
        tmp_path,
        allow_errors=True,
    )
    (found,) = cells[1].outputs
    said = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(found["traceback"]))
    assert said.startswith("error[E0")
    assert "--> cell 2:4:10" in said
    assert "x -> cnov(4, 3x3)" in said
    assert "^^^^" in said
    assert "Traceback" not in said
    (found,) = cells[3].outputs
    said = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(found["traceback"]))
    assert said == (
        "line 2: f()\nline 2: return convdsl.load('nonsense')\n"
        "error: nonsense is neither a file nor a model of the zoo; `convdsl zoo` lists the "
        "shipped models"
    )
