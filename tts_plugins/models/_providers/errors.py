"""What the SDKs of providers raise, as this package's errors."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tts_plugins._calls.charging import causes_of
from tts_plugins._http.failures import exchange_error
from tts_plugins._internal.error_bodies import ErrorBody, read_error
from tts_plugins._internal.http_errors import connection_error, cut, reply_error
from tts_plugins._internal.http_limits import Unreadable
from tts_plugins._internal.secrets import secrets_in, without_secrets
from tts_plugins._internal.values import field
from tts_plugins.errors import CallTimedOut, ConfigurationError, MalformedResponse, TTSError

_SETTINGS = {
    "MissingApiKeyError", "UnsupportedParameterError", "UnsupportedProviderError", "ImportError", "NoCredentialsError",
    "PartialCredentialsError", "NoRegionError", "ParamValidationError", "InvalidEndpointConfigurationError",
    "ProfileNotFound", "TokenRetrievalError", "DefaultCredentialsError",
}  # fmt: skip
_LATE = {"APITimeoutError", "ReadTimeoutError", "ConnectTimeoutError", "TimeoutException", "TimeoutError"}
_BROKEN = {
    "APIConnectionError",
    "HTTPClientError",
    "TransportError",
    "ClientError",
    "OSError",
    "ClientConnectionError",
    "ConnectionError",
}


class _Answer(NamedTuple):
    status: int
    body: object
    headers: Any


def provider_error(error: Exception, who: str, secrets: Iterable[str] = ()) -> TTSError:
    """Return the error of this package for one of a provider's SDK."""
    secrets = [*secrets, *secrets_in(getattr(getattr(error, "request", None), "headers", None))]
    below = next((cause for cause in causes_of(error) if isinstance(cause, TTSError | Unreadable)), None)
    if isinstance(below, TTSError):
        return below
    if below is not None and (unread := exchange_error(below, who, secrets, time.time())) is not None:
        return unread
    said = cut(without_secrets(f"{type(error).__name__}: {error}", secrets))
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & _SETTINGS or type(error) in (TypeError, ValueError):
        return ConfigurationError(f"{who}: the request cannot be sent ({said}); check the model's settings and its key")
    if names & _LATE:
        return CallTimedOut(f"{who}: no complete answer in time; raise timeout, or lower max_tokens")
    if (answer := _answer_of(error)) is not None:
        return reply_error(
            answer.status, who, answer.body, headers=answer.headers, secrets=secrets, now=time.time(),
            names="check the model's name and the provider",
        )  # fmt: skip
    if names & _BROKEN:
        return connection_error(error, who, secrets)
    return MalformedResponse(f"{who}: the answer could not be read ({said})")


def provider_refusal(error: Exception) -> tuple[int, ErrorBody] | None:
    """Return the status and what the provider says, if it refused a request; None for any other error."""
    answer = _answer_of(error)
    return None if answer is None else (answer.status, read_error(answer.body))


def _answer_of(error: Any) -> _Answer | None:
    """Return the answer in an error of Anthropic's, OpenAI's or Google's SDK, or of botocore, which has a mapping."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        meta = response.get("ResponseMetadata", {})
        status, headers = meta.get("HTTPStatusCode"), meta.get("HTTPHeaders")
        said = response.get("Error") or {}
        body: object = {"message": said.get("Message") or response.get("message"), "code": said.get("Code")}
    else:
        status = getattr(error, "status_code", None) or getattr(error, "code", None)
        headers = getattr(response, "headers", None)
        body = field(error, "body") or field(error, "details") or str(error)
    return _Answer(status, body, headers) if isinstance(status, int) and 400 <= status < 600 else None
