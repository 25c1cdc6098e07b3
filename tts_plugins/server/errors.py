"""Errors as OpenAI's clients expect them: a status, and `{"error": {message, type, param, code}}`. No I/O."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from tts_plugins.errors import (
    AllCandidatesFailed,
    AuthenticationFailed,
    BudgetExhausted,
    CallTimedOut,
    CandidateError,
    ConfigurationError,
    ConnectionFailed,
    DataError,
    DeadlineExceeded,
    ModelNotFound,
    RateLimited,
    RequestRefused,
    ServerFailed,
    SolveCancelled,
)

_log = logging.getLogger("tts_plugins.server")


class APIError(Exception):
    """An answer other than success.

    Args:
        status: of HTTP.
        message: for the caller; it holds no key and no address.
        code, param: as OpenAI's errors have them.
        kind: the error's `type`; by the status where left out.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message)  # as it is made, so that it can be pickled
        self.status, self.message, self.code, self.param = status, message, code, param
        self.kind = kind or _kind(status)
        self.headers = dict(headers or {})

    def __str__(self) -> str:
        return self.message

    def body(self) -> dict[str, Any]:
        """Return the answer's JSON."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}


class UpstreamMisconfigured(ConfigurationError):
    """The upstream cannot be used as the server's operator has set it up, whatever a caller asks."""


def _kind(status: int) -> str:
    if status == 401:
        return "authentication_error"
    if status == 403:
        return "permission_error"
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "api_error"


def bad_field(name: str, why: str, *, code: str = "invalid_value") -> APIError:
    """Return the error for a request field that cannot be honoured."""
    return APIError(400, f"{name}: {why}", code=code, param=name)


def used_up(message: str) -> APIError:
    """Return the error for a budget that has nothing left."""
    return APIError(429, message, code="insufficient_quota", kind="insufficient_quota")


def busy(message: str, after: float = 1.0) -> APIError:
    """Return the error for a limit that time alone lifts."""
    return APIError(429, message, code="rate_limit_exceeded", headers={"retry-after": f"{max(1, round(after))}"})


def api_error(error: BaseException, hide: Callable[[str], str] = str) -> APIError:
    """Return the answer for whatever a solve raised; `hide` takes out of its text what no caller may see."""
    made = _mapped(error)
    made.message = hide(made.message)
    return made


def _mapped(error: BaseException) -> APIError:
    if isinstance(error, APIError):
        return error
    if isinstance(error, BudgetExhausted):
        if isinstance(error.__cause__, CandidateError):
            return _candidate(error.__cause__)  # it is the upstream's failures that used it up
        return used_up(f"The budget has no room for a single candidate: {error}")
    if isinstance(error, DeadlineExceeded):
        return APIError(504, f"The time for this request is up: {error}", code="timeout")
    if isinstance(error, TimeoutError):
        return APIError(504, "The upstream did not answer in time.", code="upstream_timeout")
    if isinstance(error, SolveCancelled):
        return APIError(503, "The server is being stopped.", code="shutting_down")
    if isinstance(error, AllCandidatesFailed):
        return _failed(error)
    if isinstance(error, CandidateError):
        return _candidate(error)
    if isinstance(error, UpstreamMisconfigured):
        why = "The upstream cannot be used as it is set up; the server's log says why."
        return APIError(502, why, code="upstream_misconfigured")
    if isinstance(error, ConfigurationError | DataError):
        return APIError(400, str(error), code="invalid_value", param=_field_of(str(error)))
    log_failure(error)
    return APIError(500, f"The server failed ({type(error).__name__}); its log says where.", code="internal_error")


def _failed(error: AllCandidatesFailed) -> APIError:
    """Return the answer where every candidate failed: the first cause decides, since most have the same."""
    cause = next((e for e in error.errors if isinstance(e, CandidateError)), None) or error.__cause__
    if isinstance(cause, BudgetExhausted | DeadlineExceeded | CandidateError):
        return _mapped(cause)
    return APIError(502, f"No candidate could be had: {error}", code="upstream_error")


def _candidate(error: CandidateError) -> APIError:
    if isinstance(error, AuthenticationFailed):
        # The server's own words may quote the key, which is not the caller's.
        return APIError(502, "The upstream does not accept this server's key.", code="upstream_authentication")
    if isinstance(error, ModelNotFound):
        return APIError(404, str(error), code="model_not_found", param="model")
    if isinstance(error, RequestRefused):
        return APIError(400, str(error), code="upstream_refused")
    if isinstance(error, RateLimited):
        if not error.retryable:
            return used_up(str(error))
        return busy(str(error), error.retry_after or 1.0)
    if isinstance(error, CallTimedOut):
        return APIError(504, str(error), code="upstream_timeout")
    if isinstance(error, ConnectionFailed):
        # Its text holds an address.
        return APIError(502, "The upstream cannot be reached, or broke the connection.", code="upstream_unreachable")
    code = "upstream_error" if isinstance(error, ServerFailed) else "upstream_malformed"
    return APIError(502, str(error), code=code)


def _field_of(message: str) -> str | None:
    """Return the request field that a message of this package begins with, such as `BestOfN: n=0 must be …`."""
    words = message.partition(": ")[2].partition("=")
    return words[0] if words[1] and words[0].isidentifier() else None


def log_failure(error: BaseException) -> None:
    """Log where an unexpected error arose, without its message, which may quote a prompt or a key."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    where = " > ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames)
    _log.error("a request failed: %s at %s", type(error).__name__, where)
