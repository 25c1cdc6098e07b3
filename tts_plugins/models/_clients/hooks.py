"""Hooks of HTTP clients: when a request leaves, where a redirect leads, how much an answer holds.

The clients that are ours have them as event hooks. Connections of the user's are not changed: `Bounded` wraps them.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import AsyncIterator
from typing import Any

from tts_plugins._internal.http_limits import ENCODINGS, BodyReader, redirect_error, redirected, same_origin
from tts_plugins._internal.request_sent import leaving


async def watch(request: Any) -> None:
    """Tell when the request leaves."""
    # The hook itself runs too early: the request has no connection yet, and may wait for one.
    request.extensions["trace"] = _traced


async def limit(response: Any) -> None:
    """Follow no redirect to another server, and read no answer without end.

    The client calls this before it reads the body, for each answer on the way.
    """
    target = response.headers.get("location")
    if response.is_redirect and target:
        url = str(response.request.url)
        if not same_origin(url, there := redirected(url, target)):
            raise redirect_error(url.partition("?")[0], there)
    reader = BodyReader(response.headers.get("content-encoding"), response.headers.get("content-length"))
    response.headers.pop("content-encoding", None)  # so that the client does not decompress it once more
    response.stream = _limited(type(response), response.stream, reader)


@functools.cache
def _limited_class(response: type) -> type:
    """Return a stream of the library that the client uses, httpx or its successor."""
    roots = (importlib.import_module(base.__module__.partition(".")[0]) for base in response.__mro__)
    base: type = next(found for root in roots if (found := getattr(root, "AsyncByteStream", None)) is not None)

    class Limited(base):  # type: ignore[misc]
        def __init__(self, inner: Any, reader: BodyReader) -> None:
            self._inner, self._reader = inner, reader

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for raw in self._inner:
                for piece in self._reader.feed(raw):
                    yield piece

        async def aclose(self) -> None:
            await self._inner.aclose()

    return Limited


def _limited(response: type, inner: Any, reader: BodyReader) -> Any:
    return _limited_class(response)(inner, reader)


class Bounded:
    """Connections of the user's, in a copy of the client that they were given to, whose answers keep our limits."""

    def __init__(self, connections: Any) -> None:
        self._connections = connections

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connections, name)

    async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
        """Send a request, and read its answer within the limits, unless it is to be streamed."""
        request.headers["Accept-Encoding"] = ENCODINGS  # their own client may ask for more than `limit` can read
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
