"""The published limits on what a source may expand to (docs/language.md).

All are counted before anything is made, so that a short text cannot ask for gigabytes.
"""

NODES = 20_000  # operators in the elaborated graph
STEPS = 500_000  # expressions and statements evaluated
DEPTH = 1_000  # expressions and block instantiations within one another
ITEMS = 100_000  # elements of a list, nested ones counted
ITERATIONS = 100_000  # of one loop
TEXT = 10_000  # characters of a computed string
DIM_TEXT = 2_000  # characters of a symbolic size, written out
IMPORT_DEPTH = 16
IMPORTED_FILES = 256
LABELS_BYTES = 1 << 20
FRAMES_PER_LEVEL = 12  # Python frames that one level of DEPTH takes at most
