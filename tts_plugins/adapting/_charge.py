"""What a framework's failed call is charged."""

from __future__ import annotations

from tts_plugins.errors import Charge

_REFUSED = ("ConnectError", "ConnectionRefusedError", "ClientConnectorError")


def charge_of(error: BaseException, status: object) -> Charge:
    """A call and no tokens where the server refused it (a `status` of 4xx) or was not there; else its reserve.

    Connections that were refused are told by the names of the error and its causes, since each framework brings its
    own HTTP client.
    """
    if isinstance(status, int) and 400 <= status < 500:
        return "call"
    cause: BaseException | None = error
    seen: set[int] = set()  # whoever raises an error may make it its own cause
    while cause is not None and id(cause) not in seen:
        if type(cause).__name__ in _REFUSED:
            return "call"
        seen.add(id(cause))
        cause = cause.__cause__
    return "reserve"
