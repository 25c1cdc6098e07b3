"""Server-sent events, read as their bytes arrive. Pure.

Source: the WHATWG standard's "Interpreting an event stream", but for names, ids and retry times, which no server of
chat completions gives a meaning to.
"""

from __future__ import annotations


class EventStream:
    """The data of each event, once the event is complete."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    @property
    def pending(self) -> int:
        """Bytes of the event that is not complete yet."""
        return len(self._rest) + sum(map(len, self._data))

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of the events that these bytes complete."""
        text = self._rest + chunk
        held = b""
        if b"\r" in text:
            if text.endswith(b"\r"):  # its line feed may still be on the way
                text, held = text[:-1], b"\r"
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = text.split(b"\n")
        self._rest = rest + held
        return [event for line in lines if (event := self._line(line)) is not None]

    def finish(self) -> list[bytes]:
        """Return the data of an event that the end of the stream completes."""
        last, self._rest = self._rest.removesuffix(b"\r"), b""
        events = [self._line(last) if last else None, self._line(b"")]
        return [event for event in events if event is not None]

    def _line(self, line: bytes) -> bytes | None:
        if not line:
            data, self._data = self._data, []
            return b"\n".join(data) if data else None
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        return None
