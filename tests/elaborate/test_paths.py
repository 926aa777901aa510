"""Path attacks: nothing outside the project is opened, whatever a source asks for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from convdsl import zoo
from convdsl.diagnostics import CompileError, SourceFile
from convdsl.elaborate import elaborate, files, load_file

SECRET = "block secret { relu }\n"


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """outside/ with secrets, project/ with traps, zoo/."""
    outside, project, zoo = tmp_path / "outside", tmp_path / "project", tmp_path / "zoo"
    for folder in (outside, project / "sub", zoo, tmp_path / "project-evil"):
        folder.mkdir(parents=True)
    for place in (outside, tmp_path, tmp_path / "project-evil"):
        (place / "secret.cnn").write_text(SECRET)
    (zoo / "good.cnn").write_text("block good { relu }\n")
    (zoo / "escape.cnn").write_text('use "../outside/secret.cnn": secret\nblock good { relu }\n')
    (project / "convdsl.toml").write_text("")
    (project / "good.cnn").write_text("block good { relu }\n")
    (project / "sub" / "deep.cnn").write_text('use "../good.cnn": good\n')
    (project / "link.cnn").symlink_to(outside / "secret.cnn")
    (project / "folder").symlink_to(outside)
    (project / "chain1.cnn").symlink_to(project / "chain2.cnn")
    (project / "chain2.cnn").symlink_to(outside / "secret.cnn")
    (project / "loop1.cnn").symlink_to(project / "loop2.cnn")
    (project / "loop2.cnn").symlink_to(project / "loop1.cnn")
    (project / "dangling.cnn").symlink_to(outside / "missing.cnn")
    (project / "inside.cnn").symlink_to(project / "good.cnn")
    (project / "up").symlink_to(tmp_path)
    (project / "dev.cnn").symlink_to("/dev/zero")
    os.mkfifo(project / "fifo.cnn")
    (project / "binary.cnn").write_bytes(b"\xff\xfe\x00block")
    (project / "itself.cnn").write_text('use "itself.cnn": secret\n')
    (project / "a.cnn").write_text('use "b.cnn": secret\n')
    (project / "b.cnn").write_text('use "a.cnn": secret\n')
    return project


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every path that the front end opens."""
    paths: list[str] = []
    real = os.open

    def watch(path: Any, *arguments: Any, **keywords: Any) -> int:
        paths.append(os.path.realpath(path))
        return real(path, *arguments, **keywords)

    monkeypatch.setattr(files.os, "open", watch)
    return paths


ATTACKS = {
    "../secret.cnn": "E0702",
    "../outside/secret.cnn": "E0702",
    "../../etc/passwd": "E0702",
    "sub/../../secret.cnn": "E0702",
    "./../secret.cnn": "E0702",
    "../project-evil/secret.cnn": "E0702",
    "..": "E0702",
    "sub/../..": "E0702",
    "/etc/passwd": "E0702",
    "//etc/passwd": "E0702",
    "/dev/zero": "E0702",
    "/proc/self/environ": "E0702",
    "~/secret.cnn": "E0702",
    "~root/secret.cnn": "E0702",
    "C:/secret.cnn": "E0702",
    "..\\\\secret.cnn": "E0702",
    "\\\\\\\\server\\\\share.cnn": "E0702",
    "link.cnn": "E0702",
    "folder/secret.cnn": "E0702",
    "chain1.cnn": "E0702",
    "up/secret.cnn": "E0702",
    "up/outside/secret.cnn": "E0702",
    "dangling.cnn": "E0702",
    "dev.cnn": "E0702",
    "loop1.cnn": None,
    "fifo.cnn": "E0704",
    "sub": "E0704",
    ".": "E0704",
    "binary.cnn": "E0704",
    "": "E0702",
    "good.cnn\\n": "E0702",
    "good\x00.cnn": "E0702",
    "missing.cnn": "E0701",
    "good.cnn/../../secret.cnn": "E0702",
    "itself.cnn": "E0703",
    "a.cnn": "E0703",
    "zoo:../outside/secret.cnn": "E0702",
    "zoo:/etc/passwd": "E0702",
    "zoo:escape.cnn": "E0702",
    "zoo:": "E0702",
    "zoo:zoo:good.cnn": None,
    "http://example.com/a.cnn": None,
    "file:///etc/passwd": None,
    "a" * 2000: "E0702",
    "x/" * 300 + "a.cnn": None,
}


