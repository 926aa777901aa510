from lark.lexer import Token

class UnexpectedCharacters(Exception):
    pos_in_stream: int

class UnexpectedToken(Exception):
    token: Token
    accepts: set[str]
