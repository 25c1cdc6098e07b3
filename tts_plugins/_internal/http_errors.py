"""What a failed HTTP answer means, for every client alike: the error that says what to do. Pure."""

from __future__ import annotations

import contextlib
import email.utils
import errno
import math
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tts_plugins._internal.error_bodies import ErrorBody, read_error
from tts_plugins._internal.http_limits import header
from tts_plugins._internal.secrets import secrets_in, without_secrets
from tts_plugins._internal.values import linked
from tts_plugins.errors import (
    AuthenticationFailed,
    CallTimedOut,
    ConfigurationError,
    ConnectionFailed,
    ModelError,
    ModelNotFound,
    QuotaExhausted,
    RateLimited,
    RequestRefused,
    ServerFailed,
)

_NAMES = "check the model's name and base_url, which mostly ends in /v1"
_LONGEST = 300
_YEAR = 366 * 86400  # more than that is a mistake, not a wait
# Classes of HTTP clients, by name, since each framework brings its own client.
_REFUSED = {"ConnectError", "ConnectionRefusedError", "ClientConnectorError", "ClientConnectorDNSError",
            "EndpointConnectionError", "gaierror"}  # fmt: skip
_UNSENT = {"UnsupportedProtocol", "InvalidURL", "LocalProtocolError", "InvalidUrlClientError", "NonHttpUrlClientError",
           "OverflowError", "UnicodeEncodeError", "TooManyRedirects"}  # fmt: skip
_TLS = {"SSLError", "SSLCertVerificationError", "ClientConnectorCertificateError", "ClientConnectorSSLError"}
# What OpenSSL says of bytes that are no TLS, such as an answer in plain HTTP; the second is that of OpenSSL 3.2.
_NOT_TLS = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"}
_PROXY = {"ProxyError", "ClientProxyConnectionError", "ClientHttpProxyError", "SOCKSError", "ProxyConnectionError"}


def reply_error(
    status: int,
    who: str,
    body: object,
    *,
    headers: Mapping[str, str] | Any = None,
    secrets: Iterable[str] = (),
    now: float = 0.0,
    names: str = _NAMES,
) -> ModelError:
    """Return the error for an answer that holds one, whatever its HTTP status.

    Args:
        status: of the answer; if it is 200, as gateways send it, the body decides.
        body: bytes, text or decoded JSON.
        headers: of the answer.
        secrets: what must not show.
        now: seconds of the epoch.
    """
    said = read_error(body)
    code = said.status if status < 300 or (said.status in (401, 402) and status in (400, 403, 429)) else status
    text = cut(without_secrets(said.text, secrets)) or "without a word"
    asked = (retry_after(each, now) for each in (headers or {}, {"retry-after": said.wait}))
    after = next((seconds for seconds in asked if seconds is not None), None)
    return status_error(code or 500, who, text, after=after, names=names, overflow=said.overflow)


def status_error(
    status: int,
    who: str,
    said: str,
    *,
    after: float | None = None,
    names: str = _NAMES,
    overflow: bool | None = None,
) -> ModelError:
    """Return the error for an HTTP status of 400 or above.

    Args:
        who: the model, and where it was asked.
        said: the server's own words.
        after: seconds that it asked to wait.
        names: what to check if the model or the path is not known.
        overflow: the request is longer than the model's context; read from `said` if it is None.
    """
    if status == 402:
        return QuotaExhausted(f"{who}: {status}, the account is used up: {said}; check its credit and billing")
    if status in (401, 403):
        return AuthenticationFailed(f"{who}: {status}, the key is not accepted: {said}; check api_key")
    if status == 407:
        return RequestRefused(f"{who}: 407, the proxy wants a login: {said}; check HTTP_PROXY and HTTPS_PROXY")
    if status == 413 or (status != 429 and (ErrorBody(said).overflow if overflow is None else overflow)):
        return RequestRefused(
            f"{who}: {status}, the request is longer than the model reads: {said}; lower max_tokens, or shorten the "
            "prompt"
        )
    if status == 404:
        return ModelNotFound(f"{who}: 404, no such model or path: {said}; {names}")
    if status == 408:
        return CallTimedOut(f"{who}: 408, {said}", retry_after=after)
    if status == 429:
        return RateLimited(f"{who}: 429, {said}", retry_after=after)
    if status >= 500:
        failed = ServerFailed(f"{who}: {status}, {said}", retry_after=after)
        if status in (501, 505):  # the next attempt would fail too
            failed.retryable, failed.charge = False, "call"
        return failed
    return RequestRefused(f"{who}: {status}, the request is refused: {said}")


