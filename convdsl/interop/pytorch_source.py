"""A graph as the source of a plain `nn.Module`, whose state dict has the graph's own keys.

Layers with weights are modules under their own names: a dotted path becomes nested modules. All
else is called where it happens, in `forward`.
"""

from __future__ import annotations

import ast
import base64
import keyword
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from convdsl.diagnostics import InputError
from convdsl.interop.cnn_model import computed_operands, owned_operands
from convdsl.interop.correspondence import row_of
from convdsl.interop.correspondence.wording import (
    Lacking,
    Wording,
    keywords,
    listed,
    text,
    torch_dtype,
)
from convdsl.ir.graph import OpNode, StateNode, Value
from convdsl.ir.model import Model
from convdsl.ir.opdef import Role
from convdsl.tensor import DType, SymDim
from convdsl.tensor.conversion import widen_bf16

INDENT = "    "

_OWN = {"self", "torch", "nn", "functional", "Tensor", "min", "max", "base64", "_tensor"}
"""Names that the source means something else by than an input, a layer or a size."""

_LONGEST = 64
"""Elements of a constant that stands where it is used, digit by digit."""

_LARGEST = 1 << 20
"""Elements of a constant whose bytes stand in the source: some 6 MB of text."""

_DECODER = [
    "",
    "",
    "def _tensor(data: str, dtype: torch.dtype, *shape: int) -> Tensor:",
    f'{INDENT}"""A constant by its bytes, of which the lowest come first."""',
    f"{INDENT}held = bytearray(base64.b64decode(data))",
    f"{INDENT}return torch.frombuffer(held, dtype=dtype).reshape(shape)",
]
"""What the source needs where it has constants by their bytes."""


def source(model: Model) -> str:
    """The text of a Python file. Raises InputError for what PyTorch cannot say: `Lacking` for a
    configuration that an operator's row names."""
    return _Module(model).text()


@dataclass
class _Names:
    """Python names for values, each used once."""

    taken: set[str] = field(default_factory=set)

    def new(self, wanted: str) -> str:
        plain = re.sub(r"\W", "_", wanted)
        plain = f"_{plain}" if plain[:1].isdigit() or keyword.iskeyword(plain) else plain
        name, count = plain, 1
        while name in self.taken:
            count += 1
            name = f"{plain}_{count}"
        self.taken.add(name)
        return name


