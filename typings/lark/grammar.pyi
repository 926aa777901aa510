from collections.abc import Sequence

class Symbol:
    name: str

class NonTerminal(Symbol): ...

class Terminal(Symbol):
    filter_out: bool

class RuleOptions:
    expand1: bool
    empty_indices: Sequence[bool]

class Rule:
    origin: NonTerminal
    expansion: Sequence[Symbol]
    alias: str | None
    options: RuleOptions
