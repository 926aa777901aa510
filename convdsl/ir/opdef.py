"""What an operator is: one frozen record that holds everything convdsl knows of it.

Shapes, state, receptive field, cost and arithmetic are all derived from the record; every
field is required, so a forgotten rule is an error at import and not at use. Rules receive a
`Call`: the operator applied to operand types with resolved attributes.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from convdsl.kernel import expr
from convdsl.kernel.expr import TensorExpr, TensorVar
from convdsl.tensor import Dim, DType, Symbol, TensorType, Window, symbols_of
from convdsl.tensor.records import record


class Role(enum.Enum):
    """DATA flows; PARAMETER is trained; BUFFER is running statistics; CONSTANT is in the text."""

    DATA = "data"
    PARAMETER = "parameter"
    BUFFER = "buffer"
    CONSTANT = "constant"


@record
class Operand:
    """A named tensor operand. A variadic one, which comes last, arrives as name0, name1, ... One
    that `chooses` is a mask, whose type says nothing of the others'."""

    name: str
    role: Role = Role.DATA
    optional: bool = False
    variadic: bool = False
    chooses: bool = False


class Kind(enum.Enum):
    """What an attribute holds, and so which DSL values it accepts.

    SIZES is one integer per spatial axis (`3x3`, or `2` for all axes alike) and resolves to a
    tuple; PADDING is an integer, one per axis, (before, after) pairs per axis, or one of the
    words half, same, valid; INTS is a list.
    """

    INT = "integer"
    FLOAT = "number"
    BOOL = "boolean"
    STRING = "string"
    SIZES = "size"
    PADDING = "padding"
    INTS = "list of integers"
    SHAPE = "shape"
    ARRAY = "nested list of numbers"


class Required:
    """Marks an attribute without default."""

    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED = Required()


@record
class Attribute:
    """One attribute. In the DSL, positional arguments fill attributes in record order."""

    name: str
    kind: Kind
    default: Any  # REQUIRED, or the default's DSL value
    doc: str  # one line: meaning, and the reason of the default
    choices: tuple[str, ...] = ()  # words that are accepted (besides what the kind accepts)
    keyword_only: bool = False
    minimum: int | None = None  # for INT and for each of SIZES and INTS
    open: bool = False  # INTS and PADDING may be sizes that stay open


@record
class StateSpec:
    """A weight that an operator owns."""

    name: str
    type: TensorType
    role: Role
    init: str  # initialiser, see convdsl.weights.initialisers
    bare: bool = False  # called as the layer itself

    def key(self, layer: str) -> str:
        """Its key in weight files: `<layer name>.<name>`, or the layer's name alone."""
        return layer if self.bare else f"{layer}.{self.name}"


