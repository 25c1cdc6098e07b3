"""What a framework's failed call is charged, and whether other candidates can escape its error."""

from __future__ import annotations

from tts_plugins._calls.charging import causes_of
from tts_plugins._internal.error_bodies import read_error
from tts_plugins._internal.values import attribute_of
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


def is_fatal(error: BaseException) -> bool:
    """Return whether a provider refuses the key (401), or the account is used up (402, `insufficient_quota`).

    Only errors that carry a `status_code` count, as those of the providers' clients do, or a `status` beside
    a `provider`, as DSPy's do: what a tool of the user met on the web says nothing of the other candidates.
    """
    return any(_fatal_status(cause) for cause in causes_of(error))


def _fatal_status(error: BaseException) -> bool:
    status, body, code = attribute_of(error, "status_code"), attribute_of(error, "body"), None
    if status is None and attribute_of(error, "provider") is not None:
        status, code = attribute_of(error, "status"), attribute_of(error, "provider_code")
    if status not in (400, 403, 429):
        return status in (401, 402)
    return "insufficient_quota" in f"{error} {code}" or (body is not None and read_error({"error": body}).status == 402)
