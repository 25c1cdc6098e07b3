"""What the OpenAI client raises, as this package's errors: what happened, to whom, and what to do."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tts_plugins.errors import (
    AuthenticationFailed,
    CallTimedOut,
    ConnectionFailed,
    MalformedResponse,
    ModelError,
    ModelNotFound,
    RateLimited,
    RequestRefused,
    ServerFailed,
)


def translate(error: Exception, who: str) -> ModelError:
    """The error of this package that stands for one of the client's."""
    import openai

    if isinstance(error, openai.APITimeoutError):
        return CallTimedOut(f"{who}: no complete answer in time; raise timeout, or lower max_tokens")
    if isinstance(error, openai.APIStatusError):
        return _status(error, who)
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__
        refused = "ConnectError" in type(cause).__name__ or isinstance(cause, ConnectionRefusedError)
        reason = f"{type(cause).__name__}: {cause}" if cause is not None and str(cause) else type(cause).__name__
        mend = "; is the server running there?" if refused else ""
        return ConnectionFailed(f"{who}: the connection failed ({reason}){mend}", refused=refused)
    if isinstance(error, openai.APIError) and isinstance(error.body, dict):
        return ServerFailed(f"{who}: the stream broke off with an error: {_said(error)}")
    if isinstance(error, json.JSONDecodeError | openai.APIError | UnicodeDecodeError):
        return MalformedResponse(f"{who}: the answer is no valid JSON ({error})")
    if type(error).__module__.startswith("httpx"):  # openai 2.x lets a reset in mid-stream through as it is
        return ConnectionFailed(f"{who}: the connection broke ({type(error).__name__}: {error})")
    return MalformedResponse(f"{who}: the answer could not be read ({type(error).__name__}: {error})")


def _status(error: Any, who: str) -> ModelError:
    status, said = error.status_code, _said(error)
    after = _retry_after(error.response.headers)
    if status in (401, 403):
        return AuthenticationFailed(f"{who}: {status}, the key is not accepted: {said}; check api_key")
    if status == 404:
        return ModelNotFound(f"{who}: 404, no such model or path: {said}; check the model's name and base_url")
    if status == 429:
        limited = RateLimited(f"{who}: 429, {said}", retry_after=after)
        # A used-up quota does not come back within any wait worth having.
        limited.retryable = getattr(error, "code", None) != "insufficient_quota"
        return limited
    if status == 408:
        return CallTimedOut(f"{who}: 408, {said}", retry_after=after)
    if status >= 500:
        return ServerFailed(f"{who}: {status}, {said}", retry_after=after)
    return RequestRefused(f"{who}: {status}, the request is refused: {said}")


def _said(error: Any) -> str:
    body = error.body
    if isinstance(body, dict):
        inner = body.get("error", body)
        body = inner.get("message", inner) if isinstance(inner, dict) else inner
    text = _without_keys(" ".join(str(body if body else error.message).split()), error.request.headers)
    return text if len(text) <= 300 else text[:297] + "…"


def _without_keys(text: str, headers: Any) -> str:
    """The text without the keys that the request carried: some servers quote them."""
    for name in ("authorization", "api-key", "x-api-key"):
        key = str(headers.get(name) or "").removeprefix("Bearer ")
        if len(key) > 3:
            text = text.replace(key, "…")
    return text


def shown_address(url: str) -> str:
    """An address for messages and traces, without the password or the query that it may carry."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _retry_after(headers: Any) -> float | None:
    """Seconds to wait, as the server asks: milliseconds, seconds, or a date."""
    import email.utils
    import time

    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) / scale
        except ValueError:
            parsed = email.utils.parsedate_tz(value)
            if parsed is None:
                continue
            seconds = email.utils.mktime_tz(parsed) - time.time()
        if 0 <= seconds < 86400:
            return seconds
    return None
