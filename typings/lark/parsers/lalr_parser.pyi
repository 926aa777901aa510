from typing import Any

from lark.lexer import LexerThread
from lark.parsers.lalr_analysis import IntParseTable
from lark.parsers.lalr_parser_state import Callbacks, ParserState

class _Parser:
    callbacks: Callbacks
    def parse_from_state(self, state: ParserState) -> Any: ...

class LALR_Parser:
    parser: _Parser
    _parse_table: IntParseTable
    def parse(self, lexer: LexerThread, start: str, on_error: Any = ...) -> Any: ...
