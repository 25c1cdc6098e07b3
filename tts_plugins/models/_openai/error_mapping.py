"""What the OpenAI client raises, as this package's errors: what happened, to whom, and what to do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

from tts_plugins._calls.charging import causes_of
from tts_plugins._http.failures import exchange_error
from tts_plugins._internal.error_bodies import ErrorBody, read_error
from tts_plugins._internal.http_errors import connection_error, cut, reply_error
from tts_plugins._internal.http_limits import Unreadable, redirect_error, redirected
from tts_plugins._internal.secrets import secrets_in, without_secrets
from tts_plugins.errors import CallTimedOut, MalformedResponse, TTSError
from tts_plugins.models._openai.stream import ErrorInReply


def translate(error: Exception, who: str, secrets: Iterable[str] = ()) -> TTSError:
    """Return the error of this package for one of the client's.

    Args:
        who: the model, and where it was asked.
        secrets: values that must not show.
    """
    secrets = [*secrets, *secrets_in(_headers(error))]
    ours = _ours(error)
    if (failed := exchange_error(ours or error, who, secrets, time.time())) is not None:
        return failed
    if isinstance(ours, TTSError):
        return ours
    broken = f"{who}: the stream broke off with an error"
    if isinstance(error, ErrorInReply):
        return reply_error(200, broken, error.body, secrets=secrets, now=time.time())
    import openai

    if isinstance(error, openai.APITimeoutError):
        return CallTimedOut(f"{who}: no complete answer in time; raise timeout, or lower max_tokens")
    if isinstance(error, openai.APIStatusError):
        headers, target = error.response.headers, error.response.headers.get("location")
        if 300 <= error.status_code < 400 and target:
            url = str(error.response.request.url)
            return redirect_error(who, redirected(url, target), url)
        return reply_error(error.status_code, who, _body(error), headers=headers, secrets=secrets, now=time.time())
    if isinstance(error, openai.APIConnectionError):
        return connection_error(error.__cause__ or error, who, secrets)
    if isinstance(error, openai.APIError) and error.body:
        return reply_error(200, broken, {"error": error.body}, secrets=secrets, now=time.time())
    said = cut(without_secrets(f"{type(error).__name__}: {error}", secrets))
    if isinstance(error, json.JSONDecodeError | openai.APIError | UnicodeDecodeError):
        return MalformedResponse(f"{who}: the answer is not valid JSON ({said})")
    # openai lets a reset in mid-stream through as it is, and anyio what it could not connect to.
    if type(error).__module__.startswith("httpx") or isinstance(error, BaseExceptionGroup | OSError):
        return connection_error(error, who, secrets)
    return MalformedResponse(f"{who}: the answer could not be read ({said})")


def refusal(error: Exception) -> tuple[int, ErrorBody] | None:
    """Return the status and what the server says, if it refused a request; None for any other error."""
    status = getattr(error, "status_code", None)
    return (status, read_error(_body(error))) if isinstance(status, int) else None


def _body(error: Any) -> object:
    """Return what the server wrote: the client keeps only a part, and shows it only if it knows the form."""
    try:
        return error.response.content or error.body
    except Exception:  # noqa: BLE001 - it was not read, or there is none
        return error.body or error.message


def _headers(error: Any) -> Any:
    return getattr(getattr(error, "request", None), "headers", None)


def _ours(error: BaseException) -> TTSError | Unreadable | None:
    """Return an error that our own code raised below the client, which wraps what it does not know."""
    return next((cause for cause in causes_of(error) if isinstance(cause, TTSError | Unreadable)), None)
