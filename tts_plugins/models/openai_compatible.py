"""Any server that speaks OpenAI's chat completions: OpenAI, Azure, vLLM, llama.cpp, Ollama, and the rest."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from tts_plugins._internal.config import check_count, check_price
from tts_plugins._internal.http_errors import shown_address
from tts_plugins._internal.request_sent import holding, leaving
from tts_plugins._internal.threads import in_thread
from tts_plugins._internal.token_usage import (
    Price,
    PromptBound,
    Trust,
    Written,
    completion_count,
    kept_limit,
    measure,
    most_of_one,
    pricing,
)
from tts_plugins.budget import Bound, Limits
from tts_plugins.errors import (
    CallTimedOut,
    ConfigurationError,
    MalformedResponse,
    ModelError,
    RequestNotSent,
    ServerFailed,
    TTSError,
)
from tts_plugins.models._chat.revising import Revising
from tts_plugins.models._chat.stepping import Stepping, StepSettings
from tts_plugins.models._chat.templates import Templates
from tts_plugins.models._openai.choices import generation, shown
from tts_plugins.models._openai.clients import Clients
from tts_plugins.models._openai.completions import complete
from tts_plugins.models._openai.error_mapping import translate
from tts_plugins.models._openai.extra_fields import check_fields, check_request
from tts_plugins.models._openai.stream import gather
from tts_plugins.models._openai.tokenizer import weigh
from tts_plugins.models._openai.transport import Outgoing
from tts_plugins.prompts import Turns
from tts_plugins.types import Generation, Problem, Reply

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Shape = Callable[[Any, Generation], Generation]

# Under this key of a problem's metadata stand fields for its request alone.
REQUEST = "tts_plugins.request"
_WHO = "OpenAICompatibleModel"


class OpenAICompatibleModel(Stepping, Revising):
    """Chat completions of any compatible server.

    Args:
        model: the server's name for the model (on Azure, the deployment).
        base_url, api_key: as for the OpenAI client; from its environment variables where left out.
        client: an `AsyncOpenAI` of your own (Azure, gateways) instead of those two; it is never changed or closed, and
            its retries are not used. One that was given an `http_client` (a proxy, a certificate) works on one event
            loop: pass a function that makes it, and each loop has one.
        temperature, top_p, stop, max_tokens: as the server knows them. `max_tokens` is needed under a token or
            money budget, and goes out as `max_completion_tokens` where the server asks for that.
        system: a system message put before every problem.
        logprobs: keep each token's log-probability; a number asks for that many alternatives too.
        params: further fields of the request (`tools`, `response_format`, `reasoning_effort`, …). What decides on the
            cost of a request is refused here and in `extra_body`: limits other than `max_tokens`, `n`, `messages`.
        extra_body, headers: sent along as they are.
        timeout: seconds for one whole call, however slowly its answer trickles in.
        batch: choices asked in one request at most; 1 for a server known to ignore `n`.
        stream: have answers streamed, and gather them; some servers notice a cancelled request only then.
        send_seed: whether requests carry a seed; it stops by itself where a server refuses one.
        concurrency, requests_per_minute, tokens_per_minute: what the server bears, over all solves together.
        price: US dollars per million prompt tokens and per million completion tokens; the published price where
            `genai-prices` is installed and lists it, else unknown.
        steps: how searches over steps cut and continue a solution, see `StepSettings`.
        revision: from a problem and earlier attempts to the messages that ask for a better one.

    Raises:
        ConfigurationError: a field is out of range, or one of `params` or `extra_body` would cost other than what is
            reserved; n > 1 is asked at temperature 0.
        RequestNotSent: in a call: the client refuses one of `params`, such as a name that it does not know.
    """

    _ways = (*Stepping._ways, "completions")

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        client: AsyncOpenAI | Callable[[], AsyncOpenAI] | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: str | Sequence[str] | None = None,
        max_tokens: int | None = None,
        system: str | None = None,
        logprobs: bool | int = False,
        params: Mapping[str, Any] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 600.0,
        batch: int = 128,
        stream: bool = False,
        send_seed: bool = True,
        concurrency: int | None = 128,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        price: tuple[float, float] | None = None,
        steps: StepSettings | None = None,
        revision: Turns | None = None,
    ) -> None:
        make = client if callable(client) else None
        client = make() if make is not None else cast("AsyncOpenAI | None", client)
        _check(model, temperature, max_tokens, timeout, batch, price, client)
        self.name = model
        self.limits = Limits(
            concurrency=concurrency, requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute
        )
        self.temperature, self.max_tokens = temperature, max_tokens
        self._base_url = base_url if client is None else str(client.base_url)
        self._timeout, self._batch, self._system, self._headers = timeout, batch, system, dict(headers or {})
        # The table of published prices takes most of a second to load, in which a loop could keep no deadline.
        self._priced = price is not None or not _on_a_loop()
        self._price: Price | None = pricing(price, model, self._base_url) if self._priced else None
        self._request: dict[str, Any] = {
            "temperature": temperature, "top_p": top_p, "stop": stop, "extra_body": dict(extra_body or {}) or None,
            "max_completion_tokens" if base_url is None and client is None else "max_tokens": max_tokens,
            **({"logprobs": True, "top_logprobs": None if logprobs is True else logprobs} if logprobs else {}),
            **(params or {}),
        }  # fmt: skip
        self._request = {key: value for key, value in self._request.items() if value is not None}
        check_request(_WHO, self._request, max_tokens)
        self._stream, self._send_seed = stream, send_seed
        steps = steps or StepSettings()
        self._begin_stepping(steps, None if client is None and base_url is None else self._base_url)
        self._templates = Templates(steps.template, self._headers)
        self._turns = revision
        self._checked_seeds = False
        self._prompts, self._trust = PromptBound(), Trust()
        self._clients = Clients(base_url=base_url, api_key=api_key, client=client, make=make, timeout=timeout)

    def __repr__(self) -> str:
        where = f", base_url={shown_address(self._base_url)!r}" if self._base_url else ""
        return f"{type(self).__name__}({self.name!r}{where})"

    @property
    def batch(self) -> int:
        """Choices that one request may ask for; 1 once the server has shown that it ignores `n`."""
        return self._batch

    async def bound(self, problem: Problem) -> Bound:
        """The prompt's tokens at most, `max_tokens`, and their price where one is known."""
        return await self._bounded(self._prompt(problem), self.max_tokens)

    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
        """One request for as many choices as there are seeds; it carries the first one's seed.

        A parameter that the server refuses by name (`temperature`, `seed`, `n`, `max_tokens`) is left out or
        renamed, from then on too.
        """
        return await self._ask(self._prompt(problem), seeds)

    async def _ask(
        self,
        prompt: dict[str, Any],
        seeds: Sequence[int | None],
        *,
        max_tokens: int | None = None,
        shape: Shape | None = None,
        adapt: Callable[[Exception], bool] = lambda error: False,
    ) -> Reply:
        """The request with this prompt.

        Args:
            max_tokens: instead of the model's.
            shape: from a choice and what it says to the generation that it stands for.
            adapt: whether the prompt was mended in place, so that it can be sent again.
        """
        if self.temperature == 0 and len(seeds) > 1:
            raise ConfigurationError(
                f"{self.name}: {len(seeds)} samples at temperature=0 would be the same one; set temperature to about "
                "0.8, or ask for one sample"
            )
        holding(self)
        await self._know_price()
        limit, requests = max_tokens or self.max_tokens, 0
        while True:
            requests += 1
            body, outgoing = self._body(prompt, seeds, max_tokens), Outgoing()
            try:
                async with asyncio.timeout(self._timeout):
                    with outgoing:
                        response = await self._respond(body)
                await self._weigh(prompt, response, limit)
                return self._reply(prompt, response, body.get("n", 1), requests, limit, shape)
            except ModelError as error:
                error.requests = requests
                raise
            except TTSError:
                raise
            except TimeoutError as error:
                late = CallTimedOut(f"{self.name}: no complete answer within timeout={self._timeout:g} s for one call")
                late.requests = requests
                raise late from error
            except Exception as error:
                if outgoing.refused(self._clients.here, error):
                    raise RequestNotSent(f"{self._where()}: {error}", model=self) from error
                fault = translate(error, self._where())
                fault.requests = requests
                if requests > 4 or not (adapt(error) or self._adapt(error, body)):
                    raise fault from error

    async def _respond(self, body: dict[str, Any]) -> Any:
        client = await self._clients.get()
        create: Any = client.chat.completions.create
        if not self._clients.watched:
            leaving()
        if "prompt" in body:
            return await complete(client.completions.create, body, self._stream)
        if not self._streams():
            return await create(**body)
        async with await create(**body, stream=True, stream_options={"include_usage": True}) as chunks:
            return await gather(self._heard(chunks))

    def _streams(self) -> bool:
        """Whether the answer of the running call is streamed."""
        return self._stream

    def _heard(self, chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """The chunks of a stream on their way to being gathered; a subclass may listen to them here."""
        return chunks

    async def aclose(self) -> None:
        """Close the connections of the running loop; a later call opens new ones."""
        await self._clients.close()

    async def _bounded(self, prompt: dict[str, Any], max_tokens: int | None, ahead: int = 0) -> Bound:
        """The prompt's tokens at most, `ahead` more, `max_tokens`, and their price where one is known."""
        await self._know_price()
        tokens = self._prompts.of(prompt) + ahead
        limit = self._trust.limit(max_tokens)
        price = None if self._price is None else self._price(tokens, limit or 0)
        return Bound(prompt_tokens=tokens, completion_tokens=limit, usd=price)

    async def _know_price(self) -> None:
        if not self._priced:
            self._price = await in_thread(pricing, None, self.name, self._base_url)
            self._priced = True

    def _prompt(self, problem: Problem) -> dict[str, Any]:
        return self._prompt_of(problem.messages, problem)

    def _prompt_of(self, messages: Sequence[Mapping[str, Any]], problem: Problem) -> dict[str, Any]:
        """The messages, and what the problem brings along for its request alone, such as a judge's schema."""
        system = [{"role": "system", "content": self._system}] if self._system else []
        extra: dict[str, Any] = {
            key: self._request[key] for key in ("tools", "response_format", "functions") if key in self._request
        }
        fields = problem.metadata.get(REQUEST, {})
        check_fields(self.name, "request", fields, self.max_tokens)
        return {"messages": [*system, *messages], **extra, **fields}

    async def _completing(self, prompt: dict[str, Any]) -> dict[str, Any]:
        """The same for the completions endpoint: rendered, with what a last turn of the assistant has begun."""
        messages, shown = list(prompt["messages"]), ("tools", "functions")
        last = messages[-1]
        begun = last["content"] if last["role"] == "assistant" and isinstance(last.get("content"), str) else ""
        fields = {key: prompt[key] for key in shown if key in prompt}
        extra = self._request.get("extra_body", {})
        fields |= {key: extra[key] for key in ("chat_template", "chat_template_kwargs") if key in extra}
        text = await self._templates.prompt(
            await self._clients.get(), self.name, messages[:-1] if begun else messages, begun, fields
        )
        return {**{key: value for key, value in prompt.items() if key not in ("messages", *shown)}, "prompt": text}

    def _body(self, prompt: dict[str, Any], seeds: Sequence[int | None], max_tokens: int | None) -> dict[str, Any]:
        body = {"model": self.name, **self._request, **prompt}
        if max_tokens is not None:
            body["max_completion_tokens" if "max_completion_tokens" in self._request else "max_tokens"] = max_tokens
        if "extra_body" in prompt:
            body["extra_body"] = {**self._request.get("extra_body", {}), **prompt["extra_body"]}
        if self._headers:
            body["extra_headers"] = self._headers
        if len(seeds) > 1 and self._batch > 1:
            body["n"] = min(len(seeds), self._batch)
        if self._send_seed and seeds[0] is not None and body.get("temperature") != 0:
            body["seed"] = seeds[0]
        return body

    async def _weigh(self, prompt: dict[str, Any], response: Any, max_tokens: int | None) -> None:
        """Find out whether the usage is that of all choices, where nothing else has told yet."""
        choices, usage, trust = getattr(response, "choices", None) or (), getattr(response, "usage", None), self._trust
        if len(choices) < 2 or trust.proven or trust.asked or getattr(usage, "every_choice", False):
            return
        texts, cut = [self._new(prompt, shown(c)) for c in choices], [c.finish_reason == "length" for c in choices]
        told = completion_count(usage, texts, cut, max_tokens)
        kept = kept_limit(usage, texts, max_tokens, trust)
        if told is not None and told <= most_of_one(told, usage, texts, kept):
            await weigh(trust, told, await self._clients.get(), self.name, texts)

    def _reply(
        self,
        prompt: dict[str, Any],
        response: Any,
        asked: int,
        requests: int,
        max_tokens: int | None,
        shape: Shape | None,
    ) -> Reply:
        choices = getattr(response, "choices", None)
        if not choices:
            if (said := getattr(response, "error", None)) is not None:  # some gateways report errors with a 200
                raise ServerFailed(f"{self._where()}: the answer is an error, {str(said)[:300]}")
            kind = "no choices" if hasattr(response, "choices") else f"a {type(response).__name__}, no completion"
            raise MalformedResponse(f"{self._where()}: the answer has {kind}: {str(response)[:120]!r}")
        made = [(c, generation(c, empty=shape is not None)) for c in choices]
        written = Written.of(prompt)
        usage = measure(
            getattr(response, "usage", None),
            [self._new(prompt, shown(c)) for c, _ in made],
            [c.finish_reason == "length" for c, _ in made],
            prompt_bound=self._prompts.of(written),
            max_tokens=max_tokens,
            hidden=any(g is None for _, g in made),
            price=self._price,
            trust=self._trust,
        )
        if usage.exact:
            self._prompts.saw(written, usage.prompt_tokens)
        # Choices that nobody asked for cost their tokens, and are no calls of ours.
        usage = replace(usage, calls=min(usage.calls, asked), requests=requests)
        if len(choices) < asked and len(choices) == 1:
            self._batch = 1  # it ignores n; the rest are asked for singly
        generations = tuple(g if shape is None else shape(c, g) for c, g in made if g is not None)[:asked]
        if not generations:
            raise MalformedResponse(f"{self._where()}: the answer has neither text nor a tool call")
        if len(choices) == 1 and usage.exact:
            generations = (replace(generations[0], tokens=usage.completion_tokens),)
        return Reply(generations=self._distinct(generations), usage=usage)

    def _distinct(self, generations: tuple[Generation, ...]) -> tuple[Generation, ...]:
        """One of many where a server made one seed into one text: the rest are then asked for with their own seeds."""
        texts = {g.text for g in generations}
        if self._checked_seeds or len(generations) < 2 or len(generations[0].text) < 160:
            return generations  # short answers may well be equal
        self._checked_seeds = True
        if len(texts) > 1:
            return generations
        self._batch = 1
        return generations[:1]

    def _adapt(self, error: Exception, body: Mapping[str, Any]) -> bool:
        """Whether the request can be sent again without what the server named as not supported."""
        if getattr(error, "status_code", None) not in (400, 422):
            return False
        said = f"{getattr(error, 'param', '')} {error}".lower()
        if "max_tokens" in body and "max_completion_tokens" in said:
            self._request["max_completion_tokens"] = self._request.pop("max_tokens", self.max_tokens)
        elif "max_completion_tokens" in body and "max_completion_tokens" in said:
            self._request["max_tokens"] = self._request.pop("max_completion_tokens", self.max_tokens)
        elif "temperature" in body and "temperature" in said:
            self._request.pop("temperature", None)
        elif "seed" in body and "seed" in said:
            self._send_seed = False
        elif "n" in body and re.search(r"\bn(?:_cmpl)?\b|slot", said):
            self._batch = 1
        else:
            return False
        return True

    def _where(self) -> str:
        return f"{self.name} at {shown_address(self._base_url)}" if self._base_url else self.name


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _check(
    model: object,
    temperature: float | None,
    max_tokens: int | None,
    timeout: float,
    batch: int,
    price: tuple[float, float] | None,
    client: object,
) -> None:
    who = _WHO
    if not isinstance(model, str) or not model.strip():
        raise ConfigurationError(f"{who}: model={model!r} must be the server's name for the model")
    if temperature is not None and not 0 <= temperature <= 2:
        raise ConfigurationError(f"{who}: temperature={temperature!r} must be from 0 to 2")
    if max_tokens is not None:
        check_count(who, "max_tokens", max_tokens)
    check_count(who, "batch", batch)
    if not timeout > 0:
        raise ConfigurationError(f"{who}: timeout={timeout!r} must be above 0 seconds")
    if price is not None:
        check_price(who, price)
    if client is not None and not inspect.iscoroutinefunction(getattr(client, "close", None)):
        kind = type(client).__name__
        raise ConfigurationError(f"{who}: client is a {kind}; pass an asynchronous one, such as Async{kind}")
