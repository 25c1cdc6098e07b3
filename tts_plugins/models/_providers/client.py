"""any-llm's provider in the form of an OpenAI client, with its hidden behaviour (retries, redirects) switched off."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tts_plugins._internal.secrets import Hidden
from tts_plugins._internal.threads import in_thread
from tts_plugins.errors import ConfigurationError, MissingExtraError
from tts_plugins.models._clients.hooks import ask, limit

_KEYS = ("API_KEY", "TOKEN", "SECRET", "ACCESS_KEY", "BEARER")
# The fields of a chat completion that reach a provider; any-llm drops the rest, or its SDK raises.
_REACHES: Mapping[str, frozenset[str]] = {
    "anthropic": frozenset({"tools", "tool_choice", "response_format", "parallel_tool_calls"}),
    "gemini": frozenset(
        {"tools", "tool_choice", "response_format", "seed", "frequency_penalty", "presence_penalty", "service_tier"}
    ),
    "bedrock": frozenset({"tools", "tool_choice", "response_format"}),
}
_ALWAYS = {"model", "messages", "max_tokens", "temperature", "top_p", "stop", "reasoning_effort", "timeout"}
_CHAT = {
    "tools", "tool_choice", "response_format", "parallel_tool_calls", "seed", "logprobs", "top_logprobs", "logit_bias",
    "frequency_penalty", "presence_penalty", "user", "service_tier", "prompt_cache_key", "functions", "function_call",
}  # fmt: skip


def split_name(name: object) -> tuple[str, str]:
    """Return the provider and its name for the model, of "provider/model".

    Raises:
        ConfigurationError: it names none that any-llm knows.
        MissingExtraError: any-llm is not installed.
    """
    provider, slash, model = name.partition("/") if isinstance(name, str) else ("", "", "")
    if not slash or not provider or not model:
        raise ConfigurationError(
            f"ProviderModel: model={name!r} must be 'provider/model', such as 'anthropic/claude-haiku-4-5'"
        )
    spec = importlib.util.find_spec("any_llm")  # without its import, which takes seconds
    if spec is None or spec.origin is None:
        raise MissingExtraError("ProviderModel needs any-llm-sdk: pip install 'tts-plugins[providers]'")
    known = sorted(p.name for p in (Path(spec.origin).parent / "providers").iterdir() if (p / "__init__.py").exists())
    if provider not in known:
        raise ConfigurationError(f"ProviderModel: provider {provider!r} is not known; use one of {', '.join(known)}")
    return provider, model


def takes(provider: str, name: str) -> bool:
    """Return whether a field of a chat completion reaches this provider; fields that are the provider's own do."""
    reaches = _REACHES.get(provider)
    return reaches is None or name in _ALWAYS or name not in _CHAT or name in reaches


def check_takes(provider: str, fields: Mapping[str, Any]) -> None:
    """Raise unless all these fields of a request reach the provider.

    Raises:
        ConfigurationError: names the first that would be dropped.
    """
    for name in fields:
        if not takes(provider, name):
            raise ConfigurationError(
                f"ProviderModel: {provider} does not take {name!r}, so it would be dropped; leave it out"
            )


class ProviderClient:
    """What `OpenAICompatibleModel` asks of a client: `chat.completions.create`, by any-llm.

    Attributes:
        base_url: where requests go; the provider's own server is named by its scheme.
    """

    def __init__(self, provider: str, *, api_key: str | None, base_url: str | None, timeout: float) -> None:
        self.provider, self._timeout = provider, timeout
        self.api_key = None if api_key is None else Hidden(api_key)
        self.base_url = base_url or f"{provider}://default"
        self._address = base_url
        self.chat = self.completions = self
        self._llm: Any = None
        self._making = asyncio.Lock()

    @property
    def default_headers(self) -> dict[str, str]:
        """The keys that it may send, so that no error shows them."""
        name = self.provider.upper()
        ours = {key for key in os.environ if key.startswith((name, "GOOGLE", "AWS")) and any(k in key for k in _KEYS)}
        return {key: os.environ[key] for key in sorted(ours)}

    def with_options(self, **options: Any) -> ProviderClient:
        """Return itself: its retries are off."""
        return self

    async def ready(self) -> None:
        """Load the provider's SDK and make its client: what fails here was not sent."""
        if self._llm is None:
            async with self._making:
                self._llm = self._llm or await in_thread(self._make)

    async def create(self, **body: Any) -> Any:
        """Return one completion, in OpenAI's form.

        Raises:
            Exception: the provider's own errors, as they are.
        """
        await self.ready()
        sent = dict(body)
        if isinstance(sent.get("stop"), str):
            sent["stop"] = [sent["stop"]]  # one provider reads a text as its letters
        return await self._llm.acompletion(**sent)

    async def close(self) -> None:
        """Close the connections."""
        llm, self._llm = self._llm, None
        client = getattr(llm, "client", None)
        closing = getattr(getattr(client, "aio", client), "aclose", None) or getattr(client, "close", None)
        if closing is not None and hasattr(made := closing(), "__await__"):
            await made

    def _make(self) -> Any:
        any_llm = importlib.import_module("any_llm")
        given = {"api_key": self.api_key and str(self.api_key), "api_base": self._address, "unified_exceptions": False}
        settings = self._settings()
        try:
            return any_llm.AnyLLM.create(self.provider, **given, **settings)
        except any_llm.exceptions.UnsupportedParameterError:
            settings.pop("max_retries", None)
            warnings.warn(
                f"ProviderModel: the SDK of {self.provider} may try again by itself, which no budget sees", stacklevel=2
            )
            return any_llm.AnyLLM.create(self.provider, **given, **settings)
        except ImportError as error:
            raise MissingExtraError(
                f"ProviderModel: {error}; pip install 'any-llm-sdk[{self.provider}]' or 'tts-plugins[providers]'"
            ) from error

    def _settings(self) -> dict[str, Any]:
        """Return settings for the provider's SDK: no retries, no redirects to other servers, limited answers."""
        if self.provider == "bedrock":
            config = importlib.import_module("botocore.config").Config(
                retries={"total_max_attempts": 1, "mode": "standard"}, read_timeout=self._timeout, connect_timeout=10
            )
            return {
                "config": config,
                "region_name": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
            }
        if self.provider == "anthropic":
            client = importlib.import_module("anthropic").DefaultAsyncHttpxClient(
                event_hooks={"request": [ask], "response": [limit]}
            )
            return {"max_retries": 0, "http_client": client}
        if self.provider == "gemini":
            types = importlib.import_module("google.genai.types")
            # Given a client, it does not choose aiohttp, which would follow redirects and read without end.
            client = importlib.import_module("httpx").AsyncClient(
                event_hooks={"request": [ask], "response": [limit]}, timeout=self._timeout, follow_redirects=True
            )
            options = types.HttpOptions(retry_options=types.HttpRetryOptions(attempts=1), httpx_async_client=client)
            return {"http_options": options}
        return {"max_retries": 0}
