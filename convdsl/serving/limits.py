"""What a server takes at most, and what it says to what is more."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    batch: int = 8  # samples that run together
    delay: float = 0.0  # how long a request waits for others while nothing runs
    body: int = 32 << 20  # of a request
    bodies: int = 128 << 20  # of all requests that are being read or wait
    queue: int = 1024  # requests that wait, by model
    tensors: int = 64  # in a request
    images: int = 64  # in a request
    timeout: float = 30.0  # to send a request's body; to wait for its answer; to take that
    header: float = 10.0  # to send a request's head; between requests
    connections: int = 4096
    farewell: float = 30.0  # for what is at work when the server stops
    sizes: int = 8  # of open sizes, how many are kept compiled


class Refusal(Exception):
    """An answer to a request that is not served: an HTTP status and what is wrong with it."""

    def __init__(self, status: int, message: str, retry: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.retry = retry  # seconds after which it may be tried again


BUSY = 503
"""What is answered while there is too much to do: it may be asked again."""

LONGEST_QUOTE = 80
"""Characters of a stranger's that an answer repeats."""


def quoted(text: object) -> str:
    """A stranger's text in an answer."""
    said = str(text)
    return said if len(said) <= LONGEST_QUOTE else f"{said[:LONGEST_QUOTE]}..."
