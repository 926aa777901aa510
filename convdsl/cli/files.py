"""Where commands read and write: paths as they are given, and names that promise another kind."""

from __future__ import annotations

from pathlib import Path

from convdsl.diagnostics import InputError


def plain_path(text: str) -> Path:
    """A path from the command line; a NUL byte cannot be part of one."""
    if "\0" in text:
        raise InputError("a path cannot hold a NUL byte")
    return Path(text)


_ENDS = {
    ".cnn": "a network",
    ".onnx": "an ONNX model",
    ".cdsl": "an artifact",
    ".safetensors": "weights",
    ".pt": "a checkpoint",
    ".pth": "a checkpoint",
    ".npy": "an array",
    ".npz": "arrays",
    ".tflite": "a model of LiteRT",
    ".pb": "a model of TensorFlow",
    ".h5": "a model of Keras",
    ".keras": "a model of Keras",
    ".mlmodel": "a model of Core ML",
    ".engine": "a model of TensorRT",
    ".plan": "a model of TensorRT",
}


_OTHER_ENDS = {
    ".txt": "a text",
    ".md": "a text",
    ".log": "a text",
    ".json": "JSON",
    ".csv": "a table",
    ".tsv": "a table",
    ".toml": "settings",
    ".yaml": "settings",
    ".yml": "settings",
    ".py": "a program",
    ".ipynb": "a notebook",
    ".html": "a page",
    ".pdf": "a document",
    ".svg": "an image",
    ".png": "an image",
    ".jpg": "an image",
    ".jpeg": "an image",
    ".zip": "an archive",
    ".tar": "an archive",
    ".gz": "an archive",
    ".so": "a library",
    ".dll": "a library",
    ".dylib": "a library",
}


def path_of(what: str, text: str, *ends: str, is_said: bool = False) -> Path:
    """Where something is written. InputError where a name says that something else is there, which
    would be lost: a network, weights, data; and, of what has an ending of its own, where it has
    that of another kind, unless the kind `is_said` beside the name."""
    path = plain_path(text)
    if text == "-":
        raise InputError(f"{what} is not for the standard output: name a file, ./- is one")
    if text.endswith("/"):
        raise InputError(f"{text} is a folder: name the file in it")
    end = path.suffix.lower()
    known = _ENDS | _OTHER_ENDS if ends and not is_said else _ENDS
    if end in known and end not in ends:
        other = f"; end it with {ends[0]}" if ends else ""
        raise InputError(f"{text} is called like {known[end]}, and {what} would be written{other}")
    return path


def place_of(what: str, text: str, *ends: str, is_said: bool = False) -> Path:
    """The same, and InputError where no file can come to be: before the work that it is for."""
    from convdsl.runtime.whole_files import check_place, told_of

    path = path_of(what, text, *ends, is_said=is_said)
    with told_of(path):
        check_place(path)
    return path
