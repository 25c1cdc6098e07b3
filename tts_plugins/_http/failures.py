"""How an exchange over HTTP can fail, and which error of this package that is. Pure.

None of these carries a header of the request, a key that the server repeats, or an address with its password: they end
in logs and traces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tts_plugins._internal.http_errors import retry_after, server_words, status_error
from tts_plugins.errors import ConnectionFailed, MalformedResponse, ModelError, RequestRefused, ServerFailed


class ExchangeFailed(Exception):
    """Base: a request brought no answer that can be read."""


class NotReached(ExchangeFailed):
    """No connection could be made, so that nothing was sent.

    Attributes:
        refused: the address answers, and nobody listens there.
        final: another attempt fails in the same way.
    """

    def __init__(self, reason: str, *, refused: bool = False, final: bool = False) -> None:
        super().__init__(reason)
        self.refused, self.final = refused, final


class ConnectionBroke(ExchangeFailed):
    """The connection ended after the request had been sent, before the whole answer was there."""


class TooLarge(ExchangeFailed):
    """The answer holds more bytes than anything that was asked for can take."""


class StreamFailed(ExchangeFailed):
    """The server reported an error within a stream.

    Attributes:
        body: what it said.
    """

    def __init__(self, body: Any) -> None:
        super().__init__(str(body)[:300])
        self.body = body


class StatusFailed(ExchangeFailed):
    """The server answered with an HTTP status of 300 or above.

    Attributes:
        status_code: of the answer.
        body: of the answer: the `error` in it, where it is a JSON object that has one, else all of it.
        param, code, type: members of the body, where it is an object.
        headers: of the answer.
    """

    def __init__(self, status: int, body: Any, headers: Mapping[str, str]) -> None:
        super().__init__(f"Error code: {status} - {str(body)[:2000]}")
        self.status_code, self.headers = status, headers
        self.body = body.get("error", body) if isinstance(body, Mapping) else body
        members = self.body if isinstance(self.body, Mapping) else {}
        self.param, self.code, self.type = members.get("param"), members.get("code"), members.get("type")


def model_error(failed: ExchangeFailed, who: str, now: float, *, names: str | None = None) -> ModelError:
    """The error that says whether to retry and what to charge.

    Args:
        who: the model, and where it was asked.
        now: seconds of the epoch.
        names: what to look at where the server does not know the model or the path.
    """
    if isinstance(failed, StatusFailed):
        more = {} if names is None else {"names": names}
        quota = "insufficient_quota" in (failed.code, failed.type)
        after = retry_after(failed.headers, now)
        said = server_words(failed.body, {})
        return status_error(failed.status_code, who, said, after=after, quota=quota, **more)
    if isinstance(failed, StreamFailed):
        return ServerFailed(f"{who}: the stream broke off with an error: {server_words(failed.body, {})}")
    if isinstance(failed, NotReached):
        hint = "; is the server running there?" if failed.refused else ""
        if failed.final:
            return RequestRefused(f"{who}: no connection can be made: {failed}")
        return ConnectionFailed(f"{who}: the connection failed ({failed}){hint}", refused=True)
    if isinstance(failed, TooLarge):
        return MalformedResponse(f"{who}: {failed}")
    return ConnectionFailed(f"{who}: the connection failed ({failed})")
