"""What a search sends to `dspy.streamify`: the program's status messages and its own, and the chunks of the winner."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import Any, TypeVar

import anyio
import dspy
from dspy.streaming.messages import StatusMessage

T = TypeVar("T")
_log = logging.getLogger("tts_plugins_dspy")
_said = set[str]()
_LEFT = (anyio.ClosedResourceError, anyio.BrokenResourceError)  # what a stream raises whose reader has left


class Stream:
    """The stream that the caller reads, from whichever thread or loop a candidate runs on.

    Args:
        stream: where DSPy's own programs send what they stream.
        loop: the loop on which it is read.
        free: this loop waits for nothing that a candidate does, so that candidates may wait for it.
    """

    def __init__(self, stream: Any, loop: asyncio.AbstractEventLoop, *, free: bool) -> None:
        self._stream, self._loop, self._free = stream, loop, free
        self._sent: list[futures.Future[None]] = []
        self._full: asyncio.Task[None] | None = None  # waits for room in the stream; used on its loop only

    @classmethod
    def here(cls, *, sync: bool) -> Stream | None:
        """Return the stream around this call; None where there is none, or where nothing can be sent to it."""
        stream = dspy.settings.get("send_stream")
        if stream is None:
            return None
        loop = _loop_of_caller(sync)
        if isinstance(stream, Relay) and (loop is not None or not _on_loop()):
            return cls(stream, stream.loop, free=stream.free)
        if loop is None:
            _say_once(
                "a search that is called synchronously on the event loop, or outside of asyncio, cannot stream; call "
                "the program through dspy.streamify, or by acall"
            )
            return None
        return cls(stream, loop, free=sync)

    async def send(self, item: Any) -> None:
        """Send it, and wait until it is sent, unless the reader's loop may wait for this one."""
        if asyncio.get_running_loop() is self._loop:
            await self._stream.send(item)
            return
        self.soon(item)
        if self._free:
            await self.await_sent()

    def soon(self, item: Any) -> None:
        """Have it sent, in order, from any thread."""
        sent: futures.Future[None] = futures.Future()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads the stream any more
            self._loop.call_soon_threadsafe(self._put, item, sent)
            self._sent.append(sent)

    def send_nowait(self, item: Any) -> None:
        """Send it, on the reader's loop.

        Raises:
            anyio.WouldBlock: the reader has to take something first.
        """
        self._stream.send_nowait(item)

    def _put(self, item: Any, sent: futures.Future[None]) -> None:
        # A task only where the reader is behind: a loop that ends before a task's first step complains of it.
        if self._full is None:
            with contextlib.suppress(anyio.WouldBlock):
                with contextlib.suppress(*_LEFT):
                    self.send_nowait(item)
                return sent.set_result(None)
        self._full = self._loop.create_task(self._put_after(self._full, item, sent))

    async def _put_after(self, before: asyncio.Task[None] | None, item: Any, sent: futures.Future[None]) -> None:
        try:
            if before is not None:
                await asyncio.wait([before])
            with contextlib.suppress(*_LEFT):
                await self._stream.send(item)
        finally:
            if self._full is asyncio.current_task():
                self._full = None
            sent.set_result(None)

    def wait(self) -> None:
        """Wait on a thread until all is sent."""
        for sent in self._taken():
            while not sent.done() and self._loop.is_running():
                futures.wait([sent], timeout=0.5)  # the loop may end without it

    async def await_sent(self) -> None:
        """`wait`, on a loop."""
        for sent in self._taken():
            while not sent.done() and self._loop.is_running():
                await asyncio.wait([asyncio.wrap_future(sent)], timeout=0.5)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop on which it is read."""
        return self._loop

    @property
    def free(self) -> bool:
        """Whether this loop waits for nothing that a candidate does."""
        return self._free

    def _taken(self) -> list[futures.Future[None]]:
        sent, self._sent = self._sent, []
        return sent


class Relay:
    """The stream of one candidate: it passes status messages on, and keeps chunks until the candidate is chosen.

    Args:
        live: there is no other candidate, so that chunks are passed on at once.
        originals: of the candidate's predictors, by the ids of their copies.
    """

    def __init__(self, stream: Stream, *, live: bool, originals: Mapping[int, Any]) -> None:
        self._stream, self._live, self._originals = stream, live, originals
        self.kept: list[Any] = []

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop on which the stream is read in the end."""
        return self._stream.loop

    @property
    def free(self) -> bool:
        """Whether that loop waits for nothing that a candidate does."""
        return self._stream.free

    async def send(self, item: Any) -> None:
        """Take what the program streams."""
        if self._is_for_now(item):
            await self._stream.send(item)
        else:
            self.kept.append(item)

    def send_nowait(self, item: Any) -> None:
        """`send`, on the reader's loop and without waiting (`Stream.send_nowait`)."""
        if self._is_for_now(item):
            self._stream.send_nowait(item)
        else:
            self.kept.append(item)

    def _is_for_now(self, item: Any) -> bool:
        original = self._originals.get(getattr(item, "predict_id", None) or 0)
        if original is not None:
            item.predict_id = id(original)
        return self._live or isinstance(item, StatusMessage)

    def listeners(self, modules: Mapping[int, Any]) -> list[Any]:
        """Return the standing listeners, each of them with the candidate's own copy of its predictor."""
        made = []
        for listener in dspy.settings.get("stream_listeners") or []:
            mine = copy.copy(listener)
            mine.predict = modules.get(id(listener.predict), listener.predict)
            made.append(mine)
        return made


