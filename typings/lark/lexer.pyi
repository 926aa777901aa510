class Token(str):
    type: str
    value: str
    start_pos: int
    end_pos: int

class TerminalDef: ...
class LexerThread: ...
