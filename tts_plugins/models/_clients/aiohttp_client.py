"""What this package uses of an `AsyncOpenAI`, over a pool of plain connections: a tenth of the client's CPU time.

It sends what it is sure to send as the client would. A request with other arguments (a name that is not listed here, a
value that is not plain JSON) goes through a real client, which converts it, or raises its own error.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from tts_plugins._http.exchange import post, post_for_pieces
from tts_plugins._http.pool import Lease, Pool
from tts_plugins._internal.http_limits import ENCODINGS
from tts_plugins._internal.json_bytes import decode, encode
from tts_plugins._internal.secrets import Hidden
from tts_plugins._version import __version__

_KNOWN = {
    "chat/completions": {
        "messages", "model", "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs",
        "max_completion_tokens", "max_tokens", "metadata", "modalities", "n", "parallel_tool_calls", "prediction",
        "presence_penalty", "reasoning_effort", "response_format", "seed", "service_tier", "stop", "store", "stream",
        "stream_options", "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity",
    },
    "completions": {
        "model", "prompt", "best_of", "echo", "frequency_penalty", "logit_bias", "logprobs", "max_tokens", "n",
        "presence_penalty", "seed", "stop", "stream", "stream_options", "suffix", "temperature", "top_p", "user",
    },
    "embeddings": {"input", "model", "dimensions", "encoding_format", "user"},
}  # fmt: skip
_EXTRA = {"extra_body", "extra_headers"}


@dataclass(slots=True)
class Request:
    """A request that is ready to be sent."""

    pool: Pool
    url: str
    data: bytes
    headers: Mapping[str, str]

    def body(self) -> Awaitable[bytes]:
        """Return the body of the answer."""
        return post(self.pool, self.url, self.data, self.headers)

    def pieces(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Stream the body of the answer in pieces, as they arrive."""
        return post_for_pieces(self.pool, self.url, self.data, self.headers)


class AiohttpClient:
    """A client for one event loop.

    Args:
        base_url: of the server.
        headers: of each request.
        make: makes an `AsyncOpenAI` of the same settings, for requests that need one.
    """

    tells_when_sent = True

    def __init__(self, base_url: str, headers: Mapping[str, str], make: Callable[[], Awaitable[Any]]) -> None:
        base_url, mark, query = base_url.partition("?")
        self.base_url, self._query = base_url.rstrip("/"), mark + query  # Azure's version stands in the query
        self.default_headers, self._make = dict(headers), make
        self._lease = Lease(self.base_url)
        self._client: Any = None  # the real one, once it is needed

    async def close(self) -> None:
        """Give the connections back."""
        client, self._client = self._client, None
        await self._lease.close()
        if client is not None:
            await client.close()

    def prepared(self, path: str, request: Mapping[str, Any]) -> Request | None:
        """Return the request as it goes out; None if a real client has to convert, refuse or send it."""
        known = _KNOWN[path]
        body, headers = request, self.default_headers
        if not request.keys() <= known:
            if not request.keys() <= known | _EXTRA:
                return None
            body = {key: value for key, value in request.items() if key not in _EXTRA}
            body.update(request.get("extra_body") or {})
            headers = self._with(request.get("extra_headers") or {})
        if not self._lease.pool.usable(time.monotonic()):  # after what else it could fail at: it may be the one to try
            return None
        try:
            data = encode(body)
        except (TypeError, ValueError, RecursionError):
            return None
        return Request(self._lease.pool, f"{self.base_url}/{path}{self._query}", data, headers)

    async def real(self) -> Any:
        """Return the real client."""
        if self._client is None:
            self._client = await self._make()
        return self._client

    async def post(self, address: str, *, cast_to: type, body: object, options: Mapping[str, Any] | None = None) -> Any:
        """Return the decoded answer of any address of the server."""
        headers = self._with((options or {}).get("headers") or {})
        return decode(await Request(self._lease.pool, address, encode(body), headers).body())

    @property
    def embeddings(self) -> _Embeddings:
        """As the client's own; its answers are decoded JSON."""
        return _Embeddings(self)

    def _with(self, headers: Mapping[str, str]) -> dict[str, str]:
        replaced = {name.lower() for name in headers}
        return {**{k: v for k, v in self.default_headers.items() if k.lower() not in replaced}, **headers}


@dataclass(frozen=True)
class _Embeddings:
    client: AiohttpClient

    async def create(self, **request: Any) -> Any:
        made = self.client.prepared("embeddings", request)
        if made is None:
            return await (await self.client.real()).embeddings.create(**request)
        return decode(await made.body())


def headers_of(api_key: str) -> dict[str, str]:
    """Return the headers of each request: as the client has them, where servers read them."""
    headers = {
        "Authorization": Hidden(f"Bearer {api_key}"), "Content-Type": "application/json", "Accept": "application/json",
        "Accept-Encoding": ENCODINGS, "User-Agent": f"tts-plugins/{__version__}",
    }  # fmt: skip
    for name, variable in (("OpenAI-Organization", "OPENAI_ORG_ID"), ("OpenAI-Project", "OPENAI_PROJECT_ID")):
        if value := os.environ.get(variable):
            headers[name] = value
    return headers