class _Module:
    def __init__(self, model: Model) -> None:
        self.model = model
        self.names: dict[Value, str] = {}
        self.open = _free_sizes(model)
        for name in sorted(self.open & _OWN | {n for n in self.open if keyword.iskeyword(n)}):
            raise InputError(f"the size {name} is called as something that PyTorch source needs")
        self.free = _Names(_OWN | self.open)
        self.tree: dict[str, Any] = {}
        self.constants: dict[str, str] = {}
        self.large: dict[str, str] = {}  # buffers for constants by their bytes, by what they are

    def text(self) -> str:
        graph = self.model.graph
        arguments: list[str] = []
        for name, value in graph.inputs.items():
            self.names[value] = self.free.new(name)
            arguments.append(f"{self.names[value]}: Tensor")
        self._constants()
        for node in graph.op_nodes():
            if _is_loose(node):
                self._loose_states(node)
                continue
            made = None if self._is_said(node) else self._construction(node)
            if made is not None:
                for size in sorted(self.open & _names_in(made)):
                    raise InputError(
                        f"the size {size} is free, and {node.name} is made before it is known"
                    )
                self._add(_path(node), made)
        body = [self._statement(node) for node in graph.op_nodes() if not self._is_said(node)]
        results = [self.names[value] for value in graph.outputs.values()]
        single = len(results) == 1
        returns = "Tensor" if single else "tuple[" + ", ".join("Tensor" for _ in results) + "]"
        name = "".join(part.capitalize() for part in re.split(r"[\W_]+", self.model.name))
        made = (*self._setup(), *self._fixed(), *self.constants.values())
        made += tuple(
            f'self.register_buffer("{name}", {said}, persistent=False)'
            for said, name in self.large.items()
        )
        setup = [INDENT * 2 + line for line in made]
        by_bytes = any("_tensor(" in line for line in setup)
        lines = [
            f'"""{self.model.name}, written by convdsl."""',
            "",
            *(["import base64", ""] if by_bytes else []),
            "import torch",
            "from torch import Tensor, nn",
            "from torch.nn import functional",
            *(_DECODER if by_bytes else []),
            "",
            "",
            f"class {name or 'Network'}(nn.Module):",
            f"{INDENT}def __init__(self) -> None:",
            f"{INDENT * 2}super().__init__()",
            *setup,
            "",
            f"{INDENT}def forward(self, {', '.join(arguments)}) -> {returns}:",
            *(INDENT * 2 + line for line in (*self._sizes(body), *body)),
            f"{INDENT * 2}return {', '.join(results)}",
        ]
        return "\n".join(lines) + "\n"

    def _construction(self, node: OpNode) -> str | None:
        """The module of a layer, where it is one. Raises Lacking with the layer's name."""
        try:
            return row_of(node.op, node.name).pytorch.construction(Wording(node.call, {}))
        except Lacking as error:
            raise Lacking(f"{node.name}: {error}") from None

    # What is set up

    def _constants(self) -> None:
        """Weights on their own are parameters; constants are buffers outside the state dict."""
        owned = {
            value
            for node in self.model.graph.op_nodes()
            for key, value in node.inputs.items()
            if any(o.name == key and o.role is not Role.DATA for o in node.op.operands)
        }
        for key, node in self.model.graph.states.items():
            if node.output in owned:
                continue
            if node.data is not None:
                self.names[node.output] = self._constant(node)
                continue
            if "." in key or not key.isidentifier():
                raise InputError(f"the weight {key} stands on its own and cannot be an attribute")
            shape = ", ".join(map(str, node.type.shape))
            self.constants[key] = f"self.{key} = nn.Parameter(torch.zeros({shape}))"
            self.names[node.output] = f"self.{key}"

    def _constant(self, node: StateNode) -> str:
        """A constant where it is used: a large one is a buffer that the state dict leaves out."""
        said = constant(node)
        if not said.startswith("_tensor("):
            return said
        if said not in self.large:
            graph = self.model.graph
            named = (*graph.states, *(node.name for node in graph.op_nodes()))
            taken = {*(name.partition(".")[0] for name in named), *self.large.values()}
            self.large[said] = next(
                name for n in count(1) if (name := f"constant_{n}") not in taken
            )
        return f"self.{self.large[said]}"

    def _loose_states(self, node: OpNode) -> None:
        """A layer without a module: the weights that it has of its own are parameters."""
        if row_of(node.op, node.name).pytorch.loose is None:
            raise InputError(
                f"{node.name} has weights that are computed, and {node.op.name} is written for "
                "PyTorch as a module, which has its own"
            )
        for operand in owned_operands(node):
            state = node.inputs[operand].node
            assert isinstance(state, StateNode)
            if state.data is None:
                shape = ", ".join(map(str, state.type.shape))
                dtype = keywords(("dtype", torch_dtype(state.type.dtype), "torch.float32"))
                self._add(state.name, f"nn.Parameter(torch.zeros({shape}{dtype}))")

    def _add(self, path: str, made: str) -> None:
        place: Any = self.tree
        *scopes, last = path.split(".")
        for part in scopes:
            place = place.setdefault(part, {})
            if isinstance(place, str):
                raise InputError(f"{path} lies inside another layer")
        if last in place and place[last] != made:
            raise InputError(f"two layers are called {path}")
        place[last] = made

    def _setup(self) -> list[str]:
        lines: list[str] = []
        for name, made in self.tree.items():
            if not _is_plain(name):
                raise InputError(f"{name} cannot be an attribute of a module")
            self._assign(f"self.{name}", made, lines)
        return lines

    def _assign(self, place: str, made: Any, lines: list[str]) -> None:
        """A module, or a container of modules; one with numbers for names is a ModuleDict."""
        if isinstance(made, str):
            lines.append(f"{place} = {made}")
            return
        inner: dict[str, Any] = made
        lines.append(f"{place} = {'nn.Module()' if _all_plain(inner) else 'nn.ModuleDict()'}")
        for key, value in inner.items():
            path = f"{place}.{key}" if _all_plain(inner) else f'{place}["{key}"]'
            if not _all_plain(inner) and _is_parameter(value):  # no module, as ModuleDict wants
                lines.append(f'{place}.register_parameter("{key}", {value})')
            else:
                self._assign(path, value, lines)

    def _fixed(self) -> list[str]:
        """Weights of layers that are in the text: buffers that the state dict leaves out."""
        lines: list[str] = []
        for node in self.model.graph.op_nodes():
            made = row_of(node.op, node.name).pytorch.layer is not None
            if not made or _is_loose(node) or self._is_said(node):
                continue
            layer = self._access(_path(node))
            for operand in node.op.operands:
                state = node.inputs[operand.name].node if operand.name in node.inputs else None
                if isinstance(state, StateNode) and state.data is not None:
                    if operand.role is Role.DATA:
                        continue
                    given = f'"{operand.name}", {constant(state)}, persistent=False'
                    lines += [f"del {layer}.{operand.name}", f"{layer}.register_buffer({given})"]
        return list(dict.fromkeys(lines))

    def _access(self, path: str) -> str:
        """`self.layer1["0"].conv1`."""
        called, place = "self", self.tree
        for part in path.split("."):
            plain = _all_plain(place) or called == "self"
            place = place[part]
            if plain:
                called += f".{part}"
            else:
                called += f'.get_parameter("{part}")' if _is_parameter(place) else f'["{part}"]'
        return called

    # What is called

    def _sizes(self, body: Sequence[str]) -> list[str]:
        """Free sizes that statements mention, by the first axis of an argument that is one."""
        lines: list[str] = []
        used = set[str]().union(*map(_names_in, body)) & self.open
        for value in self.model.graph.inputs.values():
            for axis, size in enumerate(value.type.shape):
                alone = size.alone if isinstance(size, SymDim) else None
                if alone is not None and alone.name in used:
                    used.remove(alone.name)
                    lines.append(f"{alone.name} = {self.names[value]}.shape[{axis}]")
        for name in sorted(used):
            raise InputError(f"the size {name} is free, and no input has an axis of that size")
        return lines

    def _is_said(self, node: OpNode) -> bool:
        """Constants stand where they are used."""
        weight = node.inputs.get("weight")
        state = weight.node if node.op.name == "parameter" and weight is not None else None
        if not isinstance(state, StateNode) or state.data is None:
            return False
        self.names[node.outputs[0]] = self._constant(state)
        return True

    def _statement(self, node: OpNode) -> str:
        pytorch = row_of(node.op, node.name).pytorch
        if _is_loose(node):
            assert pytorch.loose is not None
            called = pytorch.loose(Wording(node.call, self._loose_operands(node)))
        else:
            layer = "" if pytorch.layer is None else self._access(_path(node))
            called = pytorch.call(Wording(node.call, self._operands(node, layer), layer))
        targets: list[str] = []
        for value in node.outputs:
            self.names[value] = self.free.new(node.name.rpartition(".")[2])
            targets.append(self.names[value])
        return f"{', '.join(targets)} = {called}"

    def _loose_operands(self, node: OpNode) -> dict[str, str]:
        texts: dict[str, str] = {}
        owned = owned_operands(node)
        for key, value in node.inputs.items():
            state = value.node
            if key not in owned or not isinstance(state, StateNode):
                texts[key] = self.names[value]
            else:
                loose = state.data is None
                texts[key] = self._access(state.name) if loose else self._constant(state)
        return texts

    def _operands(self, node: OpNode, layer: str) -> dict[str, str]:
        """Operands by their texts. A lone number is a tensor unless PyTorch takes numbers there."""
        owned = {o.name for o in node.op.operands if o.role is not Role.DATA}
        texts = {
            key: f"{layer}.{key}" if key in owned else self.names[value]
            for key, value in node.inputs.items()
        }
        numbers = {key for key, value in node.inputs.items() if _is_number(value)}
        if not row_of(node.op, node.name).pytorch.numbers or len(numbers) == len(texts):
            for key in numbers - owned:
                dtype = torch_dtype(node.inputs[key].type.dtype)
                texts[key] = f"torch.tensor({texts[key]}, dtype={dtype})"
        return texts


