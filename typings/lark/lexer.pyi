from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

class Token(str):
    type: str
    value: str
    start_pos: int
    end_pos: int
    def __new__(
        cls,
        type: str,
        value: Any,
        start_pos: int | None = ...,
        line: int | None = ...,
        column: int | None = ...,
        end_line: int | None = ...,
        end_column: int | None = ...,
        end_pos: int | None = ...,
    ) -> Token: ...

class TerminalDef: ...
class LexerThread: ...

class TextSlice:
    end: int

class LineCounter:
    char_pos: int

class LexerState:
    text: TextSlice
    line_ctr: LineCounter
    last_token: Token | None

class Scanner:
    def match(self, text: TextSlice, pos: int) -> tuple[str, str] | None: ...

class BasicLexer:
    scanner: Scanner
    ignore_types: Collection[str]
    callback: Mapping[str, Callable[[Token], Token]]
    def next_token(self, lex_state: LexerState, parser_state: Any = ...) -> Token: ...
    def lex(self, state: LexerState, parser_state: Any) -> Iterator[Token]: ...