@pytest.mark.parametrize("path", ATTACKS)
def test_attack(path: str, world: Path, opened: list[str]) -> None:
    main = world / "main.cnn"
    main.write_text(f'use "{path}": secret\nmodel m {{ input x: f32[N, 3, 8, 8]\nx -> relu }}\n')
    with pytest.raises(CompileError) as caught:
        load_file(main, zoo=world.parent / "zoo")
    codes = {d.code for d in caught.value.diagnostics}
    wanted = ATTACKS[path]
    assert codes <= ({wanted} if wanted else {"E0701", "E0702", "E0704"})
    assert all(d.span is not None for d in caught.value.diagnostics)
    roots = (str(world) + os.sep, str(world.parent / "zoo") + os.sep)
    assert all(place.startswith(roots) for place in opened)


@pytest.mark.parametrize("path", ["../outside/names.txt", "/etc/passwd", "link.cnn", "fifo.cnn"])
def test_labels_follow_the_same_rules(path: str, world: Path, opened: list[str]) -> None:
    (world.parent / "outside" / "names.txt").write_text("a\nb\n")
    main = world / "main.cnn"
    main.write_text(f'model m {{ input x: f32[N, 2]\nlabels "{path}"\nx -> relu -> output y }}\n')
    with pytest.raises(CompileError):
        load_file(main)
    assert all(place.startswith(str(world) + os.sep) for place in opened)


def test_text_without_a_file_reads_the_zoo_only(world: Path) -> None:
    text = 'use "{}": good\nmodel m {{ input x: f32[N, 3, 8, 8]\nx -> good }}\n'
    zoo = world.parent / "zoo"
    made = elaborate(SourceFile("<text>", text.format("zoo:good.cnn")), zoo=zoo)
    assert [node.name for node in made.graph.op_nodes()] == ["good.relu"]
    with pytest.raises(CompileError, match="zoo only"):
        elaborate(SourceFile("<text>", text.format("good.cnn")), zoo=zoo)
    with pytest.raises(CompileError, match="not available"):
        elaborate(SourceFile("<text>", text.format("zoo:good.cnn")))


class TestAllowed:
    def load(self, folder: Path, use: str) -> list[str]:
        main = folder / "main.cnn"
        text = f'use "{use}": good\nmodel m {{ input x: f32[N, 3, 8, 8]\nx -> good }}\n'
        main.write_text(text)
        return [node.name for node in load_file(main).graph.op_nodes()]

    def test_a_neighbour(self, world: Path) -> None:
        assert self.load(world, "good.cnn") == ["good.relu"]

    def test_up_inside_the_project(self, world: Path) -> None:
        assert self.load(world / "sub", "../good.cnn") == ["good.relu"]

    def test_links_inside_the_project(self, world: Path) -> None:
        assert self.load(world, "inside.cnn") == ["good.relu"]

    def test_an_import_of_an_import(self, world: Path) -> None:
        assert self.load(world, "sub/deep.cnn") == ["good.relu"]

    def test_without_a_mark_the_folder_is_the_root(self, world: Path) -> None:
        (world / "convdsl.toml").unlink()
        with pytest.raises(CompileError, match="leads outside the project"):
            self.load(world / "sub", "../good.cnn")

    def test_renamed(self, world: Path) -> None:
        main = world / "main.cnn"
        main.write_text(
            'use "good.cnn": good as better\nmodel m { input x: f32[N, 3, 8, 8]\nx -> better }\n'
        )
        assert [n.name for n in load_file(main).graph.op_nodes()] == ["good.relu"]


def test_a_main_file_that_is_no_file(world: Path) -> None:
    for name in ("fifo.cnn", "sub", "missing.cnn", "binary.cnn", "loop1.cnn"):
        with pytest.raises(CompileError):
            load_file(world / name)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "bom.cnn"
    path.write_bytes(b"\xef\xbb\xbfconvdsl 1\r\nmodel m { input x: f32[N, 3]\r\nx -> relu }\r\n")
    assert load_file(path).name == "m"


@pytest.mark.parametrize("path", ["x" * 300, f"{'x' * 300}.cnn", f"zoo:{'x' * 300}"])
def test_what_is_too_long_for_a_name_is_no_file(tmp_path: Path, path: str) -> None:
    (tmp_path / "net.cnn").write_text(f'use "{path}": part\n')
    with pytest.raises(CompileError, match="there is no file") as raised:
        load_file(tmp_path / "net.cnn", zoo=zoo.folder())
    assert raised.value.diagnostics[0].code == "E0701"
