"""The one upstream: its models as the engine calls them, and its other endpoints as they are."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tts_plugins._internal.secrets import secrets_in, split_login, without_secrets
from tts_plugins._internal.threads import in_thread
from tts_plugins._internal.token_usage import Price, pricing
from tts_plugins.errors import MalformedResponse
from tts_plugins.models import LocalModel
from tts_plugins.server.errors import APIError
from tts_plugins.server.settings import ServerSettings
from tts_plugins.server.upstream_model import UpstreamModel

_MODELS = 256
_LISTED_FOR = 30.0
_LIST_SECONDS = 5.0
_LOCAL_TOKENS = 512


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What of a request makes it one of another model: these decide on its bound."""

    model: str
    temperature: float | None = None
    limit: str = "max_tokens"
    max_tokens: int | None = None


class Upstream:
    """The upstream of a server; its connections are opened with the first call.

    Args:
        progress: called with bytes done and bytes in all while the embedded model's weights are fetched.
    """

    def __init__(self, settings: ServerSettings, progress: Callable[[int, int], None] | None = None) -> None:
        self._settings = settings
        self._key = settings.api_key
        self.hide = hider(self._key, settings.base_url or "http://127.0.0.1")
        self._local: LocalModel | None = None
        if settings.base_url is None:
            self._local = LocalModel(
                settings.embedded, threads=settings.threads, max_tokens=_LOCAL_TOKENS, progress=progress
            )
        self._made: OrderedDict[Kind, UpstreamModel] = OrderedDict()
        self._prices: dict[str, Price | None] = {}
        self._session: Any = None
        self._listed: tuple[float, list[dict[str, Any]]] | None = None

    @property
    def local(self) -> bool:
        """Whether the embedded model is served, whose context is small."""
        return self._local is not None

    @property
    def models(self) -> tuple[str, ...]:
        """The models that callers may name; if empty, any."""
        if self._local is not None:
            return (self._local.name,)
        return self._settings.models

    def start(self) -> None:
        """Start the embedded model, where that is what is served. It blocks meanwhile.

        Raises:
            WeightsError, MissingExtraError: it cannot be had or started.
        """
        if self._local is not None:
            self._local.start()

    async def base_url(self) -> str:
        """Return the upstream's address."""
        if self._local is not None:
            return (await in_thread(self._local.start)).base_url
        assert self._settings.base_url is not None
        return self._settings.base_url

    async def model(self, kind: Kind) -> UpstreamModel:
        """Return the model for a kind of request: the same one as before, which has learned what its server honours."""
        made = self._made.pop(kind, None) or await self._make(kind)
        self._made[kind] = made
        while len(self._made) > _MODELS:
            self._made.popitem(last=False)
        return made

    async def _make(self, kind: Kind) -> UpstreamModel:
        local: dict[str, Any] = {}
        if self._local is not None:
            local = {"stream": True, "batch": self._local.batch, "price": (0.0, 0.0)}
        made = UpstreamModel(
            kind.model,
            base_url=await self.base_url(),
            api_key=self._key,
            temperature=kind.temperature,
            max_tokens=kind.max_tokens,
            params={"max_tokens": None, kind.limit: kind.max_tokens} if kind.max_tokens is not None else None,
            timeout=self._settings.timeout,
            **{"concurrency": self._settings.concurrency, "price": self._settings.price, **local},
        )
        made.hide = self.hide
        if self._made:  # one pool of connections for all: a client takes most of a tenth of a second to build
            made.share_clients(next(iter(self._made.values())))
        return made

    async def price(self, model: str) -> Price | None:
        """Return what its tokens cost, for endpoints that pass through."""
        if model not in self._prices and len(self._prices) < _MODELS:
            own = (0.0, 0.0) if self.local else self._settings.price
            self._prices[model] = await in_thread(pricing, own, model, self._settings.base_url)
        return self._prices.get(model)

    async def list(self) -> list[dict[str, Any]]:
        """Return the upstream's models, as it lists them; they are kept for a while.

        Raises:
            APIError: it cannot be reached.
        """
        if self._listed is not None and time.monotonic() - self._listed[0] < _LISTED_FOR:
            return self._listed[1]
        found: list[dict[str, Any]]
        if self._local is not None:
            found = [{"id": self._local.name, "object": "model", "created": 0, "owned_by": "local"}]
        else:
            data = await self._list()
            listed = data.get("data") if isinstance(data, Mapping) else None
            if not isinstance(listed, list):
                raise MalformedResponse("The upstream's list of models has no data.")
            found = [dict(m) for m in listed if isinstance(m, Mapping) and isinstance(m.get("id"), str)]
            only = self._settings.models
            found = [m for m in found if not only or m["id"] in only]
        self._listed = (time.monotonic(), found)
        return found

    async def _list(self) -> Any:
        from aiohttp import ClientError

        try:
            async with asyncio.timeout(_LIST_SECONDS), self.send("GET", "models") as response:
                if response.status != 200:
                    raise APIError(502, "The upstream does not list its models.", code="upstream_error")
                return await response.json(content_type=None)
        except (ClientError, ValueError, RecursionError) as error:
            why = "The upstream's list of models cannot be read."
            raise APIError(502, why, code="upstream_malformed") from error

    def send(self, method: str, path: str, body: bytes | None = None) -> Any:
        """Send one request to the upstream: an async context manager of aiohttp's response."""
        return _Sending(self, method, path, body)

    async def aclose(self) -> None:
        """Close the connections, and end the embedded model."""
        if self._session is not None:
            await self._session.close()
        for model in self._made.values():
            await model.aclose()
        if self._local is not None:
            await self._local.aclose()

    def _http(self) -> Any:
        import aiohttp

        if self._session is None:
            headers = {} if self._key is None else {"Authorization": f"Bearer {self._key}"}
            timeout = aiohttp.ClientTimeout(total=self._settings.timeout, connect=10)
            connector = aiohttp.TCPConnector(limit=self._settings.concurrency)
            self._session = aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector)
        return self._session