def connection_error(error: BaseException, who: str, secrets: Iterable[str] = ()) -> ModelError | ConfigurationError:
    """Return the error for a connection that was not made, or that broke.

    Returns:
        A ConfigurationError if nothing was sent, and nothing can be until a setting is changed: an address, a
        header or a proxy that cannot be used, or too few file descriptors.
    """
    chain = list(linked(error))
    names = {kind.__name__ for each in chain for kind in type(each).__mro__}.union(
        *(getattr(each, "kinds", ()) for each in chain)  # of an error that this one represents
    )
    root = next((each for each in reversed(chain) if str(each)), chain[-1])
    shown = str(root) if hasattr(root, "kinds") else f"{type(root).__name__}: {root}"
    reason = cut(without_secrets(shown, secrets))
    if any(getattr(each, "errno", None) in (errno.EMFILE, errno.ENFILE) for each in chain):
        return ConfigurationError(
            f"{who}: no file descriptor is left for a connection ({reason}); lower concurrency, or raise `ulimit -n`"
        )
    if names & _UNSENT:
        return ConfigurationError(f"{who}: the request cannot be sent ({reason}); check base_url, headers and api_key")
    if any(getattr(each, "reason", None) in _NOT_TLS for each in chain if isinstance(each, OSError)):
        return ConfigurationError(
            f"{who}: the server does not speak TLS ({reason}); give the address as http://, or the port for https://"
        )
    if names & _TLS:
        failed = ConnectionFailed(
            f"{who}: the TLS handshake failed ({reason}); check the server's certificate and the scheme of base_url",
            refused=True,
        )
        failed.retryable = not any("certificate" in str(each).lower() for each in chain)
        return failed
    if names & _PROXY:
        return ConnectionFailed(
            f"{who}: the proxy lets no request through ({reason}); check HTTP_PROXY, HTTPS_PROXY and ALL_PROXY",
            refused=True,
        )
    refused = bool(names & _REFUSED)
    hint = "; is the server running there?" if refused else ""
    return ConnectionFailed(f"{who}: the connection failed ({reason}){hint}", refused=refused)


def retry_after(headers: Mapping[str, str] | Any, now: float) -> float | None:
    """Return the seconds that the server asks to wait. `now`, in seconds of the epoch, is subtracted from a date."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        said = header(headers, name)
        if said is not None and 0 <= (seconds := _seconds(said, scale, now)) < _YEAR:
            return seconds
    return None


def _seconds(said: str, scale: float, now: float) -> float:
    """Return the seconds that a header says, the most if there are several; NaN if it is neither numbers nor a date."""
    if len(said) > _LONGEST:
        return math.nan
    with contextlib.suppress(ValueError):
        return max(float(part.strip().removesuffix("s")) for part in said.split(",")) / scale
    try:
        date = email.utils.parsedate_tz(said)
        return math.nan if date is None else email.utils.mktime_tz(date) - now
    except (ValueError, OverflowError):  # a day that no calendar has
        return math.nan


def server_words(body: object, headers: Mapping[str, str] | Any) -> str:
    """Return what the server said, in one line of 300 characters at most.

    Args:
        body: of its answer; a JSON object is looked into for an error's message.
        headers: of the request: their values are taken out of the text, since some servers quote keys.
    """
    return cut(without_secrets(read_error(body).text, secrets_in(headers)))


def cut(text: str) -> str:
    """Return the text in one line, of 300 characters at most."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def shown_address(url: str) -> str:
    """Return an address for messages and traces, without the password or the query that it may carry."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
