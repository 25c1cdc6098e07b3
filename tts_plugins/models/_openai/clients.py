"""One client for each event loop: a connection pool that two live loops share hangs or fails."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tts_plugins._http.choice import imported, uses_aiohttp
from tts_plugins._http.per_loop import PerLoop
from tts_plugins._http.tls import tls_ready
from tts_plugins._internal.http_errors import shown_address
from tts_plugins._internal.http_limits import check_address, check_headers, check_value
from tts_plugins._internal.secrets import Hidden, hidden, hidden_address, hidden_headers, secrets_in, secrets_of_request
from tts_plugins._internal.threads import on_engine_loop
from tts_plugins.errors import ConfigurationError
from tts_plugins.models._clients.hooks import watch
from tts_plugins.models._clients.own_clients import Own
from tts_plugins.models._clients.transport import bound, core, tell

if TYPE_CHECKING:
    from openai import AsyncOpenAI

OFFICIAL = "https://api.openai.com/v1"
_REQUEST = re.compile(r"/(?:chat/completions|completions|responses|embeddings)/?(?=[?#]|\Z)")
_OPENAI, _AIOHTTP = "openai.resources.chat", "tts_plugins.models._clients.aiohttp_client"


def is_official(address: str | None) -> bool:
    """Return whether it is OpenAI's own server, which None means too."""
    host = urlsplit(address or OFFICIAL).hostname or ""
    return host == "api.openai.com" or host.endswith(".api.openai.com")


