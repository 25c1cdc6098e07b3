"""The streams that a scaled client returns: the client's own types, over chunks that have arrived already."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from openai import AsyncStream, Stream

from tts_plugins import Result


class ScaledStream(Stream[Any]):
    """The chunks of the chosen answer.

    Attributes:
        response: the HTTP response that the chosen answer came in; it has been read.
    """

    def __init__(self, chunks: Sequence[Any], result: Result, response: Any = None) -> None:
        self._iterator: Iterator[Any] = iter(chunks)
        self._tts, self.response = result, response

    def close(self) -> None:
        """End the stream; there is no open connection."""
        self._iterator = iter(())


class AsyncScaledStream(AsyncStream[Any]):
    """`ScaledStream`, asynchronous."""

    def __init__(self, chunks: Sequence[Any], result: Result, response: Any = None) -> None:
        self._iterator: AsyncIterator[Any] = _each(iter(chunks))
        self._tts, self.response = result, response

    async def close(self) -> None:
        """End the stream; there is no open connection."""
        self._iterator = _each(iter(()))


async def _each(chunks: Iterator[Any]) -> AsyncIterator[Any]:
    for chunk in chunks:
        yield chunk
