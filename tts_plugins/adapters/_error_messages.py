"""What a provider's error says, and what its wrappers leave out: the cause beneath, the address, what to do. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

from tts_plugins._calls.charging import causes_of
from tts_plugins._internal.secrets import secrets_in, without_secrets
from tts_plugins._internal.values import attribute_of
from tts_plugins.adapters._charge import charge_of

_FIXES = {
    401: "check api_key",
    403: "check api_key",
    404: "check the model's name and base_url, which mostly ends in /v1",
}


def described(error: BaseException) -> str:
    """The error's kind and text; what its causes say besides; for one of a server, its address and what to do.

    Keys that the request was sent with do not show, where the server says them again.
    """
    causes = list(causes_of(error))
    return without_secrets(_said(error, causes), {secret for cause in causes for secret in _secrets(cause)})


def _said(error: BaseException, causes: list[BaseException]) -> str:
    said = f"{type(error).__name__}: {error}"
    besides = [cause for cause in causes[1:] if str(cause) and str(cause) not in said]
    if besides:
        said += f" ({type(besides[-1]).__name__}: {besides[-1]})"
    address = next((found for cause in causes if (found := _address(cause))), None)
    if address is None:
        return said
    status = attribute_of(error, "status_code")
    fix = _FIXES.get(status) if isinstance(status, int) else None
    if status is None and charge_of(error, None) == "call":  # the connection was refused
        fix = "is the server running there?"
    return f"{said}, at {address}" + (f"; {fix}" if fix else "")


def _secrets(error: BaseException) -> frozenset[str]:
    try:
        return secrets_in(getattr(attribute_of(error, "request"), "headers", None))
    except (RuntimeError, TypeError, ValueError):  # headers of another kind
        return frozenset()


def _address(error: BaseException) -> str | None:
    """Without what may be secret in it: a user's name, a query."""
    url = getattr(attribute_of(error, "request"), "url", None)
    parts = urlsplit(str(url or ""))
    if not parts.hostname:
        return None
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
