"""Build the wheel, install it in a new environment, and use it far from the checkout.

Not a pytest test, since it needs the network: `make wheel` runs it.
"""

from __future__ import annotations

import os
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
)
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")


def said(*command: str | Path, folder: Path) -> str:
    """What a command prints, run in `folder` without this checkout in reach."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


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
        print(f"{wheel.name}: {wheel.stat().st_size / 1e3:.0f} kB, {len(names)} files, works")


if __name__ == "__main__":
    main()