@record
class Call:
    """An operator applied: resolved attributes and operand types by operand name."""

    op: OpDef
    types: Mapping[str, TensorType]
    attributes: Mapping[str, Any]

    def type(self, operand: str) -> TensorType:
        return self.types[operand]

    def var(self, operand: str) -> TensorVar:
        """The operand as a variable for tensor expressions."""
        return TensorVar(operand, self.types[operand])

    def has(self, operand: str) -> bool:
        return operand in self.types

    def variadic(self, operand: str) -> tuple[str, ...]:
        """The names under which a variadic operand's tensors arrived, in order."""
        names: list[str] = []
        while f"{operand}{len(names)}" in self.types:
            names.append(f"{operand}{len(names)}")
        return tuple(names)

    def __getitem__(self, attribute: str) -> Any:
        return self.attributes[attribute]

    @property
    def outputs(self) -> tuple[TensorType, ...]:
        return self.op.infer(self)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The outputs by name; a last one marked `*` stands for name0, name1, ..."""
        names = self.op.outputs
        if not names[-1].endswith("*"):
            return names
        fixed, last = names[:-1], names[-1].removesuffix("*")
        return (*fixed, *(f"{last}{i}" for i in range(len(self.outputs) - len(fixed))))

    @property
    def kernel(self) -> TensorExpr:
        return self.op.kernel(self)


class OpError(Exception):
    """A rule's objection to a call; elaboration adds the place and draws the carets.

    `operands` and `attributes` name what is to blame, the first most.
    """

    def __init__(
        self,
        message: str,
        *,
        operands: tuple[str, ...] = (),
        attributes: tuple[str, ...] = (),
        help: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.operands = operands
        self.attributes = attributes
        self.help = help


def declared(*conditions: Symbol) -> str:
    """Help that says what has to be known of sizes."""
    return f"declare it on the input: where {' and '.join(map(known_of, conditions))}"


def known_of(s: Symbol) -> str:
    """What is known of a symbol, as `where` says it."""
    if s.divisor > 1:
        return f"{s.name} % {s.divisor} == {s.remainder}"
    return f"{s.name} <= {s.maximum}" if s.maximum is not None else f"{s.name} >= {s.minimum}"


class Unproven(OpError):
    """Two sizes have to be equal, or one known, and nothing says so. `condition` is a symbol of
    which enough more is known, where one suffices."""

    def __init__(
        self,
        message: str,
        condition: Symbol | None,
        *,
        operands: tuple[str, ...] = (),
        attributes: tuple[str, ...] = (),
    ) -> None:
        help: tuple[str, ...] = ()
        if condition is not None:
            help = (declared(condition),)
        super().__init__(message, operands=operands, attributes=attributes, help=help)
        self.condition = condition


class Reach(enum.Enum):
    """Receptive field rules other than a `Window`."""

    POINTWISE = "each output position sees the same input position"
    WHOLE = "each output position sees the whole input"
    DERIVED = "each output position sees what the tensor expression reads for it"
    UNAVAILABLE = "no exact rule is known"


WindowRule: TypeAlias = Window | Reach


@record
class Cost:
    """Exact counts of one call; conventions in docs/analysis.md.

    macs: multiply-accumulates of contractions. flops: every arithmetic node of the tensor
    expression. macs_by_input: macs under the torchvision convention where it differs
    (transposed convolutions count input positions there).
    """

    macs: Dim
    flops: Dim
    macs_by_input: Dim | None = None


def no_contraction(call: Call) -> Cost:
    """Cost rule of everything that multiplies no matrices."""
    return Cost(macs=0, flops=expr.flops(call.kernel))


def contraction(call: Call) -> Cost:
    """Cost rule of convolutions, linear layers and matrix products."""
    kernel = call.kernel
    return Cost(macs=expr.products(kernel), flops=expr.flops(kernel))


def resolve_as_given(call: Call) -> Mapping[str, Any]:
    """Resolve rule of operators whose attributes need no operand to make sense of them."""
    return call.attributes


def no_state(call: Call) -> tuple[StateSpec, ...]:
    """State rule of operators without weights."""
    return ()


def same_type(call: Call) -> tuple[TensorType, ...]:
    """Infer rule: the output is like the first operand."""
    return (next(iter(call.types.values())),)


def pointwise(call: Call) -> WindowRule:
    """Window rule of maps."""
    return Reach.POINTWISE


def derived(call: Call) -> WindowRule:
    """Window rule of operators that look back in no simpler way than their expression says."""
    return Reach.DERIVED


@record
class Doubt:
    """What a call does where another is likely meant, and what to write instead. Where the text
    says the attribute `of` by its name, it is meant."""

    text: str
    help: str
    of: str = ""


def no_doubt(call: Call) -> Doubt | None:
    """Doubt rule of operators that are taken at their word."""
    return None


def never(call: Call) -> bool:
    """A property that no call has."""
    return False


def always(call: Call) -> bool:
    """A property that every call has."""
    return True


@record
class Derived:
    """The gradient follows from the arithmetic by differentiation (`kernel.gradient`).

    search: where an index cannot be solved, positions along its axes are tried one by one.
    flat_roots: the derivative of a root at zero counts as zero, as in norms.
    form: another expression of the same values, where its derivative is the better one.
    at_result: calls whose derivative at x is that at y = f(x), as of relu: then the backward pass
        reads y, which others keep anyway, and x need not be kept.
    """

    search: bool = False
    flat_roots: bool = False
    form: Callable[[Call], TensorExpr] | None = None
    at_result: Callable[[Call], bool] = never


@record
class Rule:
    """The gradient is built from other operators, because of `why`.

    build: gradients by operand, from an `ir.pullback.Pullback`.
    """

    build: Callable[[Any], Mapping[str, Any]]
    why: str


@record
class Zero:
    """The gradient is zero, because of `why`."""

    why: str


@record
class NotDifferentiable:
    """There is no gradient, for a reason."""

    reason: str


@record
class Missing:
    """There is a gradient, and nobody has written it: what it needs."""

    needs: str


Gradient: TypeAlias = Derived | Rule | Zero | NotDifferentiable | Missing

DERIVED = Derived()
FLAT = Zero("it is flat almost everywhere")
MASK = NotDifferentiable("it gives a mask")
POSITIONS = NotDifferentiable("it gives positions")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpDef:
    """Everything about one operator. See the module docstring.

    resolve  DSL values -> canonical attributes (per-axis tuples, explicit padding), given the
             types of the data operands; raises OpError
    state    the weights the call owns, given data operand types
    infer    output types, one per name in `outputs`; raises OpError
    window   receptive field of the outputs in the data operands
    cost     exact counts
    kernel   the arithmetic: inputs named as operands, outputs as `outputs`
    gradient how gradients of operands follow from those of outputs
    exchanges  whether the outputs are sums over all ranks of a job: nothing is fused with such a
             call or computed a second time, and all ranks make them in one order
    doubt    of a call whose first operand is a map of space, where another is likely meant: what it
             does, and what to write instead; operators that are never in doubt leave it out
    """

    name: str
    aliases: tuple[str, ...]  # other DSL spellings
    doc: str  # what it computes, with its source; first line is the summary
    operands: tuple[Operand, ...]
    attributes: tuple[Attribute, ...]
    outputs: tuple[str, ...]  # names; one that ends in `*`, which comes last, is variadic
    resolve: Callable[[Call], Mapping[str, Any]]
    state: Callable[[Call], tuple[StateSpec, ...]]
    infer: Callable[[Call], tuple[TensorType, ...]]
    window: Callable[[Call], WindowRule]
    cost: Callable[[Call], Cost]
    kernel: Callable[[Call], TensorExpr]
    gradient: Gradient
    exchanges: bool = False
    doubt: Callable[[Call], Doubt | None] = no_doubt
    data_operands: tuple[Operand, ...] = field(init=False, repr=False, compare=False)
    _by_name: dict[str, Attribute] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        data = tuple(o for o in self.operands if o.role is Role.DATA)
        object.__setattr__(self, "data_operands", data)
        object.__setattr__(self, "_by_name", {a.name: a for a in self.attributes})

    def attribute(self, name: str) -> Attribute | None:
        return self._by_name.get(name)

    def defaults(self) -> dict[str, Any]:
        return {a.name: a.default for a in self.attributes if not isinstance(a.default, Required)}

    def call(
        self, types: Mapping[str, TensorType], attributes: Mapping[str, Any] | None = None
    ) -> Call:
        """Apply to types with DSL-level attribute values: defaults filled in, then resolved."""
        given = self.defaults() | dict(attributes or {})
        return Call(self, types, dict(self.resolve(Call(self, types, given))))

    def __hash__(self) -> int:
        return hash(self.name)


def size_for_weights(call: Call, axis: int, what: str, operand: str = "x") -> int:
    """The extent of an axis that weights are made for; an OpError where it is open."""
    size = call.type(operand).shape[axis]
    if isinstance(size, int):
        return size
    names = sorted(symbol.name for symbol in symbols_of(size))
    help = f"give {' and '.join(names)} a number where the input is declared"
    if names != [str(size)]:
        help += ", or pool to a size that is known: avgpool(global)"
    text = f"{call.op.name} needs a known number of {what}, not {size}"
    raise OpError(text, operands=(operand,), help=(help,))


def float_type(call: Call, operand: str = "x") -> DType:
    """The dtype of a floating operand, or an OpError."""
    dtype = call.type(operand).dtype
    if not dtype.is_float:
        text = f"{call.op.name} needs floating-point data, not {dtype}"
        raise OpError(text, operands=(operand,), help=("make it so before: cast(f32)",))
    return dtype
