"""Hooks of a client's own methods: whether it has begun to send a request, and that it follows no redirect.

What a client raises before it sends is about the arguments it was given.
"""

from __future__ import annotations

import json
import weakref
from contextvars import ContextVar, Token
from typing import Any

from tts_plugins.models._clients.hooks import Bounded


class ArgumentsRefused(Exception):
    """The client refused the arguments, by the error that is the cause, and has sent nothing."""


class Outgoing:
    """One request, from the call of the client's method on.

    Attributes:
        sent: the client has put it together, and what follows may reach a server.

    Raises:
        ArgumentsRefused: as it ends.
    """

    def __init__(self, client: Any) -> None:
        self._client, self.sent = client, False

    def __enter__(self) -> Outgoing:
        self._token: Token[Outgoing | None] = _REQUEST.set(self)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        _REQUEST.reset(self._token)
        if error is not None and self._refused(error):
            if isinstance(error, UnicodeEncodeError):
                half = ascii(error.object[error.start : error.start + 1])
                raise ArgumentsRefused(f"{half} is half a character, and cannot be sent; take it out") from error
            raise ArgumentsRefused(str(error)) from error

    def _refused(self, error: BaseException) -> bool:
        """Return whether the client raised this over the arguments: it tells when it sends, and has sent nothing.

        A JSON error is not about the arguments: it comes from an answer, perhaps that of a token provider.
        """
        about = isinstance(error, TypeError | ValueError) and not isinstance(error, json.JSONDecodeError)
        return about and not self.sent and isinstance(getattr(core(self._client), _HOOK, None), _Telling)


def sending() -> None:
    """Note that the request that runs here is put together, and that what follows may reach a server."""
    if (outgoing := _REQUEST.get()) is not None:
        outgoing.sent = True


# Set inside a task, never across a yield; a synchronous client's thread has a copy of the context.
_REQUEST: ContextVar[Outgoing | None] = ContextVar("tts_plugins_outgoing", default=None)
_HOOK = "_prepare_request"  # of OpenAI's clients: called with the whole request, right before it goes out
_OPTIONS = "_prepare_options"  # of the same: called with the options of a request, before that is made
_CONNECTIONS = "_client"  # of the same: what sends


class _Telling:
    """The hook of a client, which tells, too. It holds the client weakly: cycles keep connections from being closed."""

    def __init__(self, client: Any) -> None:
        self._hook, self._client = getattr(type(client), _HOOK), weakref.ref(client)

    def __call__(self, request: Any) -> Any:
        sending()
        return self._hook(self._client(), request)


class _Staying:
    """The hook of a client over connections of the user's, which would follow redirects to whatever server is named."""

    def __init__(self, client: Any) -> None:
        self._hook, self._client = getattr(type(client), _OPTIONS), weakref.ref(client)

    def __call__(self, options: Any) -> Any:
        options.follow_redirects = False
        return self._hook(self._client(), options)


def core(client: Any) -> Any:
    """Return the client that has the hook: this one, or the one that an adapter wraps; None if neither has it."""
    return next((c for c in (client, getattr(client, "_client", None)) if hasattr(type(c), _HOOK)), None)


def tell(client: Any) -> None:
    """Have a client of our own making tell when it sends; one without the hook stays as it is."""
    if (found := core(client)) is not None:
        setattr(found, _HOOK, _Telling(found))


def bound(client: Any) -> None:
    """Have a client of our own making, over connections of the user's, follow no redirect and keep our limits."""
    if (found := core(client)) is not None and hasattr(type(found), _OPTIONS):
        setattr(found, _OPTIONS, _Staying(found))
        if hasattr(getattr(found, _CONNECTIONS, None), "aclose"):
            setattr(found, _CONNECTIONS, Bounded(getattr(found, _CONNECTIONS)))
