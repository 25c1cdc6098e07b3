"""The streams that a scaled client returns: the client's own types, over chunks that are there already."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence

from openai import AsyncStream, Stream
from openai.types.chat import ChatCompletionChunk

from tts_plugins import Result


class ScaledStream(Stream[ChatCompletionChunk]):
    """The chunks of the chosen answer. `_tts` is the result of the search; there is no one HTTP `response`."""

    def __init__(self, chunks: Sequence[ChatCompletionChunk], result: Result) -> None:
        self._iterator: Iterator[ChatCompletionChunk] = iter(chunks)
        self._tts = result

    def close(self) -> None:
        """Yield no more; no connection is open."""
        self._iterator = iter(())


class AsyncScaledStream(AsyncStream[ChatCompletionChunk]):
    """`ScaledStream`, asynchronous."""

    def __init__(self, chunks: Sequence[ChatCompletionChunk], result: Result) -> None:
        self._iterator: AsyncIterator[ChatCompletionChunk] = _each(iter(chunks))
        self._tts = result

    async def close(self) -> None:
        """Yield no more; no connection is open."""
        self._iterator = _each(iter(()))


async def _each(chunks: Iterator[ChatCompletionChunk]) -> AsyncIterator[ChatCompletionChunk]:
    for chunk in chunks:
        yield chunk
