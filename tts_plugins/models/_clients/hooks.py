"""Hooks of HTTP clients: when a request leaves, where a redirect leads, how much an answer holds.

The clients that are ours have them as event hooks. Connections of the user's are not changed: `Bounded` wraps them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import AsyncIterator
from typing import Any

from tts_plugins._internal.http_errors import shown_address
from tts_plugins._internal.http_limits import ENCODINGS, BodyReader, check_redirect, redirected
from tts_plugins._internal.request_sent import leaving


async def watch(request: Any) -> None:
    """Tell when the request leaves."""
    # The hook itself runs too early: the request has no connection yet, and may wait for one.
    request.extensions["trace"] = _traced


async def ask(request: Any) -> None:
    """Accept the encodings that `limit` can read: a client accepts those of all packages that are installed."""
    request.headers["Accept-Encoding"] = ENCODINGS


async def limit(response: Any) -> None:
    """Follow no redirect to another server, or to another method, and read no answer without end.

    The client calls this before it reads the body, for each answer on the way.
    """
    target = response.headers.get("location")
    if response.is_redirect and target is not None:
        url = str(response.request.url)
        check_redirect(response.status_code, shown_address(url), url, redirected(url, target))
    encoding = response.headers.pop("content-encoding", None)  # so that the client does not decompress it once more
    pieces = _pieces(response.stream, encoding, response.headers.get("content-length"))
    if response.status_code >= 300:
        pieces = _unless_broken(pieces)
    kind: type = type(response)
    response.stream = _stream_class(kind)(response.stream, pieces)


async def _pieces(inner: Any, encoding: str | None, length: str | None) -> AsyncIterator[bytes]:
    reader = BodyReader(encoding, length)
    async for raw in inner:
        for piece in reader.feed(raw):
            yield piece


async def _unless_broken(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what an error says; whatever breaks meanwhile, its status is known, which the client raises."""
    with contextlib.suppress(Exception):
        async for piece in pieces:
            yield piece


@functools.cache
def _stream_class(response: type) -> type:
    """Return a stream of the library that the client uses, httpx or its successor."""
    roots = (importlib.import_module(base.__module__.partition(".")[0]) for base in response.__mro__)
    base: type = next(found for root in roots if (found := getattr(root, "AsyncByteStream", None)) is not None)

    class Limited(base):  # type: ignore[misc]
        def __init__(self, inner: Any, pieces: AsyncIterator[bytes]) -> None:
            self._inner, self._pieces = inner, pieces

        def __aiter__(self) -> AsyncIterator[bytes]:
            return self._pieces

        async def aclose(self) -> None:
            await self._inner.aclose()

    return Limited


class Bounded:
    """Connections of the user's, in a copy of the client that they were given to, whose answers keep our limits."""

    def __init__(self, connections: Any) -> None:
        self._connections = connections

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connections, name)

    async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
        """Send a request, and read its answer within the limits, unless it is to be streamed."""
        await ask(request)
        response = await self._connections.send(request, stream=True, **options)
        try:
            await limit(response)
            if not stream:
                await response.aread()
        except BaseException:
            await response.aclose()
            raise
        return response


async def _traced(event: str, _: object) -> None:
    if event.endswith("send_request_headers.started"):
        leaving()
