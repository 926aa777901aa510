"""The published limits on what a source may expand to (docs/language.md).

All are counted before anything is made, so that a short text cannot ask for gigabytes.
"""

NODES = 5_000  # operators in the elaborated graph
STEPS = 100_000  # expressions and statements evaluated
DEPTH = 1_000  # expressions and block instantiations within one another
ITEMS = 20_000  # elements of a list, nested ones counted
CONSTANTS = 10_000_000  # elements of fixed kernels, all together
ITERATIONS = 20_000  # of one loop
IMAGE_CHANNELS = 1_024  # of an input that images are prepared for
TEXT = 10_000  # characters of a computed string
DIM_TEXT = 2_000  # characters of a symbolic size, written out
IMPORT_DEPTH = 16
IMPORTED_FILES = 256
LABELS_BYTES = 1 << 20
FRAMES_PER_LEVEL = 12  # Python frames that one level of DEPTH takes at most
