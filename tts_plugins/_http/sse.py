"""Server-sent events, from bytes as they arrive. Pure but for the waiting."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from tts_plugins._internal import json_bytes
from tts_plugins._internal.error_bodies import decoded, json_of
from tts_plugins._internal.http_limits import Unreadable

DONE = "[DONE]"
_LATE = 0.1  # seconds for what comes after that


class EventReader:
    """Splits bytes into the data of events; what is not an event is kept, since it may be an answer in one piece.

    Lines end with LF, CR or CRLF, wherever the bytes are cut.
    """

    def __init__(self) -> None:
        self._line: list[bytes] = []  # in pieces, since one without end would be copied again and again
        self._data: list[bytes] = []
        self._other: list[bytes] = []
        self._after_cr = self._events = False
        self._name = b""

    def feed(self, piece: bytes) -> list[str]:
        """Return the events that these bytes complete."""
        if self._after_cr and piece[:1] == b"\n":
            piece = piece[1:]
        if piece:
            self._after_cr = piece[-1:] == b"\r"
        self._line.append(piece)
        if b"\n" not in piece and b"\r" not in piece:
            return []
        lines = b"".join(self._line).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._line = [lines.pop()]
        return [event for line in lines if (event := self._take(line)) is not None]

    def rest(self) -> list[str]:
        """Return the event that the end of the stream completes."""
        line, self._line = b"".join(self._line), []
        events = [self._take(line), self._take(b"")]
        return [event for event in events if event is not None]

    @property
    def whole(self) -> bytes | None:
        """The answer, if it was not a stream of events at all."""
        return None if self._events else b"\n".join(self._other).strip()

    def _take(self, line: bytes) -> str | None:
        name, colon, value = line.removeprefix(b"\xef\xbb\xbf").partition(b":")
        if not line.strip():
            if not self._data:
                return None
            made, self._data = b"\n".join(self._data).decode("utf-8", "replace"), []
            called, self._name = self._name, b""
            return json_of({"type": "error", "error": decoded(made)}) if called == b"error" else made
        if name == b"data" and colon:
            self._events = True
            self._data.append(value.removeprefix(b" "))
            if value.strip() == DONE.encode():
                return self._take(b"")  # nothing follows that it has to be separated from
        elif name == b"event":
            self._name = value.strip()
        elif name not in (b"id", b"retry", b"") and not self._events:
            self._other.append(line)
        return None


async def events(pieces: AsyncIterator[bytes], reader: EventReader) -> AsyncIterator[Any]:
    """Yield each event as decoded JSON, and `DONE` when the server says that the stream has ended.

    Raises:
        Unreadable: an event is not JSON.
    """
    done = False

    def read(found: list[str]) -> Iterator[Any]:
        nonlocal done
        for event in found:
            with contextlib.suppress(Unreadable) if done else contextlib.nullcontext():
                for each in decode(event):
                    done = done or each == DONE
                    yield each

    async for piece in until_done(pieces, lambda: done):
        for each in read(reader.feed(piece)):
            yield each
    for each in read(reader.rest()):
        yield each


async def until_done(pieces: AsyncIterator[bytes], done: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Yield the pieces of a stream, and after its end what comes within a moment.

    That may be a usage, or the end of the answer, after which its connection can be kept. A stream is whole once it is
    done, whether the server then keeps the answer open, as some do for ever, or the connection breaks.
    """
    async for piece in pieces:
        yield piece
        if done():
            break
    else:
        return
    late = []
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_LATE):
            async for piece in pieces:
                late.append(piece)  # noqa: PERF401 - what came before it broke counts
    for piece in late:
        yield piece


def decode(event: str) -> list[Any]:
    """Return the JSON of an event, or of each of its lines, where a server leaves no blank line between events.

    `DONE` is itself.
    """
    if event.strip() in (DONE, ""):
        return [DONE] if event.strip() else []  # one without data keeps the connection alive
    try:
        return [json_bytes.decode(event)]
    except ValueError as error:
        if "\n" in event:
            with contextlib.suppress(Unreadable):
                return [each for line in event.split("\n") for each in decode(line)]
        raise Unreadable(f"an event of the stream is not valid JSON ({error}): {event[:80]!r}") from None
