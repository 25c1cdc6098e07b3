"""What the OpenAI client raises, as this package's errors: what happened, to whom, and what to do."""

from __future__ import annotations

import json
import time
from typing import Any

from tts_plugins._http.failures import ExchangeFailed, model_error
from tts_plugins._internal.http_errors import retry_after, server_words, status_error
from tts_plugins.errors import CallTimedOut, ConnectionFailed, MalformedResponse, ModelError, ServerFailed


def translate(error: Exception, who: str) -> ModelError:
    """The error of this package that stands for one of the client's."""
    if isinstance(error, ExchangeFailed):
        return model_error(error, who, time.time())
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
        return ServerFailed(f"{who}: the stream broke off with an error: {_words(error)}")
    if isinstance(error, json.JSONDecodeError | openai.APIError | UnicodeDecodeError):
        return MalformedResponse(f"{who}: the answer is no valid JSON ({error})")
    if type(error).__module__.startswith("httpx"):  # openai 2.x lets a reset in mid-stream through as it is
        return ConnectionFailed(f"{who}: the connection broke ({type(error).__name__}: {error})")
    return MalformedResponse(f"{who}: the answer could not be read ({type(error).__name__}: {error})")


def _status(error: Any, who: str) -> ModelError:
    return status_error(
        error.status_code,
        who,
        _words(error),
        after=retry_after(error.response.headers, time.time()),
        quota=getattr(error, "code", None) == "insufficient_quota",
    )


def _words(error: Any) -> str:
    return server_words(error.body or error.message, error.request.headers)
