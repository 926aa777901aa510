from collections.abc import Callable
from typing import Any, TypeAlias

from lark.grammar import Rule
from lark.lexer import LexerThread, Token
from lark.parsers.lalr_analysis import Action, IntParseTable

Callbacks: TypeAlias = dict[Rule, Callable[[list[Any]], Any]]

class ParseConf:
    states: dict[int, dict[str, tuple[Action, Any]]]
    callbacks: Callbacks
    end_state: int
    def __init__(self, parse_table: IntParseTable, callbacks: Callbacks, start: str) -> None: ...

class ParserState:
    parse_conf: ParseConf
    state_stack: list[int]
    value_stack: list[Any]
    def __init__(self, parse_conf: ParseConf, lexer: LexerThread) -> None: ...
    def feed_token(self, token: Token, is_end: bool = ...) -> Any: ...
