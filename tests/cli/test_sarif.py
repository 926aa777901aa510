"""`convdsl check --format sarif`: what code scanning reads. tests/around holds it to the schema."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from convdsl.explanations import find
from convdsl.findings.sarif import source_root

BLOCKS = """convdsl 1
block inner(width) {
    in -> conv(width, 3x3, strid = 2)
}
"""
NETS = """convdsl 1
use "parts/blocks größe.cnn": inner
model first {
    input x: f32[N, 3, 8, 8]
    x -> inner(8) -> output y
}
model second {
    input x: f32[N, 3, 8, 8]
    lost = x -> relu
    x -> relu -> output y
}
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with two files, an error in the one through the other, and a warning."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "nets" / "parts").mkdir(parents=True)
    (tmp_path / "nets" / "parts" / "blocks größe.cnn").write_text(BLOCKS)
    (tmp_path / "nets" / "nets.cnn").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_of(convdsl: Any, *arguments: object) -> dict[str, Any]:
    said = convdsl("check", *arguments, "--format", "sarif")
    log = json.loads(said.out)
    assert (log["version"], len(log["runs"]), said.err) == ("2.1.0", 1, "")
    assert said.code == (1 if log["runs"][0]["results"] else 0)
    return log["runs"][0]


def place(location: dict[str, Any]) -> tuple[str, str | None, int, int]:
    physical = location["physicalLocation"]
    artifact, region = physical["artifactLocation"], physical["region"]
    return artifact["uri"], artifact.get("uriBaseId"), region["startLine"], region["startColumn"]


def test_results_and_rules(convdsl, checkout: Path) -> None:
    run = run_of(convdsl, "nets/nets.cnn")
    error, warning = sorted(run["results"], key=lambda result: result["level"])
    assert (error["ruleId"], error["level"]) == ("E0301", "error")
    assert (warning["ruleId"], warning["level"]) == ("W0201", "warning")
    assert "help: did you mean `stride`?" in error["message"]["text"]
    (location,) = error["locations"]
    assert place(location) == ("nets/parts/blocks%20gr%C3%B6%C3%9Fe.cnn", "%SRCROOT%", 3, 28)
    region = location["physicalLocation"]["region"]
    assert (region["endLine"], region["endColumn"]) == (3, 33)
    (block,) = error["relatedLocations"]
    assert place(block) == ("nets/nets.cnn", "%SRCROOT%", 5, 10)
    assert block["message"]["text"] == "in inner(width = 8)"
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == ["E0301", "W0201"]
    for result in run["results"]:
        rule = rules[result["ruleIndex"]]
        known = find(result["ruleId"])
        assert known is not None
        assert rule["id"] == result["ruleId"]
        assert rule["shortDescription"]["text"] == known.title
        assert rule["defaultConfiguration"]["level"] == result["level"]
        assert known.wrong in rule["help"]["text"]
        assert rule["help"]["markdown"] == known.markdown()
    assert run["originalUriBaseIds"].keys() == {"%SRCROOT%"}


def test_paths_are_those_of_the_checkout_wherever_it_is_run(
    convdsl, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    above = run_of(convdsl, "nets/nets.cnn")["results"]
    monkeypatch.chdir(checkout / "nets" / "parts")
    assert run_of(convdsl, "../nets.cnn")["results"] == above
    assert run_of(convdsl, checkout / "nets" / "nets.cnn")["results"] == above
    assert source_root(checkout / "nets") == checkout
    assert str(checkout) not in json.dumps(above)


def test_what_lies_elsewhere_has_a_whole_uri(
    convdsl, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / "other").mkdir()
    (checkout / "other" / ".git").mkdir()
    monkeypatch.chdir(checkout / "other")
    results = run_of(convdsl, "../nets/nets.cnn")["results"]
    uris = {r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in results}
    assert uris == {
        (checkout / "nets" / "nets.cnn").as_uri(),
        (checkout / "nets" / "parts" / "blocks größe.cnn").as_uri(),
    }


def test_fingerprints_stay_when_lines_move_and_differ_among_alike(convdsl, checkout: Path) -> None:
    def prints(text: str) -> list[str]:
        Path("net.cnn").write_text(text)
        results = run_of(convdsl, "net.cnn")["results"]
        return [result["partialFingerprints"]["primaryLocationLineHash"] for result in results]

    model = "model m {\n input x: f32[N, 3]\n x -> relv\n}\n"
    twice = model + model.replace("model m", "model n")
    (one,) = prints(model)
    assert prints(f"convdsl 1\n\n# moved\n{model.replace('x -> relv', 'x  ->  relv')}") == [one]
    assert prints(model.replace("relv", "rellu")) != [one]
    first, second = prints(twice)
    assert first == one
    assert second != one


def test_nothing_found(convdsl, checkout: Path) -> None:
    Path("fine.cnn").write_text("model m {\n    input x: f32[N, 3]\n    x -> relu\n}\n")
    run = run_of(convdsl, "fine.cnn")
    assert (run["results"], run["tool"]["driver"]["rules"]) == ([], [])


def test_a_finding_without_a_place_is_one_of_its_file(convdsl, checkout: Path) -> None:
    Path("bytes.cnn").write_bytes(b"\xff\xfe\x00")
    (result,) = run_of(convdsl, "bytes.cnn")["results"]
    (location,) = result["locations"]
    artifact = location["physicalLocation"]["artifactLocation"]
    assert artifact == {"uri": "bytes.cnn", "uriBaseId": "%SRCROOT%"}
    said = convdsl("check", "bytes.cnn", "--format", "github").out
    assert said.startswith("::error file=bytes.cnn,title=convdsl E0704::")


def test_names_of_files_that_are_no_text(convdsl, checkout: Path) -> None:
    name = os.fsdecode(b"\xff\n: ,%.cnn")
    Path(name).write_text("model m { input x: f32[N, 3]\nx -> relv }\n")
    (result,) = run_of(convdsl, name)["results"]
    artifact = result["locations"][0]["physicalLocation"]["artifactLocation"]
    assert artifact == {"uri": "%FF%0A%3A%20%2C%25.cnn", "uriBaseId": "%SRCROOT%"}
    (line,) = convdsl("check", name, "--format", "github").out.splitlines()
    assert line.startswith("::error file=\\udcff%0A%3A %2C%25.cnn,line=2,")


def test_budgets_are_results_too(convdsl, checkout: Path) -> None:
    Path("convdsl.toml").write_text('[budget."*"]\nparams = 0\n')
    Path("fine.cnn").write_text("model m {\n    input x: f32[N, 3]\n    x -> linear(2)\n}\n")
    (result,) = run_of(convdsl, "fine.cnn")["results"]
    assert place(result["locations"][0]) == ("convdsl.toml", "%SRCROOT%", 2, 10)
    assert place(result["relatedLocations"][0]) == ("fine.cnn", "%SRCROOT%", 1, 7)
