"""Keys that share memory: parts of a whole, values written over operands, new states over old.

    concat(a, b)        a and b lie inside of what joins them (slices.py)
    reshape(x)          is x, seen otherwise (views.py)
    y = x + r           y lies over r, if nothing reads r afterwards
    s <- s + 1          the new value lies over the old one, if nothing reads that afterwards

All are aliases: a key lies in the memory of another, some bytes from its start. Writing over an
operand takes a kernel made for it (kernel/in_place.py), which takes the place of the call's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from convdsl.kernel.in_place import Overlays
from convdsl.kernel.nodes import Kernel
from convdsl.lowering.calls import Alias, Call, Key, PackedWeight, Private


class Sharing:
    """Calls whose keys may share memory. `calls` and `kernels` may grow while they are looked at;
    `fixed` are the keys in memory of the caller."""

    def __init__(
        self,
        calls: list[Call],
        kernels: Mapping[str, Kernel],
        aliases: Mapping[Key, Alias],
        fixed: Collection[Key],
        overlays: Overlays | None = None,
    ) -> None:
        self._overlays = overlays or Overlays()
        self.calls = calls
        self.aliases = dict(aliases)
        self._owners = {alias.owner for alias in aliases.values() if not alias.seen}
        self._kernels = kernels
        self._fixed = fixed
        self._over: dict[tuple[str, str, str], Kernel | None] = {}
        self._made: dict[str, Kernel] = {}

    def copy(self) -> Sharing:
        """Another one to try things with."""
        new = Sharing(list(self.calls), self._kernels, self.aliases, self._fixed, self._overlays)
        new._over, new._made = self._over, self._made
        return new

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Those that the calls need, in order of their first use."""
        names = dict.fromkeys(call.kernel for call in self.calls if not call.exchanges)
        return tuple(self._kernel(name) for name in names)

    def _kernel(self, name: str) -> Kernel:
        return self._made.get(name) or self._kernels[name]

    def root(self, key: Key) -> tuple[Key, int]:
        """(the key whose memory this one lies in, bytes from its start)."""
        offset = 0
        while key in self.aliases:
            alias = self.aliases[key]
            key, offset = alias.owner, offset + alias.offset
        return key, offset

    def is_own(self, key: Key) -> bool:
        """Whether a key has memory of its own in the arena, and nothing else is written there."""
        return not (key in self.aliases or key in self._fixed or key in self._owners)

    def alias(self, key: Key, owner: Key) -> None:
        """Let a key lie in the memory of another, from its start on."""
        self.aliases[key] = Alias(owner)
        self._owners.add(owner)

    def write_over(self, number: int, read: Key, written: Key) -> bool:
        """Let a call write one key over another that it reads; False if its kernel cannot."""
        call = self.calls[number]
        if call.arguments.count(read) > 1:
            return False  # it is read by another name as well
        kernel = self._kernel(call.kernel)
        names = dict(zip(call.arguments, (b.name for b in kernel.buffers), strict=True))
        made = self._kernel_over(kernel, names[read], names[written])
        if made is None:
            return False
        arguments = tuple(key for key in call.arguments if key != read)
        updated = call.updated | {written}
        self.calls[number] = replace(call, kernel=made.name, arguments=arguments, updated=updated)
        self.alias(written, self.root(read)[0])
        return True

    def _kernel_over(self, kernel: Kernel, read: str, written: str) -> Kernel | None:
        key = (kernel.name, read, written)
        if key not in self._over:
            several = sum(buffer.written for buffer in kernel.buffers) > 1
            name = f"{kernel.name}_{written}" if several else kernel.name
            self._over[key] = made = self._overlays.written_over(
                kernel, read, written, f"{name}_over_{read}"
            )
            if made is not None:
                self._made[made.name] = made
        return self._over[key]

    def write_over_operands(self, bytes_of: Callable[[Key], int]) -> None:
        """Let results in the arena lie over operands that nothing reads any more."""
        last = self._last_uses()
        for number in range(len(self.calls)):
            call = self.calls[number]
            uses = Counter(self.root(key)[0] for key in call.arguments)
            for written in call.arguments:
                outside = isinstance(written, Private) or written not in call.written
                if outside or not self.is_own(written):
                    continue
                for read in call.arguments:
                    owner, offset = self.root(read)
                    dies = last[owner] == number and uses[owner] == 1
                    alike = offset == 0 and owner not in self._fixed
                    if not dies or not alike or isinstance(read, PackedWeight | Private):
                        continue
                    if bytes_of(owner) == bytes_of(written) and self.write_over(
                        number, read, written
                    ):
                        last[owner] = last[written]
                        uses[owner] += 1
                        break

    def _last_uses(self) -> dict[Key, int]:
        """The last call that reads or writes in each memory."""
        found: dict[Key, int] = {}
        for number, call in enumerate(self.calls):
            found |= dict.fromkeys((self.root(key)[0] for key in call.arguments), number)
        return found