class _Sending:
    def __init__(self, upstream: Upstream, method: str, path: str, body: bytes | None) -> None:
        self._upstream, self._method, self._path, self._body = upstream, method, path, body

    async def __aenter__(self) -> Any:
        import aiohttp

        address, login = split_login(await self._upstream.base_url())  # aiohttp takes none beside a key
        url = f"{address.rstrip('/')}/{self._path}"
        headers = login if self._body is None else {"Content-Type": "application/json", **login}
        sending = self._upstream._http().request(
            self._method, url, data=self._body, headers=headers, allow_redirects=False
        )
        try:
            self._response = await sending
        except TimeoutError:  # which is an OSError, too
            raise
        except (aiohttp.ClientError, OSError) as error:
            raise APIError(502, "The upstream cannot be reached.", code="upstream_unreachable") from error
        return self._response

    async def __aexit__(self, *_: object) -> None:
        self._response.close()


def hider(key: str | None, address: str) -> Callable[[str], str]:
    """Return what takes the upstream's key and address out of a text, in whatever form they are quoted.

    So are all other URLs: a judge of a profile may have a server of its own, and a redirect names one.
    """
    secrets = secrets_in({}, key, url=address)
    host = re.escape(urlsplit(address).hostname or "")
    named = rf"(?<![\w.-]){host}(?![\w-])" if "." in host else rf"(?<![\w.-]){host}:\d+"
    url = r"https?://[^\s'\"\\<>(),;]+"
    pattern = re.compile(rf"{url}|{named}(?::\d+)?", re.IGNORECASE)
    return lambda text: pattern.sub("…", without_secrets(text, secrets))


def dumps(value: Any) -> bytes:
    """Return compact JSON; lone surrogates of a model's text stay escaped, so that it can always be encoded."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
