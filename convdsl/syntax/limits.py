"""The published limits on source text (docs/language.md); beyond them is a diagnostic."""

SOURCE_BYTES = 1 << 20
WORDS = 50_000  # names, numbers, signs and line ends
NESTING = 200  # open brackets at any place
DIAGNOSTICS = 50  # per compilation; further ones are not reported
INTEGER_BITS = 63  # magnitude of integers, literal or computed
