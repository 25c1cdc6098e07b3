"""One request through OpenAI's client, and the reading of its answer, which other ways of sending share."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Protocol

from tts_plugins._http.sse import EventReader, events
from tts_plugins._internal.error_bodies import decoded
from tts_plugins._internal.http_limits import Unreadable
from tts_plugins.models._clients.transport import Outgoing
from tts_plugins.models._openai.completions import as_chat, as_chat_chunks, completion_body
from tts_plugins.models._openai.stream import gather

Hear = Callable[[Any], None]
_STREAMED = re.compile(rb"(\xef\xbb\xbf)?\s*(data|event|id|retry|):")


class Prepared(Protocol):
    """A request that is ready to be sent."""

    def body(self) -> Awaitable[bytes]: ...
    def pieces(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]: ...


class FastClient(Protocol):
    """A client that sends what it is sure of by itself, and knows a real one for the rest."""

    def prepared(self, path: str, request: Mapping[str, Any]) -> Prepared | None: ...
    async def real(self) -> Any: ...


async def send(client: Any, body: Mapping[str, Any], *, stream: bool, hear: Hear | None = None) -> Any:
    """Return the answer to a chat's body, or to one that has a `prompt` instead of messages.

    Args:
        client: a `FastClient`, an `AsyncOpenAI`, or what has its `chat.completions.create` and `completions.create`.
        body: the arguments of that method, without `stream`.
        hear: called with each chunk of a stream as it arrives.

    Returns:
        Decoded JSON in the form of a chat completion, a `Streamed`, or text if the answer is not JSON.

    Raises:
        Exception: the client's own errors, as they are.
        ArgumentsRefused: the client does not take the body.
        Unreadable, ErrorInReply: as `read_whole` and `read_stream`.
    """
    chat, prepare = "prompt" not in body, getattr(client, "prepared", None)
    if prepare is None:
        return await _through(client, body, stream=stream, hear=hear)
    request = body if chat else completion_body(body)
    if stream:
        request = {**request, "stream": True}
    made: Prepared | None = prepare("chat/completions" if chat else "completions", request)
    if made is None:
        return await _through(await client.real(), body, stream=stream, hear=hear)
    if stream:
        async with made.pieces() as pieces:
            return await read_stream(pieces, chat=chat, asked=request.get("n") or 1, hear=hear)
    answer, asked = made.body(), request.get("n") or 1
    del made, prepare, request, client, body  # what many requests at once need not keep
    return await _read(await answer, chat, asked)


async def _through(client: Any, body: Mapping[str, Any], *, stream: bool, hear: Hear | None) -> Any:
    """Return the answer that the client's own method gets."""
    chat = "prompt" not in body
    sent = dict(body) if chat else completion_body(body)
    endpoint = client.chat.completions if chat else client.completions
    with Outgoing(client):
        if not stream:
            raw = getattr(endpoint, "with_raw_response", None)
            if raw is None:
                answer = await endpoint.create(**sent)
                return answer if chat else as_chat(answer)
            return await _read((await raw.create(**sent)).http_response.content, chat, sent.get("n") or 1)
        async with (
            endpoint.with_streaming_response.create(**sent, stream=True) as response,
            contextlib.aclosing(response.iter_bytes()) as pieces,
        ):
            return await read_stream(pieces, chat=chat, asked=sent.get("n") or 1, hear=hear)


async def _read(body: bytes, chat: bool, asked: int) -> Any:
    """Return an answer that was not asked for as a stream, though some gateways send nothing else."""
    if _STREAMED.match(body) is None:
        return read_whole(body, chat=chat)

    async def at_once() -> AsyncIterator[bytes]:
        yield body

    return await read_stream(at_once(), chat=chat, asked=asked)


def read_whole(body: bytes, *, chat: bool = True) -> Any:
    """Return an answer in one piece: decoded JSON in the form of a chat completion, or text if it is not JSON.

    Raises:
        Unreadable: it begins like JSON but is not valid.
    """
    answer = decoded(body)
    if isinstance(answer, str) and answer.lstrip()[:1] in ("{", "["):
        raise Unreadable(f"the answer is not valid JSON: {answer[:80]!r}")
    return answer if chat else as_chat(answer)


async def read_stream(
    pieces: AsyncIterator[bytes], *, chat: bool = True, asked: int = 1, hear: Hear | None = None
) -> Any:
    """Return a streamed answer, gathered; one that was not streamed after all is read as `read_whole` does.

    Raises:
        Unreadable: the stream was cut, or holds something that is not JSON.
        ErrorInReply: one of its events is an error.
    """
    reader = EventReader()
    chunks = events(pieces, reader) if hear is None else _heard(events(pieces, reader), hear)
    made = await gather(chunks if chat else as_chat_chunks(chunks), asked)
    if reader.whole is not None and not made.choices:
        return read_whole(reader.whole, chat=chat)
    if chat:
        return made
    # An empty text ends a solution; no text at all is not an answer.
    return replace(made, choices=[c if c["said_text"] else {**c, "message": None} for c in made.choices])


async def _heard(chunks: AsyncIterator[Any], hear: Hear) -> AsyncIterator[Any]:
    async for chunk in chunks:
        if isinstance(chunk, Mapping):
            hear(chunk)
        yield chunk
