"""A network for engines that spread data over processes: Ray Data, Spark, Dask, multiprocessing.

A `Predictor` is pickled as what it was made from: a path, weights, numbers. Each process that uses
it opens its artifact, or compiles its model, once. Samples are computed in batches of one size, the
last filled up, so that results do not depend on how an engine cuts its data: they are, to the bit,
those of the network called with batches of that size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from convdsl.calling import suggests
from convdsl.diagnostics import InputError, expect
from convdsl.forking import open_lock
from convdsl.kernel.signature import array_of, whole
from convdsl.spelling import nearest
from convdsl.tensor import TensorType

if TYPE_CHECKING:
    from convdsl.preprocessing import Picture
    from convdsl.runtime.executable import Executable

Array: TypeAlias = "npt.NDArray[Any]"
Columns: TypeAlias = "Mapping[str, Any]"
"""Columns of equal length by name, as engines hand out rows."""

MOST_OPEN = 4
"""Networks that a process keeps, those used last."""


class Predictor:
    """A network that can be sent to other processes.

        predictor = convdsl.Predictor("resnet50.cdsl", batch=8)
        logits = predictor(images)                            # [n, 3, 224, 224] -> [n, 1000]
        rows.map_batches(predictor.label)                     # Ray Data: bytes of images -> classes
        frame.mapInPandas(predictor.labels_of_frames, schema) # Spark

    model: an artifact, a .cnn file, a name of the zoo; files must be there where a process runs.
    weights, parameters: as for `compile` and `load`. batch: samples at once, 1 unless said. Of an
    artifact it is the most: the largest batch that there is code for and that is no more is taken;
    where none is said, its smallest.
    threads: of each process, 1 by default, as engines start a process for each processor.
    """

    @suggests
    def __init__(
        self,
        model: str | Path,
        weights: str | Path | None = None,
        *,
        batch: int | None = None,
        threads: int | None = 1,
        device: str | None = None,
        cpu: str = "native",
        **parameters: Any,
    ) -> None:
        expect("the model", model, str, Path)
        expect("the weights", weights or "", str, Path)
        self.model = _whole_path(model)
        self.weights = None if weights is None else _whole_path(weights)
        self.batch = 1 if batch is None else whole("the batch", batch)
        self._said = batch is not None
        if self.batch < 1:
            raise InputError(f"a batch of {batch}: at least one sample is needed")
        self.threads, self.device, self.cpu = threads, device, cpu
        self.parameters = parameters

    def __repr__(self) -> str:
        weights = "" if self.weights is None else f", {self.weights!r}"
        return f"Predictor({self.model!r}{weights}, batch={self.batch}, threads={self.threads})"

    def open(self) -> Executable:
        """The network, as this process has it. Raises convdsl.Error where it cannot be made."""
        said = (self.weights, self.threads, self.device, self.cpu, sorted(self.parameters.items()))
        key = repr((self.model, _stamp(self.model), _stamp(self.weights or ""), *said))
        with _lock:
            found = _opened.pop(key, None)
            if found is None:
                found = self._made()
            _opened[key] = found
            while len(_opened) > MOST_OPEN:
                del _opened[next(iter(_opened))]
            return found

    def _made(self) -> Executable:
        from convdsl.runtime.saved import is_artifact, load_executable

        if not is_artifact(self.model):
            from convdsl import driver, loading

            model = loading.load(self.model, **self.parameters)
            return driver.compile(
                model, self.weights, threads=self.threads, cpu=self.cpu, device=self.device
            )
        said = {"weights": self.weights is not None, "cpu": self.cpu != "native"}
        given = [name for name, is_said in said.items() if is_said] + [*self.parameters]
        if given:
            near = nearest(given[0], ("batch", "threads", "device"))
            meant = "" if near is None else f"; did you mean {near}?"
            raise InputError(
                f"{self.model} is compiled already, and takes no {', '.join(given)}: its weights "
                f"and parameters are in it{meant}"
            )
        return load_executable(self.model, self.threads, self.device)

    # Arrays

    def __call__(self, *arrays: Array, **named: Array) -> Any:
        """As the network itself is called, on any number of samples."""
        made = self.by_name(*arrays, **named)
        return next(iter(made.values())) if len(made) == 1 else made

    def by_name(self, *arrays: Array, **named: Array) -> dict[str, Array]:
        """The same, with outputs by name where there is only one, too."""
        network = self.open()
        given = dict(zip(network.inputs, arrays, strict=False)) | named
        at_once = len(arrays) + len(named) == len(given) and given.keys() == network.inputs.keys()
        if not network.samples_apart or not at_once:
            return network.by_name(*arrays, **named)  # which says what is missing or too much
        given = {name: _array(network, name, value) for name, value in given.items()}
        if any(array.ndim != network.inputs[name].rank for name, array in given.items()):
            return network.by_name(**given)  # which says what is wrong with it
        count = _count(given)
        size = self._batch(network)
        if not count:
            return _of_none(network, given, size)
        if count <= size:
            return _run(network, given, size)
        parts = [
            _run(network, {name: a[at : at + size] for name, a in given.items()}, size)
            for at in range(0, count, size)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _batch(self, network: Executable) -> int:
        """Samples at once: of what an artifact has code for the largest that is no more than said.
        InputError where there is none."""
        first = next(iter(network.inputs.values())).shape[0]
        open = {size.get(str(first)) for size in network.sizes} - {None}
        there = [first] if isinstance(first, int) else sorted(map(int, filter(None, open)))
        fitting = [size for size in there or [self.batch] if size <= self.batch]
        if not fitting and self._said:
            own = " and ".join(map(str, there))
            raise InputError(
                f"batch={self.batch}: {self.model} has code for batches of {own} alone\n"
                "help: leave out batch, or compile for it (`convdsl compile --batch "
                f"{self.batch}`)"
            )
        return (fitting[-1:] or there)[0]

    # Columns

    @suggests
    def columns(self, rows: Columns) -> dict[str, Any]:
        """Columns called as the inputs go in; the outputs come as columns besides the others."""
        network = self.open()
        missing = [name for name in network.inputs if name not in rows]
        if missing:
            raise InputError(f"no column {', '.join(missing)}; there are {', '.join(rows)}")
        _check_lengths(rows)
        given = {name: _stacked(rows[name]) for name in network.inputs}
        made = self.by_name(**given)
        _refuse_same(rows, made)
        return {**{name: rows[name] for name in rows if name not in given}, **made}

    @suggests
    def classify(self, images: Sequence[Picture], top: int = 5) -> list[Any]:
        """Of each image, a path or the bytes of a file, the likeliest classes as `convdsl classify`
        has them: {`index`, `label`, `probability`}."""
        from convdsl.classification import Classifier

        if isinstance(images, str | bytes | bytearray | Path):  # pyright: ignore[reportUnnecessaryIsInstance]
            text = isinstance(images, str | Path)  # pyright: ignore[reportUnnecessaryIsInstance]
            said = repr(str(images)) if text else "the bytes of one image"
            raise InputError(f"classify takes a list of images, and {said} is one: put it in [...]")
        network = self.open()
        classifier, size = Classifier(network), self._batch(network)
        if network.sizes:
            name = str(next(iter(network.inputs.values())).shape[0])
            chosen = next((s for s in network.sizes if s.get(name) == size), network.sizes[0])
            classifier = Classifier(network, chosen)
        answers: list[Any] = []
        for at in range(0, len(images), size):
            answers += classifier.top(images[at : at + size], top, fill=size)
        return answers

    @suggests
    def label(self, rows: Columns, image: str = "bytes", top: int = 1) -> dict[str, Any]:
        """The column of images (bytes of files, or paths) becomes `index`, `label`, `probability`
        of the likeliest class; of more than one, each a list a row."""
        if image not in rows:
            raise InputError(f"no column {image}; there are {', '.join(rows)}")
        _check_lengths(rows)
        images: list[Any] = [
            value if isinstance(value, bytes | str | Path) else bytes(value)
            for value in rows[image]
        ]
        found = self.classify(images, top)
        made: dict[str, Any] = {}
        for name in ("index", "label", "probability"):
            lists = [[one[name] for one in row] for row in found]
            made[name] = np.asarray([row[0] for row in lists] if top == 1 else lists)
        made["label"] = made["label"].astype(object)
        _refuse_same(rows, made)
        return {**{name: rows[name] for name in rows if name != image}, **made}

    def labels_of_frames(
        self, frames: Iterable[Any], image: str = "bytes", top: int = 1
    ) -> Iterator[Any]:
        """`label` of each of several pandas frames: what Spark's mapInPandas calls."""
        for frame in frames:
            yield _frame_like(frame, self.label(_columns_of(frame), image, top))

    def frames(self, frames: Iterable[Any]) -> Iterator[Any]:
        """`columns` of each of several pandas frames."""
        for frame in frames:
            yield _frame_like(frame, self.columns(_columns_of(frame)))


