"""How an exchange over HTTP can fail. Pure.

None of these refers to an error of aiohttp, which holds the request's headers: they end in logs and traces.
"""

from __future__ import annotations

from collections.abc import Mapping


class ExchangeFailed(Exception):
    """No answer came, or only a part of it. What stands behind it is the `__cause__`, where that is the system's.

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
    """

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        super().__init__(f"Error code: {status}")
        self.status_code, self.body, self.headers, self.message = status, body, headers, str(self)
