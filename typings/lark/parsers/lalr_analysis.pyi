from typing import Any

class Action: ...

Shift: Action

class IntParseTable:
    states: dict[int, dict[str, tuple[Action, Any]]]
