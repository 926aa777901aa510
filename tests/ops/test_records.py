"""The operator table: what every record must hold, read off the records themselves."""

from __future__ import annotations

import pytest
from op_cases import CASES_PER_OPERATOR, draw_case

from convdsl.ir.opdef import REQUIRED, Kind, OpDef, Role
from convdsl.ops import BY_NAME, OPERATORS, SPELLINGS
from convdsl.weights.initialisers import INITIALISERS

each_operator = pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(OPERATORS)
    assert all(SPELLINGS[name] is op for op in OPERATORS for name in (op.name, *op.aliases))


@each_operator
def test_records_are_documented(op: OpDef) -> None:
    assert op.doc.splitlines()[0].endswith(".")
    assert op.name.islower()
    for attribute in op.attributes:
        assert attribute.doc, attribute.name


@each_operator
def test_weights_come_after_data_and_variadic_last(op: OpDef) -> None:
    roles = [operand.role is Role.DATA for operand in op.operands]
    assert roles == sorted(roles, reverse=True)
    assert not any(operand.variadic for operand in op.operands[:-1])
    assert not any(name.endswith("*") for name in op.outputs[:-1])


@each_operator
def test_defaults_are_among_what_is_accepted(op: OpDef) -> None:
    for attribute in op.attributes:
        if isinstance(attribute.default, str):
            assert attribute.default in attribute.choices, attribute.name
        if attribute.kind is Kind.STRING and attribute.default is not REQUIRED:
            assert attribute.choices, attribute.name


@each_operator
def test_required_attributes_come_first(op: OpDef) -> None:
    required = [attribute.default is REQUIRED for attribute in op.attributes]
    assert required == sorted(required, reverse=True)


@pytest.mark.dear
@each_operator
def test_state_is_what_the_operands_say(op: OpDef) -> None:
    """Every state is an operand of its role; every initialiser exists; all that is not
    optional is made."""
    declared = {o.name: o for o in op.operands if o.role is not Role.DATA}
    for seed in range(CASES_PER_OPERATOR):
        specs = {s.name: s for s in op.state(draw_case(op.name, seed).call)}
        assert {name for name, o in declared.items() if not o.optional} <= set(specs)
        for name, spec in specs.items():
            assert spec.role is declared[name].role
            assert spec.init in INITIALISERS


@pytest.mark.dear
@each_operator
def test_expressions_name_operands_and_outputs(op: OpDef) -> None:
    for seed in range(CASES_PER_OPERATOR):
        call = draw_case(op.name, seed).call
        kernel = call.kernel
        assert {x.name: x.type for x in kernel.inputs} == dict(call.types)
        assert kernel.outputs == call.output_names
        types = [kernel.stage(name).target.type for name in kernel.outputs]
        assert tuple(types) == call.outputs
        names = [stage.target.name for stage in kernel.stages]
        assert len(set(names)) == len(names)
