"""Cases of Fourier transforms."""

from __future__ import annotations

from op_cases.draw import Case, Draw, Generator, with_state


def dft(draw: Draw) -> Case:
    """Real and complex numbers, there and back, whole spectra and halves, longer and shorter."""
    shape = draw.shape(draw.integer(1, 3), 1, 6)
    axis = draw.integer(0, len(shape) - 1)
    inverse, onesided = draw.chance(), draw.chance()
    parts = (2 if inverse else 1) if onesided else draw.pick(1, 2)
    x = draw.array((*shape, parts))
    attributes = {"axis": draw.pick(axis, axis - len(shape) - 1)}
    attributes |= {"inverse": inverse, "onesided": onesided}
    usual = 2 * (shape[axis] - 1) if inverse and onesided else shape[axis]
    if usual < 1 or draw.chance():
        attributes["length"] = draw.integer(1, 9)
    symbols = tuple("NABC"[j] if j != axis else None for j in range(len(shape)))
    return with_state(draw, "dft", attributes, x, symbols={"x": (*symbols, None)})


GENERATORS: dict[str, Generator] = {"dft": dft}
