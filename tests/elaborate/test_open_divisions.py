"""What is divided by open sizes: whole where what is declared of the sizes makes it so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import convdsl
from convdsl.diagnostics import CompileError, SourceFile
from convdsl.elaborate import elaborate

TEXT = """convdsl 1

model m {
    input x: f32[N, 8, H, W] where H % 8 == 0, W % 8 == 0
    input odd: f32[N, 8, K, L] where K % 2 == 1, L % 2 == 1, K >= 3, L >= 3
    half = x -> maxpool(2)
    half -> reshape([half.batch, 8, -1]) -> output tokens
    deep = half -> maxpool(2) -> maxpool(2)
    deep -> flatten(2) -> reshape([deep.batch, 8, deep.height, -1]) -> output deeper
    x -> reshape([x.batch, -1, x.height / 4, x.width / 2]) -> output channels
    parts = half -> flatten(2) -> split(4, axis = 2)
    parts[1] -> output quarter
    ends = odd -> maxpool(1, stride = 2)
    ends -> reshape([ends.batch, 8, -1]) -> output row
    inside = odd -> slice([2, 3], [1, 1], [odd.height - 1, odd.width - 1])
    inside -> reshape([-1, 8, inside.height, inside.width]) -> output same
    inside -> flatten(2) -> reshape([inside.batch, 8, inside.height, -1]) -> output wide
    less = odd -> slice([2], stop = odd.height - 1) -> flatten(2)
    less -> reshape([odd.batch, -1, odd.width]) -> output rows
}
"""


@pytest.mark.parametrize(
    "sizes", [(8, 24, 3, 5), (16, 8, 9, 3)], ids=lambda s: "x".join(map(str, s))
)
def test_declared_sizes_divide(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    path = tmp_path / "m.cnn"
    path.write_text(TEXT)
    h, w, k, width = sizes
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 8, h, w)).astype(np.float32)
    odd = rng.standard_normal((2, 8, k, width)).astype(np.float32)
    found = convdsl.compile(convdsl.load(path))(x=x, odd=odd)

    def pooled(times: int) -> np.ndarray:
        return x.reshape(2, 8, h // times, times, w // times, times).max((3, 5))

    inside = odd[:, :, 1:-1, 1:-1]
    expected = {
        "tokens": pooled(2).reshape(2, 8, -1),
        "deeper": pooled(8),
        "channels": x.reshape(2, 64, h // 4, w // 2),
        "quarter": np.split(pooled(2).reshape(2, 8, -1), 4, axis=2)[1],
        "row": odd[:, :, ::2, ::2].reshape(2, 8, -1),
        "same": inside,
        "wide": inside,
        "rows": odd[:, :, :-1].reshape(2, -1, width),
    }
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


NOT_WHOLE = [
    ("H % 2 == 0", "reshape([x.batch, 4, x.height, x.width, 3, -1])"),
    ("H % 2 == 1, W % 2 == 1", "flatten(2) -> split(2, axis = 2)"),
    ("H % 2 == 0, W % 2 == 0", "flatten(2) -> split(8, axis = 2)"),
    ("H >= 2", "reshape([x.batch, 8, x.height - 1, -1])"),
]


@pytest.mark.parametrize(("declared", "dividing"), NOT_WHOLE, ids=[text for _, text in NOT_WHOLE])
def test_what_nothing_makes_whole_is_told(declared: str, dividing: str) -> None:
    text = f"input x: f32[N, 8, H, W] where {declared}\n    y = x -> {dividing}"
    with pytest.raises(CompileError) as caught:
        elaborate(SourceFile("m.cnn", f"model m {{\n    {text}\n    x -> output z\n}}\n"))
    told = caught.value.diagnostics[0]
    assert (told.code, "divide" in told.message) == ("E0501", True)
