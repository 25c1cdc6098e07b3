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
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from tts_plugins._internal.http_limits import ENCODINGS, check_address, check_headers, check_value
from tts_plugins._internal.secrets import Hidden, secrets_in
from tts_plugins._internal.threads import in_thread, on_engine_loop
from tts_plugins.errors import ConfigurationError
from tts_plugins.models._openai.hooks import limit, watch
from tts_plugins.models._openai.transport import core, tell

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_Guard = AsyncGenerator[None, None]
OFFICIAL = "https://api.openai.com/v1"


def is_official(address: str | None) -> bool:
    """Whether it is OpenAI's own server; None stands for it."""
    host = urlsplit(address or OFFICIAL).hostname or ""
    return host == "api.openai.com" or host.endswith(".api.openai.com")


class Clients:
    """Clients by loop, closed with it, or with this, whichever ends first.

    Args:
        owner: for errors.
        headers: that requests will carry; they are only checked here, and kept out of errors.

    Attributes:
        address: where the client really sends to; None for OpenAI's own server.

    Raises:
        ConfigurationError: nothing can be sent with such an address, key or header.
    """

    def __init__(
        self,
        *,
        base_url: str | None,
        api_key: str | None,
        client: AsyncOpenAI | None,
        timeout: float,
        make: Callable[[], AsyncOpenAI] | None = None,
        owner: str = "OpenAICompatibleModel",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if client is not None:
            self.address: str | None = str(client.base_url)
        else:
            self.address = base_url if base_url is not None else os.environ.get("OPENAI_BASE_URL") or None
            if self.address is not None:
                check_address(owner, self.address, "base_url" if base_url is not None else "OPENAI_BASE_URL")
        check_headers(owner, headers)
        if api_key is not None:
            check_value(owner, "api_key", api_key)
        self._api_key = None if api_key is None else Hidden(api_key)
        self._owner, self._client, self._timeout, self._headers = owner, client, timeout, headers
        self._maker = make
        self._borrowed = False
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[AsyncOpenAI, _Guard | None]]
        self._clients = WeakKeyDictionary()

    @property
    def secrets(self) -> frozenset[str]:
        """The values that no error may show: keys and headers."""
        theirs = {} if self._client is None else getattr(self._client, "default_headers", {})
        keys = (self._api_key, os.environ.get("OPENAI_API_KEY"), getattr(self._client, "api_key", None))
        texts = (key for key in keys if isinstance(key, str) and key != "-")
        return secrets_in(self._headers, *texts, url=self.address or "") | secrets_in(theirs)

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
            key = self._api_key or os.environ.get("OPENAI_API_KEY") or ("-" if self.address else None)
            if key is None:
                raise ConfigurationError("api_key is missing: pass api_key=…, or set OPENAI_API_KEY")
            check_value(self._owner, "OPENAI_API_KEY", key)
            own = openai.AsyncOpenAI(
                base_url=self.address or OFFICIAL,
                api_key=Hidden(key),
                max_retries=0,
                timeout=self._timeout,
                http_client=self._http(),
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

        hooks: dict[str, list[Any]] = {"request": [watch], "response": [limit]}
        try:
            return openai.DefaultAsyncHttpxClient(
                timeout=self._timeout, event_hooks=hooks, headers={"Accept-Encoding": ENCODINGS}
            )
        except Exception as error:
            raise ConfigurationError(
                f"{self._owner}: no HTTP client can be made ({type(error).__name__}: {error}); check HTTP_PROXY, "
                "HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE"
            ) from error


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
    return isinstance(hooks, Mapping) and watch in hooks.get("request", ())


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
