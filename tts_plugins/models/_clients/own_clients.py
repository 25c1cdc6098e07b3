"""Clients of our own making, for one address and key."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from tts_plugins._http.proxies import is_loopback
from tts_plugins._http.tls import tls_context
from tts_plugins._internal.http_limits import ENCODINGS, REDIRECTS
from tts_plugins._internal.threads import in_thread
from tts_plugins.errors import ConfigurationError
from tts_plugins.models._clients.hooks import limit, watch
from tts_plugins.models._clients.transport import tell

if TYPE_CHECKING:
    from openai import AsyncOpenAI


@dataclass(frozen=True, kw_only=True)
class Own:
    """What to make clients from. It refers to none of them, so that they are closed once nobody uses them.

    Attributes:
        owner: for errors.
    """

    owner: str
    address: str
    key: str
    timeout: float

    def aiohttp_client(self) -> Any:
        """Return the client that takes little time."""
        from tts_plugins.models._clients.aiohttp_client import AiohttpClient, headers_of

        return AiohttpClient(self.address, headers_of(self.key), self.telling)

    async def telling(self) -> Any:
        """Return the client that can do everything, and tells when it sends."""
        await in_thread(importlib.import_module, "openai.resources.chat")
        client = self.openai_client()
        tell(client)
        return client

    def openai_client(self) -> AsyncOpenAI:
        """Return the client that can do everything."""
        import openai

        base, _, query = self.address.partition("?")
        return openai.AsyncOpenAI(
            base_url=base, default_query=dict(parse_qsl(query)), api_key=self.key, max_retries=0,
            timeout=self.timeout, http_client=self.http(),
        )  # fmt: skip

    def http(self) -> Any:
        """Return connections for an OpenAI client that report when a request leaves, and keep our limits.

        Raises:
            ConfigurationError: the environment's proxy or certificates cannot be used.
        """
        import openai

        hooks: dict[str, list[Any]] = {"request": [watch], "response": [limit]}
        try:
            return openai.DefaultAsyncHttpxClient(
                timeout=self.timeout, event_hooks=hooks, headers={"Accept-Encoding": ENCODINGS},
                verify=tls_context(), trust_env=not is_loopback(self.address), max_redirects=REDIRECTS,
            )  # fmt: skip
        except Exception as error:
            raise ConfigurationError(
                f"{self.owner}: no HTTP client can be made ({type(error).__name__}: {error}); check HTTP_PROXY, "
                "HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE"
            ) from error
