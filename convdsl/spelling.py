"""Which of the known names a word was meant to be, where one is near enough.

Near is what a slip of the keyboard makes: letters left out, put in, changed, or two swapped, one
for every four letters of the word. Case, `_` and `-` do not count, nor does an ending such as the
`2d` of batchnorm2d, where the rest is most of the word. Of few names one may also be abbreviated:
its beginning, or the first letters of its words; or something may be added to it, as batch_size.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

COMPARED = 500
"""Names that are compared with a word; the most alike in length of more."""

LONGEST = 64
"""Letters of a word that can be a slip."""

FEW = 40
"""Names among which an abbreviation is looked for; of more, too many begin alike."""

_LEAST, _SHARE = 4, 0.6
"""Letters, and share of the longer one, that one word has to begin the other with."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that a word is a slip of, or None. The same for any order of the names."""
    plain = _plain(word)
    options = sorted({name for name in known if name != word})
    if not plain or len(plain) > LONGEST:
        return None
    if len(options) > COMPARED:
        options.sort(key=lambda n: (abs(len(n) - len(word)), n[:1] != word[:1], n))
    limit = max(1, len(plain) // 4) if len(plain) > 2 else 0
    found: list[tuple[int, int, int, str]] = []
    for name in options[:COMPARED]:
        other = _plain(name)
        if not other or len(other) > LONGEST:
            continue
        slips = _slips(plain, other, limit)
        if slips > limit and not _begins(plain, other):
            continue
        changed = slips - abs(len(other) - len(plain))  # rather than put in or left out
        found.append((slips, changed, _slips(word.lower(), name.lower(), LONGEST), name))
    return min(found)[3] if found else _abbreviated(plain, options) or _part(word, options)


def by_words(names: Iterable[str]) -> dict[str, str]:
    """Names as files have them (`a:0`), by the words that may stand for them (`a_0`)."""
    known = list(names)
    words = [_NO_WORD.sub("_", name).strip(".") for name in known]
    return {
        word: name
        for word, name in zip(words, known, strict=True)
        if word not in known and words.count(word) == 1
    }


_NO_WORD = re.compile(r"[^A-Za-z0-9_.]+")


def those(names: Iterable[str]) -> str:
    """`there are a, b`, of one `there is only a`."""
    known = list(names)
    if len(known) == 1:
        return f"there is only {known[0]}"
    return f"there are {', '.join(known)}" if known else "there is none"


def _abbreviated(plain: str, options: list[str]) -> str | None:
    """The only one of few names that the word abbreviates: `acc`, or `iou`."""
    if len(options) > FEW or len(plain) < 2:
        return None
    initials = [n for n in options if "".join(part[:1] for part in n.lower().split("_")) == plain]
    begun = [n for n in options if len(plain) > 2 and _plain(n).startswith(plain)]
    found = initials or begun
    return found[0] if len(found) == 1 else None


def _part(word: str, options: list[str]) -> str | None:
    """The longest of few names that is some of the word's own words: `batch` of batch_size."""
    if len(options) > FEW:
        return None
    padded = f"_{word.lower()}_"
    found = [name for name in options if len(name) > 2 and f"_{name.lower()}_" in padded]
    return max(found, key=len, default=None)


def _plain(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")


def _begins(a: str, b: str) -> bool:
    short, long = sorted((a, b), key=len)
    most = max(_LEAST, _SHARE * len(long))
    return len(short) >= most and long.startswith(short)


def _slips(a: str, b: str, limit: int) -> int:
    """Letters to put in, leave out, change or swap with a neighbour; more than `limit` are not
    counted exactly (the optimal string alignment of Damerau 1964)."""
    if abs(len(a) - len(b)) > limit:
        return limit + 1
    before: list[int] = []
    above = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        row = [i]
        for j, other in enumerate(b, 1):
            change = above[j - 1] + (letter != other)
            row.append(min(above[j] + 1, row[j - 1] + 1, change))
            swapped = i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other
            if swapped:
                row[j] = min(row[j], before[j - 2] + 1)
        if min(row) > limit:
            return limit + 1
        before, above = above, row
    return above[-1]
