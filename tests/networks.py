"""Networks of the literature, built without the language: what reference figures hang on."""

from __future__ import annotations

from collections.abc import Sequence

from graphs import Builder

from convdsl.ir.graph import Graph, Value
from convdsl.tensor import Dim, symbol


def image(b: Builder, size: Dim, channels: int = 3) -> Value:
    return b.input("image", symbol("N"), channels, size, size)


def conv_bn(b: Builder, x: Value, channels: int, kernel: int, stride: int = 1, **more) -> Value:
    h = b("conv", x, channels=channels, kernel=kernel, stride=stride, bias=False, **more)
    return b("batch_norm", h)


def resnet(depth: int, size: Dim = 224) -> Graph:
    """He et al. 2015, the stride where torchvision places it."""
    stages = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}[depth]
    block = _bottleneck if depth >= 50 else _basic
    b = Builder()
    x = b("relu", conv_bn(b, image(b, size), 64, 7, 2))
    x = b("max_pool", x, kernel=3, stride=2, pad=1)
    for stage, repeats in enumerate(stages):
        for position in range(repeats):
            x = block(b, x, 64 * 2**stage, 2 if stage and not position else 1)
    return _classified(b, x)


def _classified(b: Builder, x: Value) -> Graph:
    pooled = b("flatten", b("avg_pool", x, kernel="global"))
    return b.output(logits=b("linear", pooled, channels=1000), features=x)


def _basic(b: Builder, x: Value, width: int, stride: int) -> Value:
    h = b("relu", conv_bn(b, x, width, 3, stride))
    return _joined(b, x, conv_bn(b, h, width, 3), stride)


def _bottleneck(b: Builder, x: Value, width: int, stride: int, same: bool = False) -> Value:
    pad = {"pad": "same"} if same else {}
    h = b("relu", conv_bn(b, x, width, 1))
    h = b("relu", conv_bn(b, h, width, 3, stride, **pad))
    return _joined(b, x, conv_bn(b, h, 4 * width, 1), stride)


def _joined(b: Builder, x: Value, body: Value, stride: int) -> Value:
    if stride != 1 or x.type.shape[1] != body.type.shape[1]:
        width = body.type.shape[1]
        assert isinstance(width, int)
        x = conv_bn(b, x, width, 1, stride)
    return b("relu", b("add", body, x))


def resnet50_slim(size: Dim) -> Graph:
    """TF-Slim's resnet_v1_50: the stride in the last unit of a stage, pooled identity."""
    b = Builder()
    pad = ((3, 3), (3, 3))
    x = b("relu", conv_bn(b, image(b, size), 64, 7, 2, pad=pad))
    x = b("max_pool", x, kernel=3, stride=2, pad=((0, 1), (0, 1)))
    for stage, repeats in enumerate((3, 4, 6, 3)):
        for position in range(repeats):
            last = position == repeats - 1 and stage < 3
            x = _slim_unit(b, x, 64 * 2**stage, 2 if last else 1)
    return _classified(b, x)


def _slim_unit(b: Builder, x: Value, width: int, stride: int) -> Value:
    h = b("relu", conv_bn(b, x, width, 1))
    h = b("relu", conv_bn(b, h, width, 3, stride, pad=1))
    h = conv_bn(b, h, 4 * width, 1)
    if x.type.shape[1] != 4 * width:
        x = conv_bn(b, x, 4 * width, 1, stride)
    elif stride > 1:
        x = b("max_pool", x, kernel=1, stride=stride)
    return b("relu", b("add", h, x))


def vgg(depth: int, norm: bool = False, size: Dim = 224) -> Graph:
    """Simonyan, Zisserman 2014."""
    repeats = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}[depth]
    b = Builder()
    x = image(b, size)
    for count, width in zip(repeats, (64, 128, 256, 512, 512), strict=True):
        for _ in range(count):
            x = b("conv", x, channels=width, kernel=3)
            x = b("relu", b("batch_norm", x) if norm else x)
        x = b("max_pool", x, kernel=2)
    b.output(features=x)
    return _dense(b, x, (4096, 4096))


