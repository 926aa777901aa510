# What convdsl.syntax.tables calls of lark.
from collections.abc import Sequence
from typing import Any

from lark import lexer as lexer

class Rule:
    alias: str | None
    origin: Any
    expansion: Sequence[Any]
    options: Any

class ParseTable:
    states: dict[int, dict[str, tuple[Any, Any]]]
    start_states: dict[str, int]
    end_states: dict[str, int]

class _Parser:
    _parse_table: ParseTable

class _Frontend:
    lexer: lexer.BasicLexer
    parser: _Parser

class Lark:
    parser: _Frontend
    def __init__(
        self,
        grammar: str,
        *,
        parser: str = ...,
        lexer: str = ...,
        start: str | list[str] = ...,
        maybe_placeholders: bool = ...,
    ) -> None: ...
