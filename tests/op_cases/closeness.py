"""When two executions of a case agree."""

from __future__ import annotations

import numpy as np

from op_cases.draw import Array, Case


def assert_close(found: Array, expected: Array, case: Case) -> None:
    """Equal where exact, else to a few units of the oracle's precision at the values' scale."""
    if found.dtype.kind != "f":
        np.testing.assert_array_equal(found, expected, str(case))
        return
    scale = float(np.max(np.abs(expected), initial=1.0, where=np.isfinite(expected)))
    tolerance = 64 * float(np.finfo(expected.dtype).eps)
    np.testing.assert_allclose(
        found, expected, rtol=tolerance, atol=tolerance * scale, err_msg=str(case)
    )
