"""Where elements of a factor lie in the lines that warp groups read (`kernel.group_mma`).

A thread holds two neighbouring sums for each eight lines of the second factor. Columns are dealt to
lines so that it holds four neighbours of a row: of sixteen columns those of its own number.
"""

from __future__ import annotations

from convdsl.tensor import Dim, dim_max, dim_min, floor_div


def line_of(column: Dim) -> Dim:
    """The line that stands for a column of the product."""
    four, two = floor_div(column, 4), floor_div(column, 2)
    inside = (two - four * 2) * 8 + (four - floor_div(column, 16) * 4) * 2 + column - two * 2
    return floor_div(column, 16) * 16 + inside


def column_of(line: Dim) -> Dim:
    """The column that a line stands for."""
    eight, two = floor_div(line, 8), floor_div(line, 2)
    inside = (two - eight * 4) * 4 + (eight - floor_div(line, 16) * 2) * 2 + line - two * 2
    return floor_div(line, 16) * 16 + inside


def turned(piece: Dim, line: Dim) -> Dim:
    """piece ^ (line % 8): where sixteen bytes of a line lie in it, and which ones lie there."""
    made: Dim = 0
    for bit in range(3):  # of two bits a + b - 2 a b
        a, b = (floor_div(n, 2**bit) - floor_div(n, 2 ** (bit + 1)) * 2 for n in (piece, line))
        made = made + (a + b - 2 * a * b) * 2**bit
    return dim_min(dim_max(made, 0), 7)
