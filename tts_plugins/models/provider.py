"""Models of providers with an interface of their own: Anthropic, Gemini, Bedrock, and whatever else any-llm knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tts_plugins._internal.error_bodies import ErrorBody
from tts_plugins._internal.http_limits import check_address, check_value
from tts_plugins._internal.secrets import hidden, hidden_address
from tts_plugins._internal.token_usage import Price, pricing
from tts_plugins.errors import RequestRefused, TTSError
from tts_plugins.models._chat.step_format import StepSettings
from tts_plugins.models._openai.error_mapping import refusal, translate
from tts_plugins.models._providers.client import ProviderClient, check_takes, split_name, takes
from tts_plugins.models._providers.errors import provider_error, provider_refusal
from tts_plugins.models.openai_compatible import OpenAICompatibleModel
from tts_plugins.prompts import Turns

_WHO = "ProviderModel"
# As the table of published prices calls them.
_PRICED = {"gemini": "google", "vertexai": "google", "bedrock": "aws", "xai": "x-ai", "azureopenai": "azure"}


class ProviderModel(OpenAICompatibleModel):
    """A model of Anthropic, Gemini, Bedrock or another provider that any-llm-sdk knows (the extra `providers`).

    Bounds, retries, prices and traces are those of `OpenAICompatibleModel`. Each sample is one request, since these
    interfaces have no `n`. Retries of the provider's SDK are off: the engine makes them, and counts each. A field that
    would be dropped on the way is refused.

    Args:
        model: "provider/model", such as "anthropic/claude-haiku-4-5", "gemini/gemini-2.5-flash" or
            "bedrock/amazon.nova-lite-v1:0".
        api_key: from the provider's environment variable if left out; on Bedrock from the usual places of AWS.
        base_url: another address than the provider's own.
        temperature, top_p, stop, max_tokens: as the provider knows them. `max_tokens` is needed under a token or money
            budget.
        system: a system message put before every problem.
        params: further fields of a chat completion (`tools`, `response_format`, `reasoning_effort`), or of the
            provider's own request (`top_k`).
        timeout: seconds for one whole call. A call to Bedrock that is cancelled goes on in its thread for as long.
        send_seed: whether requests carry a seed, if the provider takes one.
        concurrency, requests_per_minute, tokens_per_minute, price, steps, revision: as for `OpenAICompatibleModel`.

    Raises:
        ConfigurationError: a field is out of range, is unknown to the provider, or would be dropped.
        MissingExtraError: any-llm-sdk, or the provider's part of it, is not installed.
    """

    _ways = ()  # none of them is sure to continue an assistant's text, so steps are requested in words

    def __init__(
        self,
        model: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: str | Sequence[str] | None = None,
        max_tokens: int | None = None,
        system: str | None = None,
        params: Mapping[str, Any] | None = None,
        timeout: float = 120.0,
        send_seed: bool = True,
        concurrency: int | None = 32,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        price: tuple[float, float] | None = None,
        steps: StepSettings | None = None,
        revision: Turns | None = None,
    ) -> None:
        base_url, api_key = hidden_address(base_url), hidden(api_key)
        self.provider, self._model = split_name(model)
        if base_url is not None:
            check_address(_WHO, base_url)
        if api_key is not None:
            check_value(_WHO, "api_key", api_key)
        check_takes(self.provider, params or {})
        make: Any = lambda: ProviderClient(self.provider, api_key=api_key, base_url=base_url, timeout=timeout)  # noqa: E731
        super().__init__(
            model, client=make, temperature=temperature, top_p=top_p, stop=stop, max_tokens=max_tokens, system=system,
            params=params, timeout=timeout, batch=1, send_seed=send_seed and takes(self.provider, "seed"),
            concurrency=concurrency, requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute,
            price=price, steps=steps, revision=revision,
        )  # fmt: skip
        self._base_url = base_url

    def _find_price(self, price: tuple[float, float] | None) -> Price | None:
        return pricing(price, self._model, None, provider=_PRICED.get(self.provider, self.provider))

    async def _respond(self, body: dict[str, Any]) -> Any:
        for name in body:
            if not takes(self.provider, name):  # of one problem alone, such as what a judge would like to have
                refused = RequestRefused(f"{self.server}: {self.provider} does not take {name!r}; leave it out")
                refused.charge = "nothing"
                raise refused
        await (await self._clients.get()).ready()
        return await super()._respond({**body, "model": self._model, "timeout": self._timeout})

    def _error_of(self, error: Exception) -> TTSError:
        find = translate if type(error).__module__.partition(".")[0] == "openai" else provider_error
        return find(error, self.server, self._clients.secrets)

    def _refusal_of(self, error: Exception) -> tuple[int, ErrorBody] | None:
        known = type(error).__module__.partition(".")[0] in ("openai", "anthropic")
        return (refusal if known else provider_refusal)(error)
