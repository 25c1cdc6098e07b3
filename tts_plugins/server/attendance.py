"""Cancel the work of callers that disconnect, whether they wait for an answer or read a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse

from tts_plugins.server.errors import APIError


async def attended(request: Request, work: Awaitable[Any]) -> Any:
    """Return what the work returns; cancel it when the caller disconnects.

    Raises:
        APIError: the caller disconnected.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise caller_gone()
        return task.result()
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()


class Stream(StreamingResponse):
    """A streamed answer that calls `ended` once, however it ends.

    The generator's own `finally` is not enough: where the caller goes away before the first frame, the generator has
    not begun, and a generator that has not begun runs no `finally`.
    """

    def __init__(self, frames: AsyncIterator[bytes], headers: dict[str, str], ended: Callable[[], Any]) -> None:
        super().__init__(frames, headers=headers)
        self._ended = ended

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the answer."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()


def caller_gone() -> APIError:
    """Return the error for a caller that disconnected, which nobody reads but the metrics."""
    return APIError(499, "The caller went away.", code="caller_gone")


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
