from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

def save_file(
    tensor_dict: Mapping[str, NDArray[Any]], filename: str, metadata: dict[str, str] | None = ...
) -> None: ...
def save(
    tensor_dict: dict[str, NDArray[Any]], metadata: dict[str, str] | None = None
) -> bytes: ...
