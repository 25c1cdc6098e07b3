"""One client for each event loop: a connection pool that two live loops share hangs or fails."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tts_plugins._http.per_loop import PerLoop
from tts_plugins._http.proxies import is_loopback, proxy_for
from tts_plugins._http.tls import tls_context
from tts_plugins._internal.request_sent import leaving
from tts_plugins._internal.threads import in_thread, on_engine_loop
from tts_plugins.errors import ConfigurationError
from tts_plugins.models._openai.transport import core, tell

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_OPENAI, _AIOHTTP = "openai.resources.chat", "tts_plugins.models._openai.aiohttp_client"


@dataclass(frozen=True)
class _Address:
    """Where to ask, and how, of clients that are ours. It refers to none of them: they are closed once none does."""

    base_url: str | None
    api_key: str | None = field(repr=False)
    timeout: float

    def key(self) -> str:
        """The key to send."""
        # A server of one's own mostly needs no key, but the client insists on one.
        key = self.api_key or os.environ.get("OPENAI_API_KEY") or ("-" if self.base_url else None)
        if key is None:
            raise ConfigurationError("api_key is missing: pass api_key=…, or set OPENAI_API_KEY")
        return key

    def aiohttp_client(self) -> Any:
        """The client that takes little time."""
        from tts_plugins.models._openai.aiohttp_client import AiohttpClient, headers_of

        return AiohttpClient(_url(self.base_url), headers_of(self.key()), self.telling)

    def openai_client(self) -> AsyncOpenAI:
        """The client that can do everything."""
        import openai

        return openai.AsyncOpenAI(
            base_url=self.base_url, api_key=self.key(), max_retries=0, timeout=self.timeout, http_client=self.http()
        )

    async def telling(self) -> Any:
        """The same, which tells when it sends."""
        await _imported(_OPENAI)
        client = self.openai_client()
        tell(client)
        return client

    def http(self) -> Any:
        """Connections for an OpenAI client, which tell when a request leaves."""
        import openai

        return openai.DefaultAsyncHttpxClient(
            timeout=self.timeout, event_hooks={"request": [_watch]}, verify=tls_context(),
            trust_env=not is_loopback(_url(self.base_url)),
        )  # fmt: skip


class Clients:
    """Clients by loop, closed with it, or with this, whichever ends first.

    Where address and key are ours to use, and aiohttp is installed, a client is an `AiohttpClient`; a client of the
    user's, its copies and whatever needs more than that are an `AsyncOpenAI`. `TTS_PLUGINS_TRANSPORT=openai` in the
    environment makes all of them such.
    """

    def __init__(
        self,
        *,
        base_url: str | None,
        api_key: str | None,
        client: AsyncOpenAI | None,
        timeout: float,
        make: Callable[[], AsyncOpenAI] | None = None,
    ) -> None:
        self._address = _Address(base_url, api_key, timeout)
        self._client, self._maker = client, make
        self._borrowed = False
        self._clients: PerLoop[Any] = PerLoop()

    async def get(self) -> Any:
        """The client of the running loop; its own retries are off, so that none multiply."""
        if (found := self._clients.here) is not None:
            return found
        lean = self._client is None and self._maker is None and _fast(self._address)
        await _imported(_AIOHTTP if lean else _OPENAI)
        if (found := self._clients.here) is not None:  # meanwhile made for another request
            return found
        if lean:
            client = self._address.aiohttp_client()
            return await self._clients.put(client, client.close)
        given = self._client
        client, ours = self._make()
        if core(client) is not core(given):  # a client of the user's is not changed, whatever its copies are
            tell(client)
        return await self._clients.put(client, client.close if ours else None)

    @property
    def here(self) -> Any:
        """The client of the running loop, where it has been made."""
        return self._clients.here

    @property
    def watched(self) -> bool:
        """Whether the running loop's client tells when a request leaves; one of the user's is not changed for that."""
        return _watches(self._clients.here)

    async def close(self) -> None:
        """Close the client of the running loop; those of other loops are closed when those end."""
        await self._clients.close()

    def _make(self) -> tuple[AsyncOpenAI, bool]:
        """A client, and whether it is ours to close."""
        if self._maker is not None:
            made, self._client = self._client or self._maker(), None
            return made.with_options(max_retries=0), True
        if self._client is None:
            return self._address.openai_client(), True
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
        return self._client.copy(max_retries=0, http_client=self._address.http()), True


def _url(base_url: str | None) -> str:
    return base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"


def _fast(where: _Address) -> bool:
    """Whether an `AiohttpClient` is installed, wanted, and enough for this address.

    What it has no words for is left to the OpenAI client: a password or a query in the address, a key that is a
    function, headers from the environment, and proxies of SOCKS.

    Raises:
        ConfigurationError: TTS_PLUGINS_TRANSPORT is not known.
    """
    wanted = os.environ.get("TTS_PLUGINS_TRANSPORT", "") or "aiohttp"
    if wanted not in ("aiohttp", "openai"):
        raise ConfigurationError(f"TTS_PLUGINS_TRANSPORT={wanted!r} is not known; use 'aiohttp' or 'openai'")
    if wanted != "aiohttp" or importlib.util.find_spec("aiohttp") is None:
        return False
    parts = urlsplit(address := _url(where.base_url))
    plain = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment)
    if not plain or "@" in parts.netloc or "OPENAI_CUSTOM_HEADERS" in os.environ:
        return False
    proxy = proxy_for(address)
    return isinstance(where.api_key, str | None) and (proxy is None or urlsplit(proxy).scheme in ("http", "https"))


async def _imported(name: str) -> None:
    if name not in sys.modules:
        # Up to half a second and more, in which this loop could keep no deadline.
        await in_thread(importlib.import_module, name)


def _given(client: Any) -> bool:
    # What OpenAI's client makes for itself is of this class, and can be made again.
    default = getattr(importlib.import_module("openai._base_client"), "AsyncHttpxClientWrapper", None)
    inner = getattr(client, "_client", None)
    inner = getattr(inner, "_client", inner)  # an adapter may stand around the client
    return default is not None and hasattr(inner, "aclose") and not isinstance(inner, default)


def _watches(client: Any) -> bool:
    # Looked up and not remembered: a client of the user's may be copied without the connections that were given to it,
    # and a call that it sends unseen would cost nothing when it is cancelled.
    if getattr(client, "tells_when_sent", False):
        return True
    hooks = getattr(getattr(client, "_client", None), "event_hooks", None)
    return isinstance(hooks, Mapping) and _watch in hooks.get("request", ())


async def _watch(request: Any) -> None:
    # The hook itself runs too early: the request has no connection yet, and may wait for one.
    request.extensions["trace"] = _traced


async def _traced(event: str, _: object) -> None:
    if event.endswith("send_request_headers.started"):
        leaving()
