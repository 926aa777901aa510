"""What artifacts say of the target that their code is made for, and what runs such code: a record
for each kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from convdsl.diagnostics import InputError, expect
from convdsl.kernel.cuda_target import ARCHITECTURES, PRECISION_OF, CudaTarget
from convdsl.kernel.target import Target
from convdsl.runtime.code import Code
from convdsl.runtime.cpu.code import LoadedCode
from convdsl.runtime.cpu.processor import check_processor, proof
from convdsl.runtime.device import HOST, Device

if TYPE_CHECKING:  # what a card runs is loaded for one: networks on a processor start without
    from convdsl.runtime.cuda.program import CardCode


@dataclass(frozen=True)
class Kind:
    """One kind of target.

    to_json, from_json: the target in a manifest; reading raises what makes no sense.
    sealed: what its code takes for granted of it.
    proof: what tells later that the processor here can run code for it, or nothing.
    check: ArtifactError, or InputError, unless code for the target (of that artifact, with that
        proof) runs on a device.
    device: by its number.
    arch: which code a device runs best, where that is a choice (`--arch`).
    load: what runs code, with its weights, on a device; with the target, where the code was made
        here and nobody has checked that the device runs it.
    """

    to_json: Callable[[Any], dict[str, Any]]
    from_json: Callable[[Mapping[str, Any]], Any]
    sealed: Callable[[Any], list[str]]
    proof: Callable[[Any], str]
    check: Callable[[Any, Device, str, str], None]
    device: Callable[[int], Device]
    arch: Callable[[Device], str | None]
    load: Callable[[Code, Any, Device, Any], LoadedCode | CardCode]


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is no whole number")
    return value


def _target_to_json(target: Target) -> dict[str, Any]:
    return {
        "triple": target.triple,
        "cpu": target.cpu,
        "features": target.features,
        "vector_bytes": target.vector_bytes,
        "vector_registers": target.vector_registers,
    }


def _target_from_json(data: Mapping[str, Any]) -> Target:
    return Target(
        str(data["triple"]),
        str(data["cpu"]),
        str(data["features"]),
        _whole(data["vector_bytes"]),
        _whole(data["vector_registers"]),
    )


def _check_processor(target: Target, _: Device, what: str, proven: str) -> None:
    check_processor(target, what, proven)


def _card_from_json(data: Mapping[str, Any]) -> CudaTarget:
    precision = PRECISION_OF[data["precision"]]
    if data["arch"] not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {data['arch']}")
    return CudaTarget(str(data["arch"]), precision)


def _card(number: int) -> Device:
    from convdsl.runtime.cuda.device import CudaDevice

    return CudaDevice(number)


def _arch_of_card(device: Device) -> str:
    from convdsl.runtime.cuda.device import CudaDevice
    from convdsl.runtime.cuda.launching import nearest_architecture

    assert isinstance(device, CudaDevice)
    return nearest_architecture(device.card())


def _check_card(target: CudaTarget, device: Device, what: str, _: str) -> None:
    from convdsl.runtime.cuda.device import CudaDevice
    from convdsl.runtime.cuda.launching import only_there, runs_on

    assert isinstance(device, CudaDevice)
    card = device.card()
    if not runs_on(target.arch, card):
        made_for = f"{target.arch}{only_there(target.arch)}"
        raise InputError(f"{what} is made for {made_for}; {card.name} here is {card.arch}")


def _load_on_card(code: Code, weights: Any, device: Device, _: CudaTarget | None) -> CardCode:
    from convdsl.runtime.cuda.device import CudaDevice
    from convdsl.runtime.cuda.program import CardCode

    assert isinstance(device, CudaDevice)
    return CardCode(code, weights, device)


KINDS: Mapping[str, Kind] = {
    "cpu": Kind(
        _target_to_json,
        _target_from_json,
        lambda target: [target.triple, target.cpu, target.features],
        proof,
        _check_processor,
        lambda _: HOST,
        lambda _: None,
        lambda code, weights, _, target: LoadedCode(code, weights, target),
    ),
    "cuda": Kind(
        asdict,
        _card_from_json,
        lambda target: [target.arch, target.precision],
        lambda _: "",
        _check_card,
        _card,
        _arch_of_card,
        _load_on_card,
    ),
}
"""By the names of targets (`--target`), which begin the names of devices (`--device`)."""

_CARDS = ("gpu", "gpu:0", "nvidia", "card")
"""What a card is called elsewhere."""

_NAME = re.compile(r"(cpu|cuda)(?::(\d{1,4}))?")


def kind_of(target: Target | CudaTarget) -> str:
    """The name of a target's kind."""
    return "cpu" if isinstance(target, Target) else "cuda"


def find_device(name: str) -> tuple[str, Device]:
    """The kind of target that a device runs, and the device: `cpu`, `cuda`, `cuda:1`. InputError
    for what is no such name. Whether it is there is not asked."""
    expect("the device", name, str)
    said = _NAME.fullmatch(name)
    if said is None or (said[1] == "cpu" and said[2]):
        meant = "; did you mean cuda?" if name.lower() in _CARDS else ""
        raise InputError(f"unknown device `{name}`; there are cpu, and cuda, cuda:1, ...{meant}")
    return said[1], KINDS[said[1]].device(int(said[2] or 0))