_opened: dict[str, Executable] = {}
_lock = open_lock()


def _whole_path(text: str | Path) -> str:
    """A file as processes find it that run in other folders; what is none stays."""
    said = str(text)
    path, colon, name = said.rpartition(":")
    for file, rest in ((said, ""), (path, f"{colon}{name}")):
        if "\0" not in file and file and Path(file).is_file():
            return f"{Path(file).absolute()}{rest}"
    return said


def _stamp(path: str) -> tuple[int, ...]:
    """Tells a file from what was there before."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _count(given: Mapping[str, Array]) -> int:
    """Samples in all inputs."""
    counts = {name: len(a) for name, a in given.items()}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise InputError(f"inputs of different batches: {said}")
    return next(iter(counts.values()), 0)


def _run(network: Executable, given: Mapping[str, Array], size: int) -> dict[str, Array]:
    """A batch, filled up with its last sample."""
    count = _count(given)
    filled = {
        name: np.concatenate([a, np.repeat(a[-1:], size - count, axis=0)]) if count < size else a
        for name, a in given.items()
    }
    return {name: a[:count] for name, a in network.by_name(**filled).items()}


def _array(network: Executable, name: str, value: Any) -> Array:
    """What is given for an input as an array. InputError where it is none of the input's type."""
    made = array_of(f"input `{name}`", value)
    wanted = np.dtype(network.inputs[name].dtype.numpy)
    if not isinstance(value, np.ndarray) and made.ndim and made.dtype != wanted:
        raise InputError(
            f"input `{name}` is a {type(value).__name__}, of which NumPy makes {made.dtype}, and "
            f"the model takes {wanted}: np.asarray(..., '{wanted}')"
        )
    return made


