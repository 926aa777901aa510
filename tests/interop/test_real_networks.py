"""Published networks on real images: numbers and classes as onnxruntime's."""

from __future__ import annotations

import pytest

import convdsl
from interop.real_networks import NETWORKS, expected, images, largest_error, ways

each = pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)


@pytest.mark.slow
@each
def test_they_say_what_onnxruntime_says(network, tmp_path):
    assert len(images()) == 20
    wanted = expected(network)
    for _, executable in ways(network, tmp_path):
        largest_error(network, executable, wanted)


@pytest.mark.slow
def test_sizes_keep_their_names():
    sizes = {n.name: str(next(iter(convdsl.load(n.file).inputs.values()))) for n in NETWORKS}
    assert sizes == {
        "open-nsfw": "f32[N, 224, 224, 3]",
        "PP-OCRv4 detector": "f32[N, 3, H, W]",
        "PP-OCR classifier": "f32[N, 3, H, W]",
        "PP-OCRv4 recogniser": "f32[N, 3, H, W]",
    }
