"""What a framework's failed call is charged."""

from __future__ import annotations

from collections.abc import Iterator

from tts_plugins.errors import Charge

_REFUSED = ("ConnectError", "ConnectionRefusedError", "ClientConnectorError")


def charge_of(error: BaseException, status: object) -> Charge:
    """A call and no tokens where the server refused it (a `status` of 4xx) or was not there; else its reserve.

    A refused connection is recognised by the class names of the error and its causes, since each framework brings its
    own HTTP client.
    """
    if isinstance(status, int) and 400 <= status < 500:
        return "call"
    return "call" if any(type(cause).__name__ in _REFUSED for cause in causes_of(error)) else "reserve"


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes, each once: whoever raises one may make it its own cause."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__
