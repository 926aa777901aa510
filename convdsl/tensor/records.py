"""Records: frozen dataclasses that are made by the hundred thousand, of hundreds of classes.

A frozen dataclass sets each field through `object.__setattr__`, which looks for it by name. Records
set their slots through the slots' own descriptors, which takes half as long, and what is the same
object is equal without a look at its fields. Python writes and compiles six methods for each class
of dataclasses; records share those that need not be written for one, and the others are compiled
at once: most of what starting a compiler costs is making its classes.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, fields
from typing import Any, NoReturn, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def record(cls: type[T]) -> type[T]:
    """What `dataclass(frozen=True, slots=True)` makes of a class, but made faster, and what it
    makes. Defaults are values; nothing is done after fields are set."""
    made: Any = dataclass(init=False, repr=False, eq=False, slots=True)(cls)
    own = fields(made)
    space: dict[str, Any] = {
        f"_set_{field.name}": getattr(made, field.name).__set__ for field in own
    }
    space |= {f"_default_{f.name}": f.default for f in own if f.default is not MISSING}
    exec(_text(own), space)  # noqa: S102 (as dataclasses does: of the names of fields)
    written = {name: space[name] for name in ("__init__", "__eq__", "__hash__")}
    for name, method in (written | _SHARED).items():
        if name not in cls.__dict__ or (name == "__hash__" and cls.__dict__[name] is None):
            setattr(made, name, method)
    return made


def _text(own: tuple[Field[Any], ...]) -> str:
    setting = "; ".join(f"_set_{field.name}(self, {field.name})" for field in own) or "pass"
    left, right = ("".join(f"{of}.{field.name}, " for field in own) for of in ("self", "other"))
    return f"""
def __init__({", ".join(["self", *map(_parameter, own)])}): {setting}
def __eq__(self, other):
  if self is other: return True
  return ({left}) == ({right}) if other.__class__ is self.__class__ else NotImplemented
def __hash__(self): return hash(({left}))
"""


def _parameter(field: Field[Any]) -> str:
    assert field.default_factory is MISSING
    return field.name if field.default is MISSING else f"{field.name}=_default_{field.name}"


def _shown(self: Any) -> str:
    parts = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in fields(self))
    return f"{self.__class__.__qualname__}({parts})"


def _no_change(self: Any, name: str, value: object = None) -> NoReturn:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _no_loss(self: Any, name: str) -> NoReturn:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _again(self: Any) -> tuple[Any, tuple[Any, ...]]:
    return self.__class__, tuple(getattr(self, field.name) for field in fields(self))


_SHARED = {
    "__repr__": _shown,
    "__setattr__": _no_change,
    "__delattr__": _no_loss,
    "__reduce__": _again,
}
