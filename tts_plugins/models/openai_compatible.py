"""Any server that speaks OpenAI's chat completions: OpenAI, Azure, vLLM, llama.cpp, Ollama, and the rest."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from tts_plugins._calls.charging import cause_for
from tts_plugins._calls.prompt_bound import PromptBound
from tts_plugins._internal.error_bodies import ErrorBody
from tts_plugins._internal.http_errors import shown_address
from tts_plugins._internal.http_limits import check_headers
from tts_plugins._internal.request_sent import holding, leaving
from tts_plugins._internal.secrets import cleaned, hidden, hidden_address, hidden_headers, secrets_of_request
from tts_plugins._internal.threads import in_thread
from tts_plugins._internal.token_usage import Price, Trust, pricing
from tts_plugins._internal.values import effort_fields, field, once_made
from tts_plugins.budget import Bound, Limits
from tts_plugins.errors import CallTimedOut, ConfigurationError, ModelError, RequestNotSent, TTSError
from tts_plugins.models._chat.revising import Revising
from tts_plugins.models._chat.step_format import StepSettings, Way
from tts_plugins.models._chat.stepping import Stepping
from tts_plugins.models._chat.templates import Templates
from tts_plugins.models._clients.transport import ArgumentsRefused, Outgoing
from tts_plugins.models._openai.accepted import Accepted, Fixes
from tts_plugins.models._openai.clients import Clients, Secrets, is_official, watches
from tts_plugins.models._openai.error_mapping import refusal, translate
from tts_plugins.models._openai.exchange import send
from tts_plugins.models._openai.extra_fields import check_fields, check_request
from tts_plugins.models._openai.reply import Asked, ReplyReader, Shape
from tts_plugins.models._openai.settings import check_settings, on_a_loop, request_fields
from tts_plugins.models._openai.tokenizer import weigh
from tts_plugins.prompts import Turns
from tts_plugins.types import REQUEST, Generation, Problem, Reply

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_MOST_REQUESTS = 8  # of one call: what is refused by name, one field after the other

_WHO = "OpenAICompatibleModel"


class OpenAICompatibleModel(Stepping, Revising):
    """Chat completions of any compatible server.

    Args:
        model: the server's name for the model (on Azure, the deployment).
        base_url, api_key: as for the OpenAI client; from its environment variables if left out.
        client: an `AsyncOpenAI` of your own (Azure, gateways) instead of those two; it is never changed or closed, and
            its retries are not used. One that was given an `http_client` (a proxy, a certificate) works on one event
            loop: pass a function that makes it, and each loop has one.
        temperature, top_p, stop, max_tokens: as the server knows them. `max_tokens` is needed under a token or
            money budget, and goes out as `max_completion_tokens` if the server asks for that.
        system: a system message put before every problem.
        logprobs: keep each token's log-probability; a number asks for that many alternatives too.
        params: further fields of the request (`tools`, `response_format`, `reasoning_effort`, …). What decides on the
            cost of a request is refused here and in `extra_body`: limits other than `max_tokens`, `n`, `messages`.
        extra_body, headers: sent along as they are.
        timeout: seconds for one whole call, however slowly its answer trickles in.
        batch: choices asked in one request at most; 1 for a server known to ignore `n`.
        stream: have answers streamed, and gather them; some servers notice a cancelled request only then.
        send_seed: whether requests carry a seed; it stops by itself if a server refuses one.
        concurrency, requests_per_minute, tokens_per_minute: what the server bears, over all solves together.
        price: US dollars per million prompt tokens and per million completion tokens; the published price if
            `genai-prices` is installed and lists it, else unknown.
        steps: how searches over steps cut and continue a solution, see `StepSettings`.
        revision: from a problem and earlier attempts to the messages that ask for a better one.

    Raises:
        ConfigurationError: a field is out of range, or one of `params` or `extra_body` would cost other than what is
            reserved; n > 1 is asked at temperature 0.
        RequestNotSent: in a call: the client refuses one of `params`, such as a name that it does not know.
    """

    _ways: Sequence[Way] = (*Stepping._ways, "completions")
    _both_limits = False  # whether a request may have both names of max_tokens

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
        base_url, api_key, headers = hidden_address(base_url), hidden(api_key), hidden_headers(headers)
        make = client if callable(client) else None
        client = make() if make is not None else cast("AsyncOpenAI | None", client)
        check_settings(_WHO, model, temperature, max_tokens, timeout, batch, price, client)
        self.name = model
        self.limits = Limits(
            concurrency=concurrency, requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute
        )
        self.temperature, self.max_tokens = temperature, max_tokens
        params = dict(params or {})
        if "extra_headers" in params:
            params["extra_headers"] = hidden_headers(params["extra_headers"])
            check_headers(_WHO, params["extra_headers"])
        self._clients = Clients(
            base_url=base_url, api_key=api_key, client=client, make=make, timeout=timeout, headers=headers,
            private=secrets_of_request({"extra_body": extra_body, **params}),
        )  # fmt: skip
        self._base_url = self._clients.address
        self._timeout, self._system, self._headers = timeout, system, headers
        self._accepted = Accepted(batch)
        # The table of published prices takes most of a second to load, in which a loop could keep no deadline.
        self._priced = price is not None or not on_a_loop()
        self._price: Price | None = self._find_price(price) if self._priced else None
        self._request = request_fields(
            is_official(self._base_url), max_tokens, logprobs, params,
            temperature=temperature, top_p=top_p, stop=stop, extra_body=dict(extra_body or {}) or None,
        )  # fmt: skip
        check_request(_WHO, self._request, max_tokens, both=self._both_limits)
        self._stream, self._send_seed = stream, send_seed
        steps = steps or StepSettings()
        self._begin_stepping(steps, self._base_url)
        self._templates = Templates(steps.template, self._headers)
        self._turns = revision
        self._checked_seeds = False
        self._prompts, self._trust = PromptBound(), Trust()
        self._variants: dict[tuple[str, str], OpenAICompatibleModel] = {}

    def variant(
        self, *, model: str | None = None, effort: str | Mapping[str, Any] | None = None
    ) -> OpenAICompatibleModel:
        """Return this model under another name of the same server, or at another reasoning effort, for a `Ladder`.

        Another name has its published price, if one is known. The same arguments give the same object, whose limits
        are counted apart from this one's.

        Raises:
            ConfigurationError: `model` is not a name.
        """
        if model is not None and (not isinstance(model, str) or not model.strip()):
            raise ConfigurationError(f"{_WHO}: model={model!r} must be the server's name for the model")
        key = model or self.name, json.dumps(effort, sort_keys=True, default=repr)
        if key not in self._variants:
            self._variants[key] = self._varied(model or self.name, effort)
        return self._variants[key]

    def _varied(self, name: str, effort: str | Mapping[str, Any] | None) -> OpenAICompatibleModel:
        made = copy.copy(self)
        made._variants = {}
        if effort is not None:
            asked, given = self._effort(effort), self._request.get("extra_body")
            check_fields(self.name, "effort", asked, self.max_tokens)
            if given and "extra_body" in asked:
                asked["extra_body"] = {**given, **asked["extra_body"]}
            made._request = {**self._request, **asked}
        if name != self.name:
            made.name, made._accepted = name, Accepted(self._accepted.batch)
            made._prompts, made._trust, made._priced, made._price = PromptBound(), Trust(), False, None
        return made

    def _effort(self, effort: str | Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a request that ask for a reasoning effort."""
        return effort_fields(effort)

    @once_made
    def __repr__(self) -> str:
        where = f", base_url={shown_address(self._base_url)!r}" if self._base_url else ""
        return f"{type(self).__name__}({self.name!r}{where})"

    @property
    def batch(self) -> int:
        """Choices that one request may ask for; 1 once the server has shown that it ignores `n`."""
        return self._accepted.batch

    async def bound(self, problem: Problem) -> Bound:
        """Return the prompt's tokens at most, `max_tokens`, and their price if one is known."""
        return await self._bounded(self._prompt(problem), self.max_tokens)

    def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Coroutine[Any, Any, Reply]:
        """Ask for as many choices as there are seeds, in one request; it carries the first one's seed.

        A parameter that the server refuses by name (`temperature`, `seed`, `n`, `max_tokens`) is left out or
        renamed, from then on too.
        """
        return self._ask(self._prompt(problem), seeds)

    async def _ask(
        self,
        prompt: dict[str, Any],
        seeds: Sequence[int | None],
        *,
        max_tokens: int | None = None,
        shape: Shape | None = None,
        adapt: Callable[[Exception], bool] = lambda error: False,
    ) -> Reply:
        """Return the request with this prompt.

        Args:
            max_tokens: instead of the model's.
            shape: from a choice and what it says to its generation.
            adapt: whether the prompt was changed in place after this refusal, so that it can be sent again.
        """
        if self.temperature == 0 and len(seeds) > 1:
            raise ConfigurationError(
                f"{self.name}: {len(seeds)} samples at temperature=0 would be the same one; set temperature to about "
                "0.8, or ask for one sample"
            )
        holding(self)
        if not self._priced:
            await self._know_price()
        fixes, requests = Fixes(self._accepted), 0
        while True:
            requests += 1
            body = self._body(prompt, seeds, max_tokens, fixes.now)
            asked = Asked(
                prompt=prompt, choices=body.get("n", 1), max_tokens=max_tokens or self.max_tokens, requests=requests,
                shape=shape,
            )  # fmt: skip
            made = await self._attempt(asked, body, fixes, adapt)
            if isinstance(made, Reply):
                return made
            if made is not None:
                # Raise it here: no variable here holds what the server wrote, which may quote a key.
                raise made from made.__cause__

    async def _attempt(
        self, asked: Asked, body: dict[str, Any], fixes: Fixes, adapt: Callable[[Exception], bool]
    ) -> Reply | TTSError | None:
        """Return the reply to one request, or its error; None if it can be sent again, changed."""
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._respond(body)
            if fixes.now is not self._accepted:
                self._accepted = self._accepted.joined(fixes.now)
            return await self._read(asked, response)
        except ArgumentsRefused as error:
            wrong = RequestNotSent(f"{self.server}: {error}", model=self)
            return self._failed(wrong, error.__cause__, asked.requests)
        except TTSError as error:
            return self._failed(error, error.__cause__, asked.requests)
        except TimeoutError as error:
            late = CallTimedOut(f"{self.name}: no complete answer within timeout={self._timeout:g} s for one call")
            return self._failed(late, error, asked.requests)
        except Exception as error:  # noqa: BLE001 - whatever the client raises
            refused = self._refusal_of(error)
            changed = refused is not None and (adapt(error) or fixes.change(*refused, body))
            if changed and asked.requests < _MOST_REQUESTS:
                return None
            return self._failed(self._error_of(error), error, asked.requests)

    def _error_of(self, error: Exception) -> TTSError:
        """Return our error for one of the client's."""
        return translate(error, self.server, self._clients.secrets)

    def _refusal_of(self, error: Exception) -> tuple[int, ErrorBody] | None:
        """Return what the server says if it refused the request."""
        return refusal(error)

    def _find_price(self, price: tuple[float, float] | None) -> Price | None:
        """Return the given price, or the published one."""
        return pricing(price, self.name, self._base_url)

    def _failed(self, fault: TTSError, cause: BaseException | None, requests: int) -> TTSError:
        """Return the error with the requests that it took; neither it nor its causes show a key."""
        if isinstance(fault, ModelError):
            fault.requests = requests
        fault.__cause__ = cause_for(fault, cause)
        return cleaned(fault, self._clients.secrets)

    async def _respond(self, body: dict[str, Any]) -> Any:
        client = await self._clients.get()
        if not watches(client):
            leaving()
        hear = self._listener()
        return await send(client, body, stream=self._stream or hear is not None, hear=hear)

    def _outgoing(self, client: Any) -> Outgoing:
        """Return a context for a call of a client's method, in which a refusal of its arguments is told from others."""
        return Outgoing(client)

    def _listener(self) -> Callable[[Any], None] | None:
        """Return who receives each chunk of the running call's answer, which is then streamed; here nobody."""
        return None

    async def _read(self, asked: Asked, response: Any) -> Reply:
        reader = ReplyReader(
            who=self._who, new=self._new, prompts=self._prompts, trust=self._trust, price=self._price,
            secrets=Secrets(self._clients),
        )  # fmt: skip
        if (doubt := reader.doubt(asked, response)) is not None:
            await weigh(self._trust, doubt[0], await self._clients.get(), self.name, doubt[1])
        if asked.choices > 1 and (field(response, "several") is False or len(field(response, "choices") or ()) == 1):
            self._accepted = replace(self._accepted, batch=1)  # it ignores n; the rest are requested one by one
        reply = reader.read(asked, response)
        kept = self._distinct(reply.generations)
        if asked.shape is None:
            kept = self._candidates(kept)
        return reply if kept is reply.generations else replace(reply, generations=kept)

    async def aclose(self) -> None:
        """Close the connections of the running loop; a later call opens new ones."""
        await self._clients.close()

    async def _bounded(self, prompt: dict[str, Any], max_tokens: int | None, ahead: int = 0) -> Bound:
        """Return the prompt's tokens at most, `ahead` more, `max_tokens`, and their price if one is known."""
        if not self._priced:
            await self._know_price()
        tokens = self._prompts.of(prompt) + ahead
        limit = self._trust.limit(max_tokens)
        price = None if self._price is None else self._price(tokens, limit or 0)
        once = (0.0 if self._price is None else self._price(tokens, 0)) or 0.0
        return Bound(prompt_tokens=tokens, completion_tokens=limit, usd=price, shared_tokens=tokens, shared_usd=once)

    @property
    def price(self) -> Price | None:
        """From prompt and completion tokens to US dollars; None while it is unknown."""
        return self._price

    async def _know_price(self) -> None:
        self._price = await in_thread(self._find_price, None)
        self._priced = True

    def _prompt(self, problem: Problem) -> dict[str, Any]:
        return self._prompt_of(problem.messages, problem)

    def _prompt_of(self, messages: Sequence[Mapping[str, Any]], problem: Problem) -> dict[str, Any]:
        """Return the messages, and what the problem brings along for its request alone, such as a judge's schema."""
        system = [{"role": "system", "content": self._system}] if self._system else []
        prompt: dict[str, Any] = {"messages": [*system, *messages]}
        for key in ("tools", "response_format", "functions"):
            if key in self._request:
                prompt[key] = self._request[key]
        if fields := problem.metadata.get(REQUEST):
            check_fields(self.name, "request", fields, self.max_tokens)
            prompt.update(fields)
        return prompt

    async def _completing(self, prompt: dict[str, Any]) -> dict[str, Any]:
        """Return the same for the completions endpoint: rendered, with what a last turn of the assistant has begun."""
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

    def _body(
        self, prompt: dict[str, Any], seeds: Sequence[int | None], max_tokens: int | None, accepted: Accepted
    ) -> dict[str, Any]:
        body = {"model": self.name, **self._request, **prompt}
        if max_tokens is not None:
            body["max_completion_tokens" if "max_completion_tokens" in self._request else "max_tokens"] = max_tokens
        if "extra_body" in prompt:
            body["extra_body"] = {**self._request.get("extra_body", {}), **prompt["extra_body"]}
        if self._headers:
            body["extra_headers"] = {**body.get("extra_headers", {}), **self._headers}
        if len(seeds) > 1 and accepted.batch > 1:
            body["n"] = min(len(seeds), accepted.batch)
        if self._stream:
            body["stream_options"] = {"include_usage": True}
        if self._send_seed and seeds[0] is not None and body.get("temperature") != 0:
            body["seed"] = seeds[0]
        return accepted.fit(body)

    def _distinct(self, generations: tuple[Generation, ...]) -> tuple[Generation, ...]:
        """Keep one choice if the server made one text of one seed: the rest are then requested with their own seeds."""
        if self._checked_seeds or len(generations) < 2 or len(generations[0].text) < 160:
            return generations  # short answers may well be equal
        self._checked_seeds = True
        if len({g.text for g in generations}) > 1:
            return generations
        self._accepted = replace(self._accepted, batch=1)
        return generations[:1]

    def _candidates(self, generations: tuple[Generation, ...]) -> tuple[Generation, ...]:
        """Return whole answers as candidates have them. A subclass may put more into their texts."""
        return generations

    def _who(self) -> str:
        return self.server

    @property
    def server(self) -> str:
        """Its name and its server's address, for messages and for limits that models share."""
        return f"{self.name} at {shown_address(self._base_url)}" if self._base_url else self.name
