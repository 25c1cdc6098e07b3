"""The models of one client, one for each kind of request."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, cast

from openai import AsyncOpenAI

from tts_plugins.adapters import is_number, lock
from tts_plugins_openai._model import Bridge, Client, ClientModel

_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_MODELS = 64


class Models:
    """Keeps the models of one client: they learn what their server honours and how long prompts are."""

    def __init__(self, client: Client, concurrency: int | None) -> None:
        self._client, self._concurrency = client, concurrency
        self._lock = lock()
        self._made: OrderedDict[str, ClientModel] = OrderedDict()

    def get(self, request: Mapping[str, Any], price: Any, kind: type[ClientModel] = ClientModel) -> ClientModel:
        """Return the model for a request of this kind."""
        limit = {key: request[key] for key in _LIMITS if request.get(key) is not None}
        name, temperature = request["model"], request.get("temperature")
        timeout = _seconds(request.get("timeout"), self._client.timeout)
        settings = [kind.__name__, name, temperature, limit, timeout, price, _fingerprint(self._client)]
        key = json.dumps(settings, default=repr)
        with self._lock:
            model = self._made.pop(key, None) or kind(
                name,
                client=cast(AsyncOpenAI, Bridge(self._client)),
                temperature=temperature,
                max_tokens=max(limit.values(), key=_number, default=None),
                params={"max_tokens": None, **limit},
                timeout=timeout,
                concurrency=self._concurrency,
                price=price.get(name) if isinstance(price, Mapping) else price,
            )
            self._made[key] = model
            while len(self._made) > _MODELS:
                self._made.popitem(last=False)
            return model


def _fingerprint(client: Client) -> int:
    """Return a hash of all that decides where and how a client sends; users may change that at any time."""
    headers = sorted((name, value) for name, value in client.default_headers.items() if isinstance(value, str))
    return hash((str(client.base_url), str(client.api_key), repr(client.timeout), repr(headers),
                 repr(client.default_query), client.max_retries, id(client._client)))  # fmt: skip


def _seconds(*timeouts: Any) -> float:
    """Return the first that is a number, or a timeout that has one for reading; else the client's own default."""
    for timeout in timeouts:
        value = timeout if isinstance(timeout, int | float) else getattr(timeout, "read", None)
        if is_number(value) and value > 0:
            return float(value)
    return 600.0


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) else 0.0
