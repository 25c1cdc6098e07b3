"""What a failed HTTP answer means, for every client alike: the error that says what to do. Pure."""

from __future__ import annotations

import email.utils
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tts_plugins.errors import (
    AuthenticationFailed,
    CallTimedOut,
    ModelError,
    ModelNotFound,
    RateLimited,
    RequestRefused,
    ServerFailed,
)

_DAY = 86400
_NAMES = "check the model's name and base_url"


def status_error(
    status: int, who: str, said: str, *, after: float | None = None, names: str = _NAMES, quota: bool = False
) -> ModelError:
    """The error for an HTTP status of 400 or above.

    Args:
        who: the model, and where it was asked.
        said: the server's own words.
        after: seconds that it asked to wait.
        names: what to look at where the model or the path is not known.
        quota: the limit is a used-up quota, which does not come back within any wait worth having.
    """
    if status in (401, 403):
        return AuthenticationFailed(f"{who}: {status}, the key is not accepted: {said}; check api_key")
    if status == 404:
        return ModelNotFound(f"{who}: 404, no such model or path: {said}; {names}")
    if status == 408:
        return CallTimedOut(f"{who}: 408, {said}", retry_after=after)
    if status == 429:
        limited = RateLimited(f"{who}: 429, {said}", retry_after=after)
        limited.retryable = not quota
        return limited
    if status >= 500:
        return ServerFailed(f"{who}: {status}, {said}", retry_after=after)
    return RequestRefused(f"{who}: {status}, the request is refused: {said}")


def retry_after(headers: Mapping[str, str] | Any, now: float) -> float | None:
    """Seconds to wait, as the server asks: milliseconds, seconds, or a date, against `now` in seconds of the epoch."""
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
            seconds = email.utils.mktime_tz(parsed) - now
        if 0 <= seconds < _DAY:
            return seconds
    return None


def server_words(body: object, headers: Mapping[str, str] | Any) -> str:
    """What the server said, in one line of 300 characters at most.

    Args:
        body: of its answer; a JSON object is looked into for an error's message.
        headers: of the request: keys in them are taken out of the text, since some servers quote them.
    """
    if isinstance(body, Mapping):
        inner = body.get("error", body)
        body = inner.get("message", inner) if isinstance(inner, Mapping) else inner
    text = " ".join(str(body).split())
    for name, value in headers.items():
        key = str(value or "").removeprefix("Bearer ")
        if name.lower() in ("authorization", "api-key", "x-api-key") and len(key) > 3:
            text = text.replace(key, "…")
    return text if len(text) <= 300 else text[:297] + "…"


def shown_address(url: str) -> str:
    """An address for messages and traces, without the password or the query that it may carry."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
