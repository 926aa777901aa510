"""The sizes of a core's caches, as the system tells them."""

from __future__ import annotations

import re
from pathlib import Path

from convdsl.kernel.caches import TYPICAL, Caches

_LINUX = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20}


def caches_of_system(directory: Path = _LINUX) -> Caches:
    """Those of the first processor, as Linux describes them; TYPICAL where it does not, or
    where what it says cannot be true. (Some virtual machines say nonsense.)"""
    first, second = (_share(directory, level) for level in (1, 2))
    if first is None or second is None:
        return TYPICAL
    (l1, l1_users), (l2, l2_users) = first, second
    # Threads of one core share all its caches; cores of a cluster share the second level.
    l2 //= max(1, l2_users // l1_users)
    possible = 4 << 10 <= l1 <= 1 << 20 and 32 << 10 <= l2 <= 64 << 20 and l1 <= l2
    return Caches(l1, l2) if possible else TYPICAL


def _share(directory: Path, level: int) -> tuple[int, int] | None:
    """(bytes, processors that share it) of the data cache at a level."""
    try:
        for index in sorted(directory.glob("index*")):
            told = {name: _line(index / name) for name in ("level", "type", "size")}
            if told["level"] == str(level) and told["type"] in ("Data", "Unified"):
                size = re.fullmatch(r"(\d+)([KM]?)", told["size"])
                users = _count(_line(index / "shared_cpu_list"))
                return (int(size[1]) * _UNITS[size[2]], users) if size and users else None
    except OSError:
        pass
    return None


def _line(path: Path) -> str:
    return path.read_text(encoding="ascii", errors="replace").strip()


def _count(processors: str) -> int:
    """How many a list such as `0-3,8` names; 0 for no list."""
    total = 0
    for part in processors.split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if found is None:
            return 0
        total += int(found[2] or found[1]) - int(found[1]) + 1
    return total
