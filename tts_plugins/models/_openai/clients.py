"""One client for each event loop: a connection pool that two live loops share hangs or fails."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import sys
import weakref
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from tts_plugins._internal.request_sent import leaving
from tts_plugins._internal.threads import in_thread, on_engine_loop
from tts_plugins.errors import ConfigurationError
from tts_plugins.models._openai.transport import core, tell

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_Guard = AsyncGenerator[None, None]


class Clients:
    """Clients by loop, closed with it, or with this, whichever ends first."""

    def __init__(
        self,
        *,
        base_url: str | None,
        api_key: str | None,
        client: AsyncOpenAI | None,
        timeout: float,
        make: Callable[[], AsyncOpenAI] | None = None,
    ) -> None:
        self._base_url, self._api_key, self._client, self._timeout = base_url, api_key, client, timeout
        self._maker = make
        self._borrowed = False
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[AsyncOpenAI, _Guard | None]]
        self._clients = WeakKeyDictionary()

    async def get(self) -> AsyncOpenAI:
        """The client of the running loop; its own retries are off, so that none multiply."""
        loop = asyncio.get_running_loop()
        if "openai.resources.chat" not in sys.modules:
            # Half a second and more, in which this loop could keep no deadline.
            await in_thread(importlib.import_module, "openai.resources.chat")
        if loop not in self._clients:
            given = self._client
            client, ours = self._make()
            if core(client) is not core(given):  # a client of the user's is not changed, whatever its copies are
                tell(client)
            guard = _guarded(client) if ours else None
            self._clients[loop] = (client, guard)
            if guard is not None:
                # A failed solve's error and its frames go round in circles, and what the cycle collector finds in
                # one is torn apart before it can close its connections: the client stays out of it.
                weakref.finalize(self, _close_on, weakref.ref(loop), guard).atexit = False
                await anext(guard)
        return self._clients[loop][0]

    @property
    def here(self) -> AsyncOpenAI | None:
        """The client of the running loop, where it has been made."""
        return self._clients.get(asyncio.get_running_loop(), (None, None))[0]

    @property
    def watched(self) -> bool:
        """Whether the running loop's client tells when a request leaves; one of the user's is not changed for that."""
        return _watches(self._clients[asyncio.get_running_loop()][0])

    async def close(self) -> None:
        """Close the client of the running loop; those of other loops are closed when those end."""
        entry = self._clients.pop(asyncio.get_running_loop(), None)
        if entry is not None and entry[1] is not None:
            await entry[1].aclose()

    def _make(self) -> tuple[AsyncOpenAI, bool]:
        """A client, and whether it is ours to close."""
        import openai

        if self._maker is not None:
            made, self._client = self._client or self._maker(), None
            return made.with_options(max_retries=0), True
        if self._client is None:
            # A server of one's own mostly needs no key, but the client insists on one.
            key = self._api_key or os.environ.get("OPENAI_API_KEY") or ("-" if self._base_url else None)
            if key is None:
                raise ConfigurationError("api_key is missing: pass api_key=…, or set OPENAI_API_KEY")
            own = openai.AsyncOpenAI(
                base_url=self._base_url, api_key=key, max_retries=0, timeout=self._timeout, http_client=self._http()
            )
            return own, True
        if not self._borrowed and not on_engine_loop():
            self._borrowed = True
            return self._client.with_options(max_retries=0), False
        # The user's own connections belong to the loop that they were opened on.
        if _given(self._client):
            raise ConfigurationError(
                "client= was given an http_client, whose connections belong to one event loop, and this is another one "
                "(synchronous calls have a loop of their own): pass a function that makes the client, such as "
                "client=lambda: AsyncOpenAI(http_client=…), and each loop has one"
            )
        return self._client.copy(max_retries=0, http_client=self._http()), True

    def _http(self) -> Any:
        import openai

        return openai.DefaultAsyncHttpxClient(timeout=self._timeout, event_hooks={"request": [_watch]})


def _given(client: Any) -> bool:
    # What OpenAI's client makes for itself is of this class, and can be made again.
    default = getattr(importlib.import_module("openai._base_client"), "AsyncHttpxClientWrapper", None)
    inner = getattr(client, "_client", None)
    inner = getattr(inner, "_client", inner)  # an adapter may stand around the client
    return default is not None and hasattr(inner, "aclose") and not isinstance(inner, default)


def _watches(client: Any) -> bool:
    # Looked up and not remembered: a client of the user's may be copied without the connections that were given to it,
    # and a call that it sends unseen would cost nothing when it is cancelled.
    hooks = getattr(getattr(client, "_client", None), "event_hooks", None)
    return isinstance(hooks, Mapping) and _watch in hooks.get("request", ())


async def _watch(request: Any) -> None:
    # The hook itself runs too early: the request has no connection yet, and may wait for one.
    request.extensions["trace"] = _traced


async def _traced(event: str, _: object) -> None:
    if event.endswith("send_request_headers.started"):
        leaving()


# Until they have ended: a loop refers to its generators weakly.
_guards: dict[object, _Guard] = {}


def _guarded(client: AsyncOpenAI) -> _Guard:
    key = object()
    _guards[key] = guard = _guard(client, key)
    return guard


async def _guard(client: AsyncOpenAI, key: object) -> _Guard:
    # A loop that shuts down closes the asynchronous generators begun on it, so this one closes the client in time.
    try:
        yield
    finally:
        _guards.pop(key, None)
        await client.close()


def _close_on(loop: weakref.ref[asyncio.AbstractEventLoop], guard: _Guard) -> None:
    living = loop()
    if living is not None:
        with contextlib.suppress(RuntimeError):  # it is closed, and has closed the guard
            living.call_soon_threadsafe(lambda: living.create_task(_end(guard)))


async def _end(guard: _Guard) -> None:
    await guard.aclose()
