"""Build the wheel, install it in a new environment, and use it far from the checkout.

    check_wheel.py            say what it is
    check_wheel.py FOLDER     leave the wheel there, with its SBOM, once pipx has run it, too

Not a pytest test, since it needs the network: `make wheel` and `make release` run it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
CARRIED = (
    "convdsl/py.typed",
    "convdsl/grammar/convdsl.lark",
    "convdsl/grammar/convdsl.tables.json",
    "convdsl/examples/resnet.cnn",
    "convdsl/examples/efficientnet_lite0.cnn",
    "convdsl/examples/imagenet_classes.txt",
    "convdsl/examples/gallery/non_local.cnn",
    "convdsl/explanations/syntax.toml",
    "convdsl/templates/common/convdsl.toml.in",
)
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")


def said(*command: str | Path, folder: Path) -> str:
    """What a command prints, run in `folder` without this checkout in reach."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


MOST_DOWNLOADED = 90e6
"""Bytes of the wheel, 1.7 MB, and of all that it needs: 81 MB on Linux, most of it LLVM."""


def downloaded(wheel: Path, folder: Path) -> int:
    """Bytes that `pip install` fetches where nothing is there yet."""
    fetched = folder / "fetched"
    said(sys.executable, *PIP, "download", "-d", fetched, wheel, folder=folder)
    return sum(path.stat().st_size for path in fetched.iterdir())


def write_sbom(python: Path, target: Path, folder: Path) -> int:
    """What an environment that has the wheel and nothing else consists of, as CycloneDX."""
    listed = said(python, "-m", "pip", "list", "--format", "json", folder=folder)
    names = {item["name"].lower() for item in json.loads(listed)} - {"pip", "setuptools"}
    said(python, *PIP, "uninstall", "--yes", "setuptools", "pip", folder=folder)  # none of ours
    said(
        *(sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"),
        *("--pyproject", ROOT / "pyproject.toml", "--mc-type", "library", "-o", target, python),
        folder=folder,
    )
    made = json.loads(target.read_text(encoding="utf-8"))
    found = {item["name"].lower() for item in made["components"]}
    assert made["metadata"]["component"]["name"] == "convdsl"
    assert found == names - {"convdsl"}, f"the SBOM has {found}, and installed are {names}"
    return len(found)


def release(wheel: Path, python: Path, target: Path, folder: Path) -> None:
    """The wheel and its SBOM in a folder, and the wheel run as pipx does."""
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(wheel, target)
    count = write_sbom(python, (target / f"{wheel.stem}.cdx.json").resolve(), folder)
    ran = said(
        *(sys.executable, "-m", "pipx", "run", "--no-cache", "--spec", wheel, "convdsl"),
        *("report", "lenet5", "--batch", "1"),
        folder=folder,
    )
    assert "params: 61,706" in ran, ran
    print(f"{target}: {wheel.name} and an SBOM of {count} packages; pipx runs it")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        said(sys.executable, *PIP, "wheel", "--no-deps", "-w", folder, ROOT, folder=folder)
        (wheel,) = folder.glob("convdsl-*.whl")
        names = set(zipfile.ZipFile(wheel).namelist())
        missing = [path for path in CARRIED if path not in names]
        foreign = [path for path in names if path.startswith(("tests/", "docs/", "typings/"))]
        assert not missing, f"the wheel lacks {missing}"
        assert not foreign, f"the wheel carries {foreign}"

        venv.create(folder / "env", with_pip=True)
        scripts = folder / "env" / "bin"
        said(scripts / "python", *PIP, "install", wheel, folder=folder)
        listed = said(scripts / "convdsl", "zoo", folder=folder)
        assert "resnet50" in listed
        assert "non_local" in listed
        assert "right:" in said(scripts / "convdsl", "explain", "E0501", folder=folder)
        said(scripts / "convdsl", "init", "net", folder=folder)
        said(scripts / "convdsl", "check", "net/net.cnn", "net/convdsl.toml", folder=folder)
        report = said(
            scripts / "convdsl", "report", "resnet50", "--batch", "1", "--format", "csv",
            folder=folder,
        )  # fmt: skip
        assert "layer4.2.conv3" in report
        ran = said(
            scripts / "convdsl", "run", "lenet5", "--weights", "random:0", "--data", "random:0",
            folder=folder,
        )  # fmt: skip
        assert "logits" in ran
        where = said(
            scripts / "python", "-c", "print(__import__('convdsl').__file__)", folder=folder
        )
        assert str(folder) in where, f"used {where} instead of the wheel"
        size = downloaded(wheel, folder)
        assert size < MOST_DOWNLOADED, f"{size / 1e6:.0f} MB are downloaded"
        print(f"{size / 1e6:.1f} MB are downloaded")
        if len(sys.argv) > 1:
            release(wheel, scripts / "python", Path(sys.argv[1]), folder)
        print(f"{wheel.name}: {wheel.stat().st_size / 1e3:.0f} kB, {len(names)} files, works")


if __name__ == "__main__":
    main()
