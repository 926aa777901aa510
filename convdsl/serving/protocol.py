"""The Open Inference Protocol, version 2: what requests say, and how answers are written.

A request names its tensors, each with `shape`, `datatype` and `data`, nested or flat. With the
binary extension the numbers of a tensor follow the JSON instead, row by row and little-endian,
`binary_data_size` bytes each; the header Inference-Header-Content-Length says where the JSON ends.
The classification extension answers with the likeliest classes, "score:index:label".

Numbers that JSON has none of are "NaN", "Infinity" and "-Infinity", as protobuf writes them; the
same words without quotes, as Python writes them, are read too. What is too large for a type is
infinite. (kserve.github.io/website, Open Inference Protocol; Triton's protocol extensions.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from convdsl.serving import json_text
from convdsl.serving.elements import from_binary, from_json, images_of, to_binary, to_json
from convdsl.serving.limits import Limits, Refusal, quoted
from convdsl.spelling import nearest, those
from convdsl.tensor import DType, TensorType

Array: TypeAlias = "npt.NDArray[Any]"

DATATYPES: Mapping[DType, str] = {
    DType.BOOL: "BOOL",
    DType.U8: "UINT8",
    DType.U32: "UINT32",
    DType.I8: "INT8",
    DType.I32: "INT32",
    DType.I64: "INT64",
    DType.F16: "FP16",
    DType.BF16: "BF16",
    DType.F32: "FP32",
    DType.F64: "FP64",
}
"""What the protocol calls our element types."""

BYTES = "BYTES"
"""Strings: files of images as inputs, classes as outputs."""

_KINDS = (
    (type(None), "missing"),
    (dict, "an object"),
    (list, "a list"),
    (str, "a string"),
    (bool, "a truth value"),
)
"""Values of JSON, in messages."""

EXTENSIONS = ("binary_tensor_data", "classification")
HEADER_LENGTH = "Inference-Header-Content-Length"


class Interface(Protocol):
    """What requests are held against."""

    @property
    def inputs(self) -> Mapping[str, TensorType]: ...

    @property
    def outputs(self) -> Mapping[str, TensorType]: ...

    @property
    def image_input(self) -> str | None:
        """The input that takes files of images, where there is one."""
        ...

    @property
    def labels(self) -> tuple[str, ...] | None: ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output that is asked for; `classes`: only the so many likeliest."""

    name: str
    binary: bool = False
    classes: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked: arrays by input, or images for the one input that takes them."""

    id: str | None
    arrays: Mapping[str, Array]
    images: tuple[bytes, ...]
    outputs: tuple[Wanted, ...]


def parse(body: bytes, header_length: str | None, model: Interface, limits: Limits) -> Request:
    """What a request says. Raises Refusal, which says what is wrong with it."""
    head, rest = _parts(body, header_length)
    try:
        return _request(json_text.read_quickly(head), rest, model, limits)
    except (ValueError, RecursionError, Refusal):  # what it is the other reader says
        return _request(_read_json(head), rest, model, limits)


def _request(body: Any, rest: memoryview, model: Interface, limits: Limits) -> Request:
    said = _object("the body", body)
    id = said.get("id")
    if id is not None and not isinstance(id, str):
        raise Refusal(400, "`id` is no string")
    asked = _object("`parameters`", said.get("parameters", {}))
    inputs = _list("`inputs`", said.get("inputs"))
    if not inputs:
        raise Refusal(400, "`inputs` is empty")
    if len(inputs) > limits.tensors:
        raise Refusal(400, f"{len(inputs)} inputs, at most {limits.tensors}")
    binary = _Binary(rest)
    arrays: dict[str, Array] = {}
    images: tuple[bytes, ...] = ()
    for number, entry in enumerate(inputs):
        tensor = _object(f"`inputs[{number}]`", entry)
        name = _name(tensor, f"inputs[{number}]", model.inputs, "input")
        if name in arrays or (images and name == model.image_input):
            raise Refusal(400, f"input `{name}` is given twice")
        if tensor.get("datatype") == BYTES:
            images = _images(tensor, name, model, binary, limits)
        else:
            arrays[name] = _array(tensor, name, model.inputs[name], binary)
    binary.finish()
    given = {*arrays, *([model.image_input] if images else [])}
    missing = [name for name in model.inputs if name not in given]
    if missing:
        raise Refusal(400, f"inputs not given: {', '.join(missing)}")
    everything = _flag("binary_data_output", asked) or False
    return Request(id, arrays, images, _outputs(said.get("outputs"), everything, model, limits))


def answer(
    said: Mapping[str, Any], request: Request, results: Mapping[str, Array], model: Interface
) -> tuple[list[bytes], dict[str, str]]:
    """The parts of a body, and its headers. `said` stands before the outputs."""
    parts: list[bytes] = []
    rows: list[dict[str, Any]] = []
    for wanted in request.outputs:
        array, dtype = results[wanted.name], model.outputs[wanted.name].dtype
        datatype, data = DATATYPES[dtype], array
        if wanted.classes:
            datatype, data = BYTES, _classes(array, dtype, wanted.classes, model.labels)
        row: dict[str, Any] = {"name": wanted.name, "datatype": datatype, "shape": [*data.shape]}
        if wanted.binary:
            parts.append(to_binary(data))
            row["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            row["data"] = to_json(data, dtype)
        rows.append(row)
    head = {**said, **({} if request.id is None else {"id": request.id}), "outputs": rows}
    text = json.dumps(head, separators=(",", ":"), allow_nan=False).encode()
    if not parts:
        return [text], {"content-type": "application/json"}
    headers = {"content-type": "application/octet-stream", HEADER_LENGTH.lower(): str(len(text))}
    return [text, *parts], headers


# Reading


def _parts(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    """The JSON, and what follows it."""
    if header_length is None:
        return body, memoryview(b"")
    if not (header_length.isascii() and header_length.isdigit() and len(header_length) < 16):
        raise Refusal(400, f"{HEADER_LENGTH} is {quoted(header_length)}, no number of bytes")
    end = int(header_length)
    if end > len(body):
        raise Refusal(400, f"{HEADER_LENGTH} is {end}, but the body has {len(body)} bytes")
    return body[:end], memoryview(body)[end:]


def _read_json(text: bytes) -> Any:
    try:
        return json_text.read(text)
    except RecursionError:
        raise Refusal(400, "the body is nested too deep") from None
    except UnicodeDecodeError as error:
        hint = f" (binary tensors need {HEADER_LENGTH})"
        raise Refusal(400, f"the body is no UTF-8 at byte {error.start}{hint}") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Refusal(400, f"the body is no JSON: {error.msg} at {where}") from None
    except ValueError:  # a number of thousands of digits
        raise Refusal(400, "the body has a number that is too long") from None


def _object(what: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refusal(400, f"{what} is {_kind(value)}, not an object")
    return cast("dict[str, Any]", value)


def _list(what: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Refusal(400, f"{what} is {_kind(value)}, not a list")
    return cast("list[Any]", value)


def _kind(value: Any) -> str:
    for kind, said in _KINDS:
        if isinstance(value, kind):
            return said
    return "a number"


def _name(tensor: Mapping[str, Any], where: str, there: Mapping[str, Any], what: str) -> str:
    name = tensor.get("name")
    if not isinstance(name, str):
        raise Refusal(400, f"`{where}.name` is {_kind(name)}, not a string")
    if name not in there:
        near = nearest(quoted(name), there)
        hint = f"did you mean {near}?" if near else those(there)
        raise Refusal(400, f"no {what} `{quoted(name)}`; {hint}")
    return name


def _flag(name: str, parameters: Mapping[str, Any]) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise Refusal(400, f"parameter `{name}` is {_kind(value)}, not true or false")
    return value


class _Binary:
    """What follows the JSON, taken tensor by tensor."""

    def __init__(self, rest: memoryview) -> None:
        self._rest, self._at = rest, 0

    def take(self, what: str, parameters: Mapping[str, Any]) -> memoryview | None:
        """The bytes of a tensor; None where they are in the JSON."""
        size = parameters.get("binary_data_size")
        if size is None:
            return None
        if type(size) is not int or size < 0:
            raise Refusal(400, f"binary_data_size of {what} is no number of bytes")
        left = len(self._rest) - self._at
        if size > left:
            raise Refusal(400, f"{what} has binary_data_size {size}, but {left} bytes follow")
        self._at += size
        return self._rest[self._at - size : self._at]

    def finish(self) -> None:
        left = len(self._rest) - self._at
        if left:
            raise Refusal(400, f"{left} bytes follow the last tensor")


def _shape(tensor: Mapping[str, Any], what: str) -> tuple[int, ...]:
    shape = _list(f"the shape of {what}", tensor.get("shape"))
    if any(type(size) is not int or not 0 <= size < 1 << 40 for size in shape):
        raise Refusal(400, f"the shape of {what} is {quoted(shape)}: sizes are whole numbers")
    if len(shape) > 32:
        raise Refusal(400, f"{what} has {len(shape)} axes, at most 32")
    return tuple(shape)


def _data(
    tensor: Mapping[str, Any], what: str, binary: _Binary
) -> tuple[memoryview | None, list[Any]]:
    """The bytes of a tensor, or else its elements as JSON has them."""
    parameters = _object(f"the parameters of {what}", tensor.get("parameters", {}))
    if "shared_memory_region" in parameters:
        raise Refusal(400, f"{what} lies in shared memory, which is not offered")
    raw = binary.take(what, parameters)
    if raw is not None and "data" in tensor:
        raise Refusal(400, f"{what} has both `data` and binary_data_size")
    return raw, [] if raw is not None else _list(f"the data of {what}", tensor.get("data"))


def _array(tensor: Mapping[str, Any], name: str, type: TensorType, binary: _Binary) -> Array:
    what = f"input `{name}`"
    wanted, found = DATATYPES[type.dtype], tensor.get("datatype")
    if found != wanted:
        said = "missing" if found is None else quoted(found)
        raise Refusal(400, f"the datatype of {what} is {said}, the model takes {wanted}")
    shape = _shape(tensor, what)
    if len(shape) != type.rank or any(
        isinstance(extent, int) and n > 0 and extent != size
        for n, (size, extent) in enumerate(zip(shape, type.shape, strict=True))
    ):
        raise Refusal(400, f"{what} has shape {list(shape)}, expected {type}")
    raw, listed = _data(tensor, what, binary)
    if raw is not None:
        return from_binary(raw, shape, type.dtype, what)
    return from_json(listed, shape, type.dtype, what)


def _images(
    tensor: Mapping[str, Any], name: str, model: Interface, binary: _Binary, limits: Limits
) -> tuple[bytes, ...]:
    what = f"input `{name}`"
    if name != model.image_input:
        wanted = DATATYPES[model.inputs[name].dtype]
        hint = "" if model.image_input else ": the model does not say how images become inputs"
        raise Refusal(400, f"the datatype of {what} is BYTES, the model takes {wanted}{hint}")
    shape = _shape(tensor, what)
    if len(shape) not in (1, 2) or shape[1:] not in ((), (1,)) or not shape[0]:
        raise Refusal(400, f"{what} has shape {list(shape)}, expected [N] of images")
    if shape[0] > limits.images:
        raise Refusal(400, f"{shape[0]} images, at most {limits.images} in a request")
    raw, listed = _data(tensor, what, binary)
    return images_of(raw, listed, shape[0], what)


def _outputs(said: Any, everything: bool, model: Interface, limits: Limits) -> tuple[Wanted, ...]:
    asked = [] if said is None else _list("`outputs`", said)
    if len(asked) > limits.tensors:
        raise Refusal(400, f"{len(asked)} outputs, at most {limits.tensors}")
    found: dict[str, Wanted] = {}
    for number, entry in enumerate(asked):
        tensor = _object(f"`outputs[{number}]`", entry)
        name = _name(tensor, f"outputs[{number}]", model.outputs, "output")
        if name in found:
            raise Refusal(400, f"output `{name}` is asked for twice")
        parameters = _object(f"the parameters of {name}", tensor.get("parameters", {}))
        if "shared_memory_region" in parameters:
            raise Refusal(400, f"output `{name}` in shared memory is not offered")
        binary = _flag("binary_data", parameters)
        classes = parameters.get("classification", 0)
        if type(classes) is not int or classes < 0:
            raise Refusal(400, f"classification of `{name}` is no number of classes")
        found[name] = Wanted(name, everything if binary is None else binary, classes)
    return tuple(found.values()) or tuple(Wanted(name, everything) for name in model.outputs)


def _classes(
    array: Array, dtype: DType, count: int, labels: Sequence[str] | None
) -> npt.NDArray[np.object_]:
    """Of each sample the highest scores, "score:index:label", the highest first."""
    rows = array.reshape(len(array), -1) if array.ndim > 1 else array.reshape(1, -1)
    scores = np.asarray(to_json(rows, dtype), np.float64).reshape(rows.shape)
    count = min(count, rows.shape[1])
    named = labels if labels is not None and len(labels) == rows.shape[1] else None
    made = np.empty((len(rows), count), object)
    for row, line in enumerate(scores):
        order = np.argsort(-line, kind="stable")[:count]
        made[row] = [
            f"{line[i]:f}:{i}" + (f":{named[i]}" if named is not None else "") for i in order
        ]
    return made if array.ndim > 1 else made[0]
