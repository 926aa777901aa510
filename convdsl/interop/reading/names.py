"""Names fit for layers, weights and inputs, each given once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from convdsl.interop.reading.tensors import Known, Tensor
from convdsl.ir import build

if TYPE_CHECKING:
    import onnx

_PLAIN = re.compile(r"[^A-Za-z0-9_.]+")

_WEIGHT = re.compile(r"(.+?)_(?:w|W|scale|weight)(?:_0)?")
"""Weights as Caffe2 calls them: `fire2/squeeze1x1_w_0`."""

_SCOPES = "pkg.torch.onnx.name_scopes"
"""Where PyTorch's exporter of graphs says which modules a node is in: `['', 'blocks',
'blocks.0', 'blocks.0.attn', 'softmax_3']`. Its nodes are called `node_softmax_3`."""


class Names(build.Names):
    """Which names are taken, of those that the language can say."""

    def unused(self, wanted: str) -> str:
        """A name like the one wanted that nothing has yet."""
        return super().unused(_PLAIN.sub("_", wanted).strip(".") or "value")


class LayerNames:
    """What layers are called, after the modules and weights that a file tells of."""

    def __init__(self, nodes: Iterable[onnx.NodeProto], tensors: Iterable[str]) -> None:
        """`tensors`: the names of what is stored."""
        modules = {module for node in nodes if (module := _module(node)) is not None}
        self._around = {
            ".".join(parts[:count])
            for parts in (module.split(".") for module in modules if module)
            for count in range(len(parts))
        }
        self._layers = {name.rpartition(".")[0] for name in tensors} - self._around
        self._met: set[str] = set()

    def of(self, proto: onnx.NodeProto, owned: Mapping[str, Tensor], op_name: str) -> str:
        """By the weights (`layer1.0.conv1.weight`), else by the module, else by the node, else by
        the operator. What is done beside other modules, or beside a layer's own arithmetic, is
        called by the operator, too."""
        module, known = _module(proto), _of_weights(owned)
        if known is not None and (module is None or known not in self._met):
            self._met.add(known)  # exporters store equal weights of several layers once
            return known
        if module is None:
            return _of_node(proto) or op_name
        if not owned and module in self._layers:
            module = module.rpartition(".")[0]
        own = op_name if not owned and module in self._around else ""
        return ".".join(filter(None, (module, own))) or op_name


def _module(proto: onnx.NodeProto) -> str | None:
    """The innermost module, "" for the network itself, None where nothing is said of any."""
    for entry in proto.metadata_props:
        if entry.key == _SCOPES:
            scopes = re.findall(r"'([^']*)'", entry.value)
            return scopes[-2] if len(scopes) > 1 else None
    return None


def _of_weights(owned: Mapping[str, Tensor]) -> str | None:
    for operand, tensor in owned.items():
        if isinstance(tensor, Known) and tensor.name.endswith(f".{operand}"):
            return tensor.name.removesuffix(f".{operand}")
        caffe = _WEIGHT.fullmatch(tensor.name) if isinstance(tensor, Known) else None
        if caffe and operand == "weight":
            return caffe[1].rpartition("/")[2]
    return None


def _of_node(proto: onnx.NodeProto) -> str | None:
    parts = [part for part in proto.name.split("/") if part]
    if len(parts) > 1:  # /layer1/layer1.0/conv1/Conv, as PyTorch wrote them before
        kept: list[str] = []
        for part in parts[:-1]:
            prefix = ".".join(kept)
            kept = [part] if prefix and part.startswith(f"{prefix}.") else [*kept, part]
        return ".".join(kept)
    return parts[0] if parts and not _is_generated(proto) else None


def _is_generated(proto: onnx.NodeProto) -> bool:
    """Whether a node's name is but its kind and a number (`Conv_12`)."""
    return re.fullmatch(rf"(?:node_)?{re.escape(proto.op_type)}[_:]?\d*", proto.name) is not None
