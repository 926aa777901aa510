"""What other people's CI reads, held to its own rules: SARIF to the schema of OASIS, hooks to
pre-commit, workflows to the schema of GitHub Actions, and their steps to a shell."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from convdsl.explanations import every

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / "docs" / "ci" / "networks.yml"
SCHEMA = json.loads(Path(__file__).with_name("sarif-schema-2.1.0.json").read_text())
NET = "model net {\n    input x: f32[N, 3, 8, 8]\n    x -> conv(4, 3x3) as c -> relu\n}\n"


def run(folder: Path, *command: str, code: int = 0, **settings: str) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])} | settings,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def convdsl(folder: Path, *arguments: str, code: int = 0) -> str:
    return run(folder, sys.executable, "-m", "convdsl", *arguments, code=code)


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "protocol.file.allow=always")
    run(folder, "git", *who, *arguments)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with a network, on a branch that makes it larger."""
    folder = tmp_path / "work"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "convdsl.toml").write_text('models = ["*.cnn"]\n[budget.net]\nparams = "1K"\n')
    (folder / "net.cnn").write_text(NET)
    (folder / "parts.cnn").write_text("block body() { relu }\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "net")
    git(folder, "update-ref", "refs/remotes/origin/main", "HEAD")
    git(folder, "switch", "-q", "-c", "wider")
    (folder / "net.cnn").write_text(NET.replace("conv(4", "conv(8"))
    (folder / "parts.cnn").write_text("block body() { relu6 }\n")
    git(folder, "commit", "-q", "-a", "-m", "wider")
    return folder


# SARIF


def validate(log: dict[str, Any]) -> None:
    checker = jsonschema.Draft4Validator.FORMAT_CHECKER
    jsonschema.Draft4Validator(SCHEMA, format_checker=checker).validate(log)


def test_the_schema_refuses_what_is_no_log() -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate({"version": "2.1.0", "runs": [{"results": []}]})


def test_logs_of_every_kind_of_finding(checkout: Path) -> None:
    """Every code that an example of ours has, in one log: further places, frames, no place."""
    names: list[str] = []
    for entry in every().values():
        if entry.setting in ("body", "alone"):
            text = entry.wrong
            if entry.setting == "body":
                text = f"model m {{\ninput x: f32[N, 64, 56, 56]\n{text}}}\n"
            (checkout / f"{entry.code} ä.cnn").write_text(text)
            names.append(f"{entry.code} ä.cnn")
    (checkout / "bytes.cnn").write_bytes(b"\xff\xfe")
    (checkout / "deep.cnn").write_text(
        "block a(n) { b(n) }\nblock b(n) { conv(n, 3x3, strid = 2) }\n"
        "model m { input x: f32[N, 3, 8, 8]\nx -> a(4) }\n"
    )
    (checkout / "convdsl.toml").write_text('[budget."*"]\nparams = 1\nmacs = 1\n')
    arguments = ("check", *names, "net.cnn", "deep.cnn", "bytes.cnn", "--format", "sarif")
    log = json.loads(convdsl(checkout, *arguments, code=1))
    validate(log)
    results = log["runs"][0]["results"]
    assert len({result["ruleId"] for result in results}) > 30
    assert any("relatedLocations" in result for result in results)
    assert all(len(result["locations"]) == 1 for result in results)  # code scanning wants one
    prints = [result["partialFingerprints"]["primaryLocationLineHash"] for result in results]
    assert len(set(prints)) == len(prints)


def test_a_log_of_nothing(checkout: Path) -> None:
    validate(json.loads(convdsl(checkout, "check", "--format", "sarif")))


# Workflows


def valid(kind: str, text: str) -> None:
    schema = files("check_jsonschema") / "builtin_schemas" / "vendor" / f"{kind}.json"
    read = yaml.safe_load(text)
    read["on"] = read.pop(True)  # which is what YAML 1.1 makes of the key, and GitHub does not
    jsonschema.validate(read, json.loads(schema.read_text()))


def test_workflows_are_ones(tmp_path: Path) -> None:
    valid("github-workflows", WORKFLOW.read_text())
    convdsl(tmp_path, "init", "net")
    written = tmp_path / "net" / ".github" / "workflows" / "convdsl.yml"
    valid("github-workflows", written.read_text())
    with pytest.raises(jsonschema.ValidationError):
        valid("github-workflows", WORKFLOW.read_text().replace("runs-on", "run-on"))


def tools(folder: Path) -> Path:
    """convdsl as it is here, and stand-ins for what the network is needed for: they write down how
    they were called."""
    folder.mkdir()
    scripts = {
        "convdsl": f'exec "{sys.executable}" -m convdsl "$@"',
        "pip": f'echo "pip $*" >> "{folder}/calls"',
        "gh": f'echo "gh $*" >> "{folder}/calls"; cat > "{folder}/comment"',
    }
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    return folder


def steps(path: Path, folder: Path, bin: Path, code: dict[str, int]) -> dict[str, str]:
    """Run the steps of a workflow as a runner does: `bash -e`, expressions put in."""
    values = {"github.base_ref": "main", "github.event.number": "7", "github.token": "secret"}
    said: dict[str, str] = {}
    (job,) = yaml.safe_load(path.read_text())["jobs"].values()
    for step in job["steps"]:
        if "run" not in step:
            continue
        settings = dict(step.get("env", {}))
        for name, text in settings.items():
            for value, filled in values.items():
                text = text.replace(f"${{{{ {value} }}}}", filled)
            assert "${{" not in text
            settings[name] = text
        assert "${{" not in step["run"]  # what others write comes in by the environment alone
        name = step.get("name", step["run"])
        shell = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"])
        PATH = f"{bin}:{os.environ['PATH']}"
        said[name] = run(folder, *shell, code=code.get(name, 0), PATH=PATH, **settings)
    return said


def test_the_steps_of_the_workflow(checkout: Path, tmp_path: Path) -> None:
    bin = tools(tmp_path / "bin")
    said = steps(WORKFLOW, checkout, bin, {})
    validate(json.loads((checkout / "convdsl.sarif").read_text()))
    assert said["findings and budgets"] == ""
    calls = (bin / "calls").read_text().splitlines()
    assert calls == [
        "pip install convdsl",
        "gh pr comment 7 --edit-last --create-if-none --body-file -",
    ]
    comment = (bin / "comment").read_text()
    assert comment.startswith("### `origin/main:net.cnn` → `net.cnn`\n")
    assert "| params | 112 | 224 | +100.0 % |" in comment


def test_the_steps_fail_where_something_is_wrong(checkout: Path, tmp_path: Path) -> None:
    (checkout / "convdsl.toml").write_text('models = ["*.cnn"]\n[budget.net]\nparams = 100\n')
    bin = tools(tmp_path / "bin")
    said = steps(WORKFLOW, checkout, bin, {"findings and budgets": 1})
    assert said["findings and budgets"].startswith("::error file=convdsl.toml,line=3,col=10,")
    (result,) = json.loads((checkout / "convdsl.sarif").read_text())["runs"][0]["results"]
    assert result["ruleId"] == "E1001"


# pre-commit


@pytest.fixture(scope="module")
def hooks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This working tree as a repository that pre-commit can clone."""
    folder = tmp_path_factory.mktemp("hooks") / "convdsl"
    listed = run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "all")
    return folder


def test_pre_commit_runs_the_hooks(hooks: Path, checkout: Path, tmp_path: Path) -> None:
    revision = run(hooks, "git", "rev-parse", "HEAD").strip()
    config = {
        "repos": [
            {
                "repo": str(hooks),
                "rev": revision,
                "hooks": [{"id": "convdsl-fmt"}, {"id": "convdsl-check"}],
            }
        ]
    }
    (checkout / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    (checkout / "note.txt").write_text("model {{{\n")
    git(checkout, "add", "-A")
    settings = {
        "PRE_COMMIT_HOME": str(tmp_path / "cache"),
        "PYTHONPATH": "",
        "GIT_ALLOW_PROTOCOL": "file",
    }
    command = (sys.executable, "-P", "-m", "pre_commit", "run", "--all-files")
    said = run(checkout, *command, **settings)
    assert said.count("Passed") == 2

    (checkout / "net.cnn").write_text(NET.replace("    x -> conv", " x->conv"))
    (checkout / "convdsl.toml").write_text("[budget.net]\nparms = 100\n")
    git(checkout, "add", "-A")
    said = run(checkout, *command, code=1, **settings)
    assert said.count("Failed") == 2
    assert "files were modified by this hook" in said
    assert "did you mean `params`?" in said
    assert (checkout / "net.cnn").read_text() == NET


def test_the_local_hooks_of_a_new_project(tmp_path: Path) -> None:
    convdsl(tmp_path, "init", "net")
    folder = tmp_path / "net"
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    bin = tools(tmp_path / "bin")
    settings = {"PRE_COMMIT_HOME": str(tmp_path / "cache"), "PATH": f"{bin}:{os.environ['PATH']}"}
    said = run(folder, sys.executable, "-m", "pre_commit", "run", "--all-files", **settings)
    assert said.count("Passed") == 2
    assert stat.S_ISREG((folder / "net.cnn").stat().st_mode)