class SearchStream:
    """What one search sends: how far it is, and what its winner streamed.

    Args:
        count: its candidates, where that is known; the chunks of a single one are sent as they come.
    """

    def __init__(self, stream: Stream, count: int | None) -> None:
        self._stream, self._count = stream, count

    @classmethod
    def here(cls, count: int | None, *, sync: bool) -> SearchStream | None:
        """Return that of a search that begins here; None where nothing can be sent."""
        stream = Stream.here(sync=sync)
        return None if stream is None else cls(stream, count)

    @property
    def listener(self) -> Callable[[Mapping[str, Any]], None] | None:
        """What hears the search's events; None where there is one candidate."""
        return None if self._count == 1 else self._listen

    def _listen(self, event: Mapping[str, Any]) -> None:
        done = event["kind"] == "candidate" and event.get("end") is not None and event.get("error") is None
        if done and not event.get("pruned"):
            self._stream.soon(_progress(event["index"], self._count, event.get("score")))

    def for_candidate(self, originals: Mapping[int, Any], copies: Mapping[int, Any]) -> tuple[Relay, dict[str, Any]]:
        """Return a candidate's stream, and DSPy's settings with it."""
        relay = Relay(self._stream, live=self._count == 1, originals=originals)
        return relay, {"send_stream": relay, "stream_listeners": relay.listeners(copies)}

    def end(self, winner: Relay | None) -> None:
        """Send what the winner streamed, and wait until all is sent."""
        self._send_kept(winner)
        self._stream.wait()

    async def aend(self, winner: Relay | None) -> None:
        """`end`, on a loop."""
        self._send_kept(winner)
        await self._stream.await_sent()

    def _send_kept(self, winner: Relay | None) -> None:
        for item in () if winner is None else winner.kept:
            self._stream.soon(item)


def in_worker_thread(work: Callable[[], T]) -> T:
    """Do work on a thread that may send to streams in DSPy's way: by `anyio.from_thread`, which needs a loop below."""
    made: T = anyio.run(anyio.to_thread.run_sync, work)
    return made


def _progress(index: int, n: int | None, score: float | None) -> StatusMessage:
    """Return the status message for a candidate that is done."""
    of = "" if n is None else f" of {n}"
    return StatusMessage(f"Candidate {index + 1}{of} is done" + ("." if score is None else f", score {score:.2f}."))


def _on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _loop_of_caller(sync: bool) -> asyncio.AbstractEventLoop | None:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        import anyio

        try:
            return anyio.from_thread.run_sync(asyncio.get_running_loop)
        except Exception:  # noqa: BLE001 - no thread of anyio's, or a loop of trio's: nothing can be sent
            return None
    return None if sync else loop


def _say_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        _log.warning("%s", text)