def _of_none(network: Executable, given: Mapping[str, Array], size: int) -> dict[str, Array]:
    """The outputs of no samples, as empty parts of a data set have: of arrays that a batch of would
    be taken. Raises InputError."""
    network.bind({name: (size, *a.shape[1:]) for name, a in given.items()})
    return {name: _nothing(name, type) for name, type in network.outputs.items()}


def _nothing(name: str, type: TensorType) -> Array:
    """The output of no samples, as empty parts of a data set have."""
    sizes = [extent for extent in type.shape[1:] if isinstance(extent, int)]
    if len(sizes) < type.rank - 1:
        raise InputError(f"no samples, and {name} has no size of its own: {type}")
    return np.empty((0, *sizes), type.dtype.numpy)


def _stacked(column: Any) -> Array:
    """A column of arrays, or of arrays of arrays as Spark has them, as one."""
    array = np.asarray(column)
    if array.dtype != object or not array.ndim:
        return array
    return np.stack([_stacked(value) for value in array])


def _check_lengths(rows: Columns) -> None:
    """InputError where columns are not a value for each row: results would stand beside others."""
    counts = {name: np.shape(rows[name])[0] if np.ndim(rows[name]) else None for name in rows}
    if len(set(counts.values())) > 1 or None in counts.values():
        said = ", ".join(
            f"{name} is one value" if count is None else f"{name} has {count}"
            for name, count in counts.items()
        )
        raise InputError(f"columns of different lengths: {said}; each holds a value for each row")


def _refuse_same(rows: Columns, made: Columns) -> None:
    same = [name for name in made if name in rows]
    if same:
        raise InputError(f"columns are called as the results are: {', '.join(same)}; rename them")


def _columns_of(frame: Any) -> dict[str, Array]:
    return {str(name): frame[name].to_numpy() for name in frame}


def _frame_like(frame: Any, columns: Columns) -> Any:
    """A frame of the same kind; arrays of more axes become a list of arrays."""
    flat = {name: list(c) if np.ndim(c) > 1 else c for name, c in columns.items()}
    return type(frame)(flat)