def _dense(b: Builder, x: Value, widths: Sequence[int]) -> Graph:
    h = b("flatten", x)
    for width in widths:
        h = b("dropout", b("relu", b("linear", h, channels=width)))
    return b.output(logits=b("linear", h, channels=1000))


def alexnet(size: Dim = 224) -> Graph:
    """torchvision's, a single column."""
    b = Builder()
    x = image(b, size)
    x = b("relu", b("conv", x, channels=64, kernel=11, stride=4, pad=2))
    x = b("max_pool", x, kernel=3, stride=2)
    x = b("max_pool", b("relu", b("conv", x, channels=192, kernel=5)), kernel=3, stride=2)
    for width in (384, 256, 256):
        x = b("relu", b("conv", x, channels=width, kernel=3))
    return _dense(b, b("max_pool", x, kernel=3, stride=2), (4096, 4096))


def alexnet2012() -> Graph:
    """Krizhevsky et al. 2012: two columns as groups, 227 x 227 (its LRN holds no parameters)."""
    b = Builder()
    x = image(b, 227)
    x = b("relu", b("conv", x, channels=96, kernel=11, stride=4, pad="valid"))
    x = b("max_pool", x, kernel=3, stride=2)
    x = b("relu", b("conv", x, channels=256, kernel=5, groups=2))
    x = b("max_pool", x, kernel=3, stride=2)
    for width, groups in ((384, 1), (384, 2), (256, 2)):
        x = b("relu", b("conv", x, channels=width, kernel=3, groups=groups))
    return _dense(b, b("max_pool", x, kernel=3, stride=2), (4096, 4096))


def alexnet_slim(size: Dim = 224) -> Graph:
    """TF-Slim's alexnet_v2, up to pool5."""
    b = Builder()
    x = b("conv", image(b, size), channels=64, kernel=11, stride=4, pad="valid")
    x = b("conv", b("max_pool", x, kernel=3, stride=2), channels=192, kernel=5)
    x = b("max_pool", x, kernel=3, stride=2)
    for width in (384, 384, 256):
        x = b("conv", x, channels=width, kernel=3)
    return b.output(features=b("max_pool", x, kernel=3, stride=2))


def mobilenet(size: Dim) -> Graph:
    """Howard et al. 2017, TensorFlow's padding."""
    b = Builder()
    x = b("relu6", conv_bn(b, image(b, size), 32, 3, 2, pad="same"))
    widths = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
    strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
    for width, stride in zip(widths, strides, strict=True):
        channels = x.type.shape[1]
        x = b("relu6", conv_bn(b, x, channels, 3, stride, pad="same", groups=channels))
        x = b("relu6", conv_bn(b, x, width, 1))
    return _classified(b, x)


def unet(size: Dim = 572) -> Graph:
    """Ronneberger et al. 2015: valid convolutions, cropped skips, 1 -> 2 channels."""
    b = Builder()
    x = image(b, size, channels=1)
    skips: list[Value] = []
    for width in (64, 128, 256, 512):
        x = _pair(b, x, width)
        skips.append(x)
        x = b("max_pool", x, kernel=2)
    x = _pair(b, x, 1024)
    for width, skip in zip((512, 256, 128, 64), reversed(skips), strict=True):
        x = b("conv_transpose", x, channels=width, kernel=2, stride=2)
        x = _pair(b, b("concat", _cropped(b, skip, x), x), width)
    return b.output(map=b("conv", x, channels=2, kernel=1))


def _pair(b: Builder, x: Value, width: int) -> Value:
    for _ in range(2):
        x = b("relu", b("conv", x, channels=width, kernel=3, pad="valid"))
    return x


def _cropped(b: Builder, skip: Value, like: Value) -> Value:
    """The middle of a map, of the spatial size of another."""
    large, small = skip.type.shape[2], like.type.shape[2]
    assert isinstance(large, int)
    assert isinstance(small, int)
    first = (large - small) // 2
    return b("slice", skip, axes=(2, 3), start=first, stop=first + small)
