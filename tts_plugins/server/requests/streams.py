"""A chat request answered as a stream of server-sent events: heartbeats first, then text as soon as it is final."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from tts_plugins._internal.chat_messages import deltas_of
from tts_plugins.server.errors import APIError, api_error
from tts_plugins.server.requests.chat import ChatCall, Outcome
from tts_plugins.server.requests.forms import base_of, usage_of
from tts_plugins.server.upstream import dumps

DONE = b"data: [DONE]\n\n"
# Seconds in which a request may fail with a status of its own, before its stream begins.
_EARLY = 0.5
_Item = dict[str, Any] | str | None


class ChatStream:
    """The stream of one request. Call `cancel` when it is left early."""

    def __init__(self, call: ChatCall) -> None:
        self.call = call
        self._queue: asyncio.Queue[_Item] = asyncio.Queue()
        self._begun = asyncio.Event()
        self._texts: dict[str, str] = {}
        self._sent = ""
        self._seen = 0
        self._held: dict[str, Any] | None = None
        self._created = int(time.time())
        self._task: asyncio.Task[Outcome] = call.service.start(call.run(self._tap, self._hear))
        self._task.add_done_callback(lambda _: self._put(None))

    async def begin(self) -> None:
        """Wait a moment for the first text, or for an error, which then has a status of its own.

        Raises:
            APIError, TTSError: the search failed.
        """
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EARLY):
                    await self._begun.wait()
            if self._task.done():
                self._task.result()
        except BaseException:
            self._task.cancel()
            raise

    def cancel(self) -> None:
        """Cancel the request's work if it has not ended."""
        self._task.cancel()

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield the events, as they go over the wire."""
        heartbeat = self.call.service.settings.heartbeat
        yield b": tts-plugins\n\n"
        while True:
            try:
                async with asyncio.timeout(heartbeat):
                    item = await self._queue.get()
            except TimeoutError:
                yield f": {self._seen} candidates so far\n\n".encode()
                continue
            if item is None:
                break
            for chunk in self._chunks(item):
                yield self._encode(chunk)
        for frame in self._last():
            yield frame

    def _put(self, item: _Item) -> None:
        self._queue.put_nowait(item)
        self._begun.set()

    def _tap(self, chunk: Mapping[str, Any]) -> None:
        self._put(dict(chunk))

    def _hear(self, event: Mapping[str, Any]) -> None:
        if event.get("kind") == "candidate" and event.get("end") is not None and not event.get("pruned"):
            self._seen += 1
            if self.call.request.n == 1:
                self._texts[str(event.get("candidate"))] = str(event.get("text") or "")
        elif event.get("kind") == "committed" and self.call.request.n == 1:
            prefix = shared_prefix(event.get("steps") or (), self._texts)
            if len(prefix) > len(self._sent):
                self._put(prefix)

    def _chunks(self, item: dict[str, Any] | str) -> list[dict[str, Any]]:
        if isinstance(item, str):  # what all that survive share
            first = [] if self._sent else [{"index": 0, "delta": {"role": "assistant", "content": ""}}]
            more, self._sent = item[len(self._sent) :], item
            return [self._chunk([c]) for c in [*first, {"index": 0, "delta": {"content": more}}]]
        made = []
        for choice in item.get("choices") or ():
            if choice.get("finish_reason"):
                self._held = {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}
                choice = {**choice, "finish_reason": None}
                if not any(choice.get("delta", {}).values()):
                    continue
            made.append(self._chunk([choice]))
        return made

    def _last(self) -> list[bytes]:
        """Return what follows once the solve has ended: the rest of the answer, the usage, and the end mark."""
        try:
            made = self._rest(self._task.result())
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it goes into the stream, in OpenAI's form
            return [self._encode({"error": self._error_body(error)}), DONE]
        return [*map(self._encode, made), DONE]

    def _error_body(self, error: BaseException) -> dict[str, Any]:
        if isinstance(error, asyncio.CancelledError):
            error = APIError(503, "The server is being stopped.", code="shutting_down")
        reported: dict[str, Any] = api_error(error, self.call.service.upstream.hide).body()["error"]
        return reported

    def _encode(self, chunk: dict[str, Any]) -> bytes:
        return b"data: " + dumps(chunk) + b"\n\n"

    def _rest(self, outcome: Outcome) -> list[dict[str, Any]]:
        request, origin, best = self.call.request, outcome.exchange.choice_of, outcome.chosen(self._sent)
        if self._held is not None or outcome.exchange.tapped:
            choices = [[self._held or {"index": 0, "delta": {}, "finish_reason": "stop"}]]
        else:
            whole = self.call.choices(outcome, best)
            choices = [[delta] for choice in whole for delta in deltas_of(choice, len(self._sent))]
        chunks = [{**self._chunk(choice), **base_of(origin, best)} for choice in choices]
        last: dict[str, Any] = {"tts": self.call.tts(outcome, best)}
        if request.include_usage is not False:
            last["usage"] = usage_of(outcome.usage)
        if request.include_usage:
            return [*chunks, {**self._chunk([]), **last}]
        chunks[-1] |= last  # some clients read the usage that they did not ask for, and none is disturbed by it
        return chunks

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.call.name, "object": "chat.completion.chunk", "created": self._created,
            "model": self.call.request.model, "choices": choices,
        }  # fmt: skip


def shared_prefix(steps: Any, texts: Mapping[str, str]) -> str:
    """Return the beginning of a text that has these steps, separators included; empty if no text has all."""
    for text in texts.values():
        at = 0
        for step in steps:
            found = text.find(step, at)
            if found < 0 or text[at:found].strip():
                break
            at = found + len(step)
        else:
            return text[:at]
    return ""
