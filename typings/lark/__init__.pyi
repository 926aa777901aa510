# What convdsl.syntax calls of lark.
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from lark import exceptions as exceptions
from lark import grammar as grammar
from lark import lexer as lexer
from lark.exceptions import UnexpectedCharacters as UnexpectedCharacters
from lark.exceptions import UnexpectedToken as UnexpectedToken
from lark.lexer import Token as Token

__version__: str

class Meta:
    empty: bool
    start_pos: int
    end_pos: int

class Tree:
    data: str
    children: list[Tree | Token | None]
    @property
    def meta(self) -> Meta: ...

class PostLex(Protocol):
    always_accept: Iterable[str]
    def process(self, stream: Iterator[Token]) -> Iterator[Token]: ...

class Lark:
    def __init__(
        self,
        grammar: str,
        *,
        parser: str = ...,
        lexer: str = ...,
        postlex: PostLex | None = ...,
        start: Sequence[str] = ...,
        propagate_positions: bool = ...,
        tree_class: type[Tree] | None = ...,
        maybe_placeholders: bool = ...,
        _plugins: Mapping[str, type] = ...,
    ) -> None: ...
    @classmethod
    def load(cls, f: Mapping[str, Any]) -> Lark: ...
    def memo_serialize(
        self, types_to_memoize: Sequence[type]
    ) -> tuple[dict[str, Any], dict[int, Any]]: ...
    def parse(self, text: str, start: str) -> Tree: ...
    def lex(self, text: str) -> Iterator[Token]: ...
