# What convdsl.syntax.parser calls of lark.
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from lark import exceptions as exceptions
from lark import lexer as lexer
from lark import visitors as visitors

__version__: str

_Leaf = TypeVar("_Leaf")
_Return = TypeVar("_Return")

class Token(str):
    type: str
    value: str
    start_pos: int | None
    line: int | None
    column: int | None
    end_line: int | None
    end_column: int | None
    end_pos: int | None
    def __new__(
        cls,
        type: str,
        value: str,
        start_pos: int | None = ...,
        line: int | None = ...,
        column: int | None = ...,
        end_line: int | None = ...,
        end_column: int | None = ...,
        end_pos: int | None = ...,
    ) -> Token: ...
    def update(self, type: str | None = ..., value: str | None = ...) -> Token: ...
    @classmethod
    def new_borrow_pos(cls, type_: str, value: str, borrow_t: Token) -> Token: ...

class Meta:
    empty: bool
    start_pos: int
    end_pos: int
    line: int
    column: int
    end_line: int
    end_column: int

class Tree(Generic[_Leaf]):
    data: str
    children: list[Tree[_Leaf] | _Leaf]
    @property
    def meta(self) -> Meta: ...
    def __init__(
        self, data: str, children: list[Tree[_Leaf] | _Leaf], meta: Meta | None = ...
    ) -> None: ...
    def pretty(self, indent_str: str = ...) -> str: ...

class LarkError(Exception): ...
class GrammarError(LarkError): ...

class UnexpectedInput(LarkError):
    line: int
    column: int
    pos_in_stream: int | None
    interactive_parser: Any
    def get_context(self, text: str, span: int = ...) -> str: ...

class UnexpectedToken(UnexpectedInput):
    token: Token
    expected: set[str]
    accepts: set[str]
    token_history: list[Token] | None

class UnexpectedCharacters(UnexpectedInput):
    char: str
    allowed: set[str]
    token_history: list[Token] | None

class UnexpectedEOF(UnexpectedInput):
    expected: list[str]
    token: Token

class VisitError(LarkError):
    obj: Tree[Token] | Token
    orig_exc: Exception

class PostLex(Protocol):
    always_accept: Iterable[str]
    def process(self, stream: Iterator[Token]) -> Iterator[Token]: ...

class Transformer(Generic[_Leaf, _Return]):
    def __init__(self, visit_tokens: bool = ...) -> None: ...
    def transform(self, tree: Tree[_Leaf]) -> _Return: ...
    def __default__(self, data: str, children: list[Any], meta: Meta) -> Any: ...
    def __default_token__(self, token: Token) -> Any: ...

class TerminalDef:
    name: str
    priority: int

class Lark:
    terminals: list[TerminalDef]
    def __init__(
        self,
        grammar: str,
        *,
        start: str | Sequence[str] = ...,
        parser: str = ...,
        lexer: str = ...,
        postlex: PostLex | None = ...,
        transformer: Transformer[Token, Any] | None = ...,
        propagate_positions: bool = ...,
        maybe_placeholders: bool = ...,
        keep_all_tokens: bool = ...,
        cache: bool | str = ...,
        strict: bool = ...,
        lexer_callbacks: dict[str, Callable[[Token], Token]] = ...,
    ) -> None: ...
    def parse(
        self,
        text: str,
        start: str | None = ...,
        on_error: Callable[[UnexpectedInput], bool] | None = ...,
    ) -> Any: ...
    def parse_interactive(self, text: str | None = ..., start: str | None = ...) -> Any: ...
    def lex(self, text: str, dont_ignore: bool = ...) -> Iterator[Token]: ...
    def get_terminal(self, name: str) -> TerminalDef: ...

def v_args(
    inline: bool = ..., meta: bool = ..., tree: bool = ..., wrapper: Callable[..., Any] | None = ...
) -> Callable[[Any], Any]: ...
