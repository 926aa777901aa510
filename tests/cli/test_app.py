"""The frame around the commands: help, mistakes, exit codes, colour."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import convdsl as package
from convdsl.backends.llvm import objects
from convdsl.cli import app, console, report
from convdsl.cli.app import COMMANDS
from convdsl.diagnostics import InputError

HEAVY = ("networkx", "lark", "llvmlite", "rich", "rich_argparse", "PIL", "numpy", "shtab")


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | variables,
        check=False,
    )


def test_version(convdsl) -> None:
    assert convdsl("--version") == (0, f"convdsl {package.__version__}\n", "")
    assert python("-m", "convdsl", "--version").stdout == f"convdsl {package.__version__}\n"


def test_without_a_command_the_help_is_shown(convdsl) -> None:
    said = convdsl()
    assert said.code == 2
    assert all(command in said.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(convdsl, command: str) -> None:
    said = convdsl(command, "--help")
    assert said.code == 0
    assert said.out.startswith(f"usage: convdsl {command}")
    assert "--quiet" in said.out
    assert "\x1b" not in said.out


@pytest.mark.dear
@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([c, "--help"] for c in COMMANDS)]
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from convdsl.cli import main; main(sys.argv[1:]); "
        f"print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )
    assert python("-c", code, *arguments).stderr == "[]\n"


@pytest.mark.parametrize(
    ("code", "ours", "all"),
    [("import convdsl", 1, 60), ("from convdsl.cli import main; main(['--help'])", 12, 130)],
)
def test_few_modules_are_loaded_at_the_start(code: str, ours: int, all: int) -> None:
    """Counted, not timed: 50 ms of `import convdsl` and 100 ms of `--help` follow from it."""
    counting = (
        f"import sys; before = set(sys.modules); {code}; new = set(sys.modules) - before\n"
        "print(sum(m.partition('.')[0] == 'convdsl' for m in new), len(new), file=sys.stderr)"
    )
    own, new = map(
        int, python("-S", "-c", counting, PYTHONPATH=os.pathsep.join(sys.path)).stderr.split()
    )
    assert own <= ours
    assert new <= all


def test_help_on_a_terminal_is_in_colour(convdsl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "argv", ["convdsl", "report", "--help"])
    assert "\x1b[" in convdsl("report", "--help").out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in convdsl("report", "--help").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reprot", "x"], "error: no command reprot; did you mean report?"),
        (["xyzzy"], "error: no command xyzzy; there are init, check"),
        (["report", "x", "--formt", "json"], "no option --formt; did you mean --format?"),
        (["report", "x", "--formt=json"], "no option --formt=json; did you mean --format?"),
        (["report", "x", "--format", "jsn"], "--format: no choice jsn; did you mean json?"),
        (["report", "x", "y"], "y is one argument too many"),
        (["report"], "the following arguments are required: MODEL"),
        (["report", "x", "--batch", "0"], "--batch: '0' is not a whole number from 1 up"),
        (["report", "x", "--batch", "two"], "--batch: 'two' is not a whole number"),
        (["report", "x", "--input", "3,4"], "--input: '3,4' is not a size such as 3x224x224"),
        (["report", "x", "--input", "3x0"], "--input: '3x0' is not a size"),
        (["report", "x", "--set", "classes"], "--set: 'classes' is not NAME=VALUE"),
        (["run", "x"], "the following arguments are required: --data"),
        (["bench", "x", "--pass-option", "a=1"], "'a=1' is not PASS.OPTION=VALUE"),
        (["--frobnicate"], "no option --frobnicate"),
        (["report", "x", "--form", "json"], "no option --form; did you mean --format?"),
        # What is no option comes before what is missing, or wrong, beside it.
        (["report", "--versoin"], "no option --versoin; did you mean `convdsl --version`?"),
        (["report", "--depht"], "no option --depht; did you mean --depth?"),
        (["report", "x", "--batch", "two", "--depht=1"], "--depht=1; did you mean --depth?"),
        (["train", "x", "--epoch", "3"], "no option --epoch; did you mean --epochs?"),
        (["train", "x", "--learning-rate", "3"], "did you mean --lr?"),
        (["run", "x", "--imgsz", "8"], "did you mean --input?"),
        (["report", "x", "--width", "16"], "is set by --set width=16"),
        (["train", "x", "--width", "16"], "a parameter of the model is set by --set width=16"),
        (["train", "x", "--schedule", "cosine"], "of the training is set by --set train.schedule="),
        (["report", "x", "-d", "1"], "no option -d; did you mean --depth?"),
        (["check", "-qw"], "-q/--quiet takes no value: 'w'"),
        (["-q", "report", "x"], "-q stands behind the command: convdsl report -q"),
        (["--color", "never", "zoo"], "options stand behind the command"),
        (["--print-completion", "cmd.exe"], "no completion for cmd.exe: bash, zsh, tcsh"),
        # What begins so, or has it as a part.
        (["comp"], "no command comp; there are compile, completion"),
        (["rep"], "no command rep; did you mean report?"),
        (["compile", "x", "--emit", "loop"], "did you mean loops?"),
        # What stands where nothing reads it.
        (["run", "x", "y.npy"], "are required: --data; did you mean --data y.npy?"),
        (["eval", "x", "my data", "--batch", "2"], "did you mean --data 'my data'?"),
        (["run", "x", "--batch", "2"], "the following arguments are required: --data\n"),
        (["report", "x", "--depth", "-1"], "'-1' is not a whole number from 0 up"),
    ],
)
def test_misuse(convdsl, arguments: list[str], message: str) -> None:
    said = convdsl(*arguments)
    assert said.code == 2
    assert said.out == ""
    assert message in said.err
    assert "\nusage: convdsl" in said.err
    assert "--help` lists the options" in said.err
    assert all(len(line) <= 120 for line in said.err.splitlines()[1:])
    assert "Traceback" not in said.err


@pytest.mark.parametrize("command", ["report", "train", "draw", "check", "export"])
def test_names_with_spaces_stand_in_quotes(
    convdsl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    (tmp_path / "my own net.cnn").touch()
    monkeypatch.chdir(tmp_path)
    said = convdsl(command, "my", "own", "net.cnn", *["--data", "d"] * (command == "train"))
    assert said.code == 2
    told = "a name with spaces stands in quotes: 'my own net.cnn'"
    assert (told in said.err) == (command != "check"), said.err  # which takes several


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ops", "lin"], "called lin; did you mean linear?"),
        (["ops", "group"], "called group; did you mean group_norm?"),
        (["ops", "norm"], "there are batch_norm, layer_norm, group_norm, instance_norm"),
        (["zoo", "vit_l"], "there are vit_l_16, vit_l_32"),
        (["zoo", "resnet51"], "did you mean resnet50?"),
        (["explain", "201"], "no code 201; did you mean E0201?"),
        (["explain", "9"], "no code 9; `convdsl explain` lists them"),
        (["explain", "e02"], "so begin E0201"),
        (["report", "lenet5", "--machine", "140"], "140 is one figure, and a machine has two"),
        (["passes", "--disable", "x", "--batch", "2"], "--batch, --disable: name the model"),
        (["passes", "--verify"], "--verify: name the model that the passes go over"),
        (["report", "-"], "write /dev/stdin, or name a file"),
        (["check", "-"], "write /dev/stdin, or name a file"),
        (["bench", "none.cdsl"], "there is no file none.cdsl"),
        (["report", "lenet5", "--html", "-"], "a page is not for the standard output"),
        (["export", "lenet5", "--weights", "random:0", "-o", "-"], "not for the standard output"),
        (["compile", "lenet5", "--weights", "random:0", "-o", "-"], "an artifact is not for the"),
        (["run", "lenet5", "--weights", "random:0", "--data", "image=x.npy"], "no NAME=FILE"),
        (["info", "none.cnn"], "there is no file none.cnn"),
        (["compile", "lenet5", "--emit", "asm", "--cpu", "avx2"], "for avx2 write x86-64-v3"),
        (["compile", "lenet5", "--emit", "asm", "--cpu", "arm64"], "aarch64-linux-gnu:generic"),
        (["report", "unet", "--set", "size=8"], "no parameter `size`"),
    ],
)
def test_what_was_meant(convdsl, arguments: list[str], message: str) -> None:
    said = convdsl(*arguments)
    assert said.code == 2
    assert message in said.err


def test_levels_that_are_written_instead_are_known() -> None:
    for meant in objects._LEVELS.values():
        assert objects.find_target(meant).vector_bytes >= 16


def test_sizes_that_would_do(convdsl, tmp_path: Path) -> None:
    body = "image -> maxpool(2) -> output y"
    head = "model m { input image: f32[N, 1, H, 8] where H % 4 == 2, H >= 6\n"
    (tmp_path / "m.cnn").write_text(f"{head}{body} }}")
    how = ("report", tmp_path / "m.cnn", "--batch", "1", "--input")
    assert "H = 12, but H % 4 == 2: 10 or 14 would do" in convdsl(*how, "1x12x8").err
    assert "H = 5, but it must be at least 6" in convdsl(*how, "1x5x8").err
    assert "H = 7, but H % 4 == 2: 6 or 10 would do" in convdsl(*how, "1x7x8").err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("1x8x8", "it takes 3 channels, not 1"),
        ("8x8x3", "channels come first: 3x8x8"),
        ("3x9x9", "write `input image: f32[N, 3, H, W]`"),
        ("3x8x9", "write `input image: f32[N, 3, 8, H]`"),
    ],
)
def test_shapes_that_the_text_fixes(convdsl, small: Path, given: str, said: str) -> None:
    assert said in convdsl("report", small, "--input", given).err


def test_features_that_the_text_fixes(convdsl, tmp_path: Path) -> None:
    body = "x -> linear(2) -> output y"
    (tmp_path / "m.cnn").write_text(f"model m {{ input x: f32[N, 5]\n{body} }}")
    said = convdsl("report", tmp_path / "m.cnn", "--input", "7").err
    assert "it takes 5 numbers a sample, not 7" in said


def test_what_comes_next_is_quoted(
    convdsl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "next: cd 'my net' && python" in convdsl("init", "my net").err


def test_folders_are_no_images(convdsl, small: Path) -> None:
    said = convdsl("classify", small, small.parent, "--weights", "random:0").err
    assert f"{small.parent} is not a plain file but a folder: name the images in it" in said


@pytest.mark.drawn(share=6)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("behind", [True, False])
def test_an_option_misspelt_is_named_first(convdsl, command: str, behind: bool) -> None:
    """Of every command each of its options with two letters swapped, whatever else is missing."""
    whole = app.parser_of([command])
    own = next(a for a in whole._actions if a.dest == "COMMAND" or a.choices).choices[command]  # type: ignore[index]
    known = own.option_strings()
    for option in known:
        if len(option) < 5 or option[3] == option[4]:
            continue
        slip = f"{option[:3]}{option[4]}{option[3]}{option[5:]}"
        if slip in known:
            continue
        said = convdsl(*([command, "x.cnn", slip] if behind else [command, slip, "x.cnn"]))
        assert said.code == 2
        assert said.err.startswith(f"error: no option {slip}; did you mean --"), said.err
        assert "Traceback" not in said.err


def raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(options: object) -> int:
        raise error

    monkeypatch.setattr(report, "run", run)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("too wide"), 2, "error: too wide\n"),
        (FileNotFoundError(2, "No such file", "x.npy"), 2, "error: x.npy: No such file\n"),
        (OSError("disk on fire"), 2, "error: disk on fire\n"),
        (MemoryError(), 2, "error: not enough memory\n"),
        (MemoryError("8 GB"), 2, "error: not enough memory: 8 GB\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_errors_of_the_world(
    convdsl, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, message: str
) -> None:
    raising(error, monkeypatch)
    assert convdsl("report", "x") == (code, "", message)


def test_bugs_are_admitted(convdsl, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(ZeroDivisionError("oops"), monkeypatch)
    said = convdsl("report", "x", "--quiet")
    assert said.code == 2
    assert said.err.startswith("error: a bug in convdsl: ZeroDivisionError: oops at ")
    assert "test_app.py" in said.err
    assert "please report it" in said.err
    assert "Traceback" not in said.err
    assert "Traceback" in convdsl("report", "x", "--verbose").err


@pytest.mark.dear(share=4)
def test_a_reader_that_leaves_is_no_error() -> None:
    code = (
        "import os, sys; from convdsl.cli import main; read, write = os.pipe(); os.dup2(write, 1);"
        " os.close(write); os.close(read); sys.exit(main(['ops']))"
    )
    done = python("-c", code)
    assert (done.returncode, done.stderr) == (app.READER_GONE, "")


def test_colour(monkeypatch: pytest.MonkeyPatch, convdsl) -> None:
    assert convdsl("report", "nothing.cnn").err.startswith("error: there is no file")
    red = "\x1b[1;31merror: \x1b[0mthere is no file"
    assert convdsl("report", "nothing.cnn", "--color", "always").err.startswith(red)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert convdsl("report", "nothing.cnn").err.startswith(red)
    assert convdsl("report", "nothing.cnn", "--color", "never").err.startswith("error: ")
    monkeypatch.setenv("NO_COLOR", "1")
    assert convdsl("report", "nothing.cnn").err.startswith("error: ")


def test_terminals_get_colour_unless_dumb(monkeypatch: pytest.MonkeyPatch, convdsl) -> None:
    convdsl("ops", "relu")  # --color auto
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert console.use_colour(sys.stdout)
    monkeypatch.setenv("TERM", "dumb")
    assert not console.use_colour(sys.stdout)


def test_quiet_and_verbose(convdsl, small: Path) -> None:
    assert "checked, nothing found" in convdsl("check", small).err
    assert convdsl("check", small, "--quiet").err == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5", "resnet5 is neither a file nor a model of the zoo; did you mean resnet50?"),
        ("xyzzy", "xyzzy is neither a file nor a model of the zoo"),
        ("smal.cnn", "there is no file smal.cnn; did you mean small.cnn?"),
        ("small.cnn:big", "there is no model `big`"),
        (".", ". is a folder; name a file: sized.cnn, small.cnn, two.cnn"),
        ("nul\0byte", "nul"),
    ],
)
def test_models_that_are_not_there(
    convdsl, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(folder)
    for command in (["report"], ["compile"], ["run", "--data", "random:0"], ["bench"]):
        said = convdsl(*command, name)
        assert said.code == 2
        assert message in said.err
        assert "bug" not in said.err
