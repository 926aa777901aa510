import re

class Pattern:
    value: str

class TerminalDef:
    name: str
    pattern: Pattern

class Scanner:
    terminals: list[TerminalDef]
    _mres: list[re.Pattern[str]]

class UnlessCallback:
    scanner: Scanner

class BasicLexer:
    callback: dict[str, UnlessCallback]
    ignore_types: frozenset[str]
    @property
    def scanner(self) -> Scanner: ...