def _is_loose(node: OpNode) -> bool:
    """Whether weights of it are tensors of the graph: no module holds such."""
    return bool(computed_operands(node))


def constant(node: StateNode) -> str:
    """A constant where it is used; a lone number as itself."""
    array = np.asarray(node.data)
    if node.type.dtype is DType.BF16:
        array = widen_bf16(array)
    if _is_number(node.output):
        return text(array.item())
    if array.size > _LARGEST:
        raise InputError(
            f"the constant {node.name} ({node.type}) is too large for source text: ONNX holds it"
        )
    if array.size > _LONGEST:
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        dtype = torch_dtype(node.type.dtype)
        held = "torch.float32" if node.type.dtype is DType.BF16 else dtype
        data = base64.b64encode(array.tobytes()).decode()
        said = f'_tensor("{data}", {held}{"".join(f", {extent}" for extent in array.shape)})'
        return said if held == dtype else f"{said}.to({dtype})"
    return f"torch.tensor({listed(array.tolist())}, dtype={torch_dtype(node.type.dtype)})"


def _is_number(value: Value) -> bool:
    node = value.node
    return isinstance(node, StateNode) and node.data is not None and not node.type.rank


def _path(node: OpNode) -> str:
    """Where the module of a layer stands: what its weights' keys begin with."""
    owned = [o.name for o in node.op.operands if o.role is not Role.DATA and o.name in node.inputs]
    bare = {spec.name for spec in node.op.state(node.call) if spec.bare}
    paths = {
        key if name in bare else key.removesuffix(f".{name}")
        for name in owned
        for key in (node.inputs[name].node.name,)
    }
    if len(paths) > 1:
        raise InputError(f"{node.name} has weights of other layers, which no module can say")
    return paths.pop() if paths else node.name


def _free_sizes(model: Model) -> set[str]:
    values = [*model.graph.inputs.values()]
    values += [value for node in model.graph.op_nodes() for value in node.outputs]
    return {symbol.name for value in values for symbol in value.type.symbols()}


def _names_in(source: str) -> set[str]:
    """The variables of a line."""
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}


def _is_parameter(made: Any) -> bool:
    return isinstance(made, str) and made.startswith("nn.Parameter(")


def _is_plain(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name)


def _all_plain(place: Any) -> bool:
    """Whether a container's names can be attributes."""
    return isinstance(place, str) or all(_is_plain(name) for name in place)