class Clients:
    """Clients by loop, closed with it, or with this, whichever ends first.

    Where address and key are ours to use, and aiohttp is installed, a client is an `AiohttpClient`; a client of the
    user's, its copies and whatever needs more than that are an `AsyncOpenAI`. `TTS_PLUGINS_TRANSPORT=openai` in the
    environment makes all of them such.

    Args:
        owner: for errors.
        headers: that requests will carry; they are only checked here, and kept out of errors.
        private: what else of a request no error may show.

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
        private: frozenset[str] = frozenset(),
    ) -> None:
        base_url, api_key, headers = hidden_address(base_url), hidden(api_key), hidden_headers(headers)
        if client is not None:
            self.address: str | None = hidden_address(str(client.base_url))
            if self.address.startswith(("http://", "https://")):  # others are what their own connections make of them
                check_address(owner, self.address, "client's base_url")
        else:
            given = base_url if base_url is not None else os.environ.get("OPENAI_BASE_URL") or None
            self.address = hidden_address(given)
            del given
            if self.address is not None:
                check_address(owner, self.address, "base_url" if base_url is not None else "OPENAI_BASE_URL")
                if _REQUEST.search(self.address):
                    raise ConfigurationError(
                        f"{owner}: base_url={shown_address(self.address)!r} is the address of a request; leave out "
                        "what follows /v1, which each request adds by itself"
                    )
        check_headers(owner, headers)
        if api_key is not None:
            check_value(owner, "api_key", api_key)
        self._api_key = api_key
        self._owner, self._client, self._timeout, self._headers = owner, client, timeout, headers
        self._maker, self._private = make, private
        self._borrowed = False
        self._clients: PerLoop[Any] = PerLoop()

    @property
    def secrets(self) -> frozenset[str]:
        """The values that no error may show: keys and headers."""
        used = [client for client in (self._client, self._clients.here) if client is not None]
        keys = [self._api_key, os.environ.get("OPENAI_API_KEY"), *(getattr(client, "api_key", None) for client in used)]
        texts = (key for key in keys if isinstance(key, str) and key != "-")
        parts = "headers", "query"
        theirs = [
            secrets_of_request({f"extra_{part}": getattr(client, f"default_{part}", {}) for part in parts})
            for client in used
        ]
        return secrets_in(self._headers, *texts, url=self.address or "").union(self._private, *theirs)

    async def get(self) -> Any:
        """Return the client of the running loop; its own retries are off, so that none multiply."""
        if (found := self._clients.here) is not None:
            return found
        ours, address = self._client is None and self._maker is None, self.address or OFFICIAL
        fast = ours and uses_aiohttp(address)
        await imported(_AIOHTTP if fast else _OPENAI)
        if ours and (not fast or address.startswith("https")):
            await tls_ready()
        if (found := self._clients.here) is not None:  # made for another request meanwhile
            return found
        if fast:
            client = self._own().aiohttp_client()
            return await self._clients.put(client, client.close)
        given = self._client
        client, ours = self._make()
        if core(client) is not core(given):  # a client of the user's is not changed, whatever its copies are
            tell(client)
            if not watches(client):  # it has connections of the user's
                bound(client)
        return await self._clients.put(client, client.close if ours else None)

    async def openai(self) -> Any:
        """Return an OpenAI client for the running loop, for what is seldom asked for."""
        client = await self.get()
        return await client.real() if hasattr(client, "real") else client

    @property
    def here(self) -> Any:
        """The client of the running loop, if it has been made."""
        return self._clients.here

    async def close(self) -> None:
        """Close the client of the running loop; those of other loops are closed when those end."""
        await self._clients.close()

    def _own(self) -> Own:
        # A server of one's own mostly needs no key, but the client insists on one.
        key = self._api_key or os.environ.get("OPENAI_API_KEY") or ("-" if self.address else None)
        if key is None:
            raise ConfigurationError("api_key is missing: pass api_key=…, or set OPENAI_API_KEY")
        check_value(self._owner, "OPENAI_API_KEY", key)
        for variable in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
            check_value(self._owner, variable, os.environ.get(variable, ""))
        return Own(owner=self._owner, address=self.address or OFFICIAL, key=Hidden(key), timeout=self._timeout)

    def _make(self) -> tuple[AsyncOpenAI, bool]:
        """Return a client, and whether we have to close it."""
        if self._maker is not None:
            made, self._client = self._client or self._maker(), None
            return made.with_options(max_retries=0), True
        if self._client is None:
            return self._own().openai_client(), True
        # Connections that the client made for itself are made again, with our limits. Those that it was given are used,
        # on the loop that they belong to.
        given = _given(self._client)
        if given and not self._borrowed and not on_engine_loop():
            self._borrowed = True
            return self._client.with_options(max_retries=0), False
        if given:
            raise ConfigurationError(
                "client= was given an http_client, whose connections belong to one event loop, and this is another one "
                "(synchronous calls have a loop of their own): pass a function that makes the client, such as "
                "client=lambda: AsyncOpenAI(http_client=…), and each loop has one"
            )
        own = Own(owner=self._owner, address=self.address or OFFICIAL, key=Hidden("-"), timeout=self._timeout)
        return self._client.copy(max_retries=0, http_client=own.http()), True


@dataclass(frozen=True)
class Secrets:
    """The secrets of some clients, found once they are looked through: that is, when an error is reported."""

    clients: Clients

    def __iter__(self) -> Iterator[str]:
        return iter(self.clients.secrets)


def _given(client: Any) -> bool:
    # What OpenAI's client makes for itself is of this class, and can be made again.
    default = getattr(importlib.import_module("openai._base_client"), "AsyncHttpxClientWrapper", None)
    inner = getattr(client, "_client", None)
    inner = getattr(inner, "_client", inner)  # an adapter may wrap the client
    return default is not None and hasattr(inner, "aclose") and not isinstance(inner, default)


def watches(client: Any) -> bool:
    """Return whether a client tells when a request leaves; one of the user's is not changed for that."""
    # Looked up and not remembered: a client of the user's may be copied without the connections that were given to it,
    # and a call that it sends unseen would cost nothing when it is cancelled.
    if getattr(client, "tells_when_sent", False):
        return True
    hooks = getattr(getattr(client, "_client", None), "event_hooks", None)
    return isinstance(hooks, Mapping) and watch in hooks.get("request", ())
