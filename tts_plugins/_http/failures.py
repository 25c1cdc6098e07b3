"""How an exchange over HTTP can fail. Pure.

None of these refers to an error of aiohttp, which holds the request's headers: they end in logs and traces.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tts_plugins._internal.error_bodies import decoded
from tts_plugins._internal.http_errors import connection_error, reply_error
from tts_plugins._internal.http_limits import Unreadable
from tts_plugins._internal.secrets import without_secrets
from tts_plugins._internal.values import field
from tts_plugins.errors import MalformedResponse, TTSError


class ExchangeFailed(Exception):
    """No answer came, or only a part of it. The `__cause__` is the system's error, if there is one.

    Attributes:
        kinds: the names of the classes of the library's error, from which `connection_error` knows what happened.
    """

    def __init__(self, reason: str, kinds: frozenset[str] = frozenset()) -> None:
        super().__init__(reason)
        self.kinds = kinds


class StatusFailed(Exception):
    """The server answered with an HTTP status of 300 or above.

    Attributes:
        status_code: of the answer.
        body: of the answer, as it came.
        headers: of the answer.

    It has the names that errors of OpenAI's client have, too.
    """

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        super().__init__(status, body, headers)  # as it is made, so that it can be pickled
        self.status_code, self.body, self.headers, self.message = status, body, headers, str(self)

    def __str__(self) -> str:
        return f"Error code: {self.args[0]}"

    @property
    def request_id(self) -> str | None:
        """The server's own number of the request."""
        return self.headers.get("x-request-id")

    @property
    def code(self) -> Any:
        """What kind of error the body says it is."""
        return field(self._error, "code")

    @property
    def param(self) -> Any:
        """The field of the request that the body says is wrong."""
        return field(self._error, "param")

    @property
    def type(self) -> Any:
        """The class of errors that the body says it belongs to."""
        return field(self._error, "type")

    @property
    def _error(self) -> Any:
        body = decoded(self.body)
        return body.get("error", body) if isinstance(body, Mapping) else None


def exchange_error(
    error: BaseException, who: str, secrets: Iterable[str], now: float, *, names: str | None = None
) -> TTSError | None:
    """The error of this package for a failed exchange; None for any other error.

    Args:
        who: the model, and where it was asked.
        secrets: values that must not show.
        now: seconds of the epoch.
        names: what to look at where the server does not know the model or the path.
    """
    if isinstance(error, StatusFailed):
        more = {} if names is None else {"names": names}
        said = error.body
        return reply_error(error.status_code, who, said, headers=error.headers, secrets=secrets, now=now, **more)
    if isinstance(error, ExchangeFailed):
        return connection_error(error, who, secrets)
    if isinstance(error, Unreadable):
        unread = MalformedResponse(f"{who}: {without_secrets(str(error), secrets)}")
        unread.retryable = not error.final
        return unread
    return None
