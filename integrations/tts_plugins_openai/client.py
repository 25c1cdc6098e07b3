"""`scale`: an OpenAI client in, the same client out, whose chat completions are searched for."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Never, Self, TypeVar, Unpack, cast

from openai import AsyncOpenAI, OpenAI

from tts_plugins import Result
from tts_plugins.adapters import (
    SearchOptions,
    SearchSettings,
    as_verifier,
    called_as,
    check_names,
    check_placed,
    shown_address,
)
from tts_plugins.errors import ConfigurationError
from tts_plugins.protocols import SetVerifier, Verifier
from tts_plugins_openai._forms import takes_request
from tts_plugins_openai._model import Client
from tts_plugins_openai._models import Models
from tts_plugins_openai._parsing import Parser
from tts_plugins_openai._request import check_escalation, split
from tts_plugins_openai._responses import UNSEARCHED, ResponseSearch, responses_search
from tts_plugins_openai._search import Search, search_for
from tts_plugins_openai._unsearched import Part, Through, passes

C = TypeVar("C", OpenAI, AsyncOpenAI)


class ScaleOptions(SearchOptions, total=False):
    """The keyword arguments of `scale`."""

    verifier: Verifier | SetVerifier | Callable[..., Any] | None


@called_as("scale(client, n=8)")
def scale(client: C, *placed: Never, **options: Unpack[ScaleOptions]) -> C:
    """Return the client with `chat.completions.create` and `parse` that ask several times and give the best answer.

        client = scale(OpenAI(), strategy=BestOfN(n=8), verifier=check, budget=Budget(tokens=20_000))

    What it returns is what the client returns: a `ChatCompletion` with the chosen message, `n` choices (the n best
    distinct ones), and the usage of all calls; with `stream=True` a stream of its chunks, once it is chosen; from
    `parse` a `ParsedChatCompletion`: verifiers and votes see messages with `parsed`, and what cannot be parsed fails.
    The whole result is `result_of(completion)`. Everything else of the client passes through, `stream` and raw
    responses of chat completions with a warning. One call's settings are given as
    `extra_body={"tts": {"n": 4, "budget": {"tokens": 5_000}}}`, or `tts={…}`; they are not sent.

    Args:
        client: an `OpenAI` or `AsyncOpenAI`, Azure's included. It is not changed. Its `max_retries` are made by the
            engine, which counts each.
        strategy: a strategy, or its registered name; `BestOfN(n=8)` where there is a verifier, else
            `SelfConsistency(n=8)`.
        verifier: one of `tts_plugins.verifiers`; a function of (problem, candidate); or a function of the message.
            The whole request is in `problem.metadata["request"]`.
        budget: limits for each call of `create`, or a `Ledger` that many share.
        seed: the same seed sends the same requests. The `seed` of a call replaces it.
        answer: from a message to what votes; by default what `answers.extract` finds in its text, or its tool calls.
        profile: a named bundle of settings for what is not set here.
        n: the number of candidates, in place of the strategy's own.
        price: dollars per million prompt and completion tokens, or a dict of these by model name.
        on_exhausted: when the budget ends a search, answer with the best so far, or raise `BudgetExhausted`.
        abstain_below: the least confidence with which a request is answered, 0 to 1 (see `Result.confidence`).
        on_abstain: below it, the message has no content but a `refusal`, and `result_of(completion).abstained` says why
            ("none"); `LowConfidence` is raised ("raise"); or what `escalate` names is asked within the same budget.
        escalate: the name of another model of the client, which is asked once; a strategy; or "person", where
            `result_of(completion).abstained.person` says that a person is to be asked.
        concurrency: requests in flight at most, over all calls for one kind of request.

    Raises:
        ConfigurationError: it is not an OpenAI client, or a setting is wrong.
    """
    found: object = client
    if not isinstance(found, OpenAI | AsyncOpenAI):
        raise ConfigurationError(
            f"scale: client={found!r} is not an OpenAI client; pass OpenAI(...) or AsyncOpenAI(...)"
        )
    check_placed("scale(client", placed)
    check_names("scale", options, ScaleOptions.__annotations__)
    given: dict[str, Any] = {**options}
    concurrency = given.pop("concurrency", 128)
    settings = SearchSettings.of("scale", given)
    as_verifier("scale", settings.verifier)
    check_escalation("scale", settings)
    return cast(C, ScaledClient(client, settings, concurrency))


@called_as("result_of(completion)")
def result_of(answer: Any) -> Result:
    """Return the result of the search that a completion or stream came from: score, candidates, usage, trace.

    Raises:
        ConfigurationError: it did not come from a search.
    """
    result = getattr(answer, "_tts", None)
    if not isinstance(result, Result):
        raise ConfigurationError(
            f"result_of: this {type(answer).__name__} did not come from a search; pass what a scaled client returned"
        )
    return result


def _shown(client: Client, settings: SearchSettings) -> str:
    where = shown_address(str(client.base_url))
    return f"scale({type(client).__name__}(base_url={where!r}), {settings.shown()})"


class ScaledClient(Part):
    """The client as seen from outside; `isinstance` finds in it what it wraps."""

    own = ("_target", "_settings", "_concurrency", "chat", "responses")

    def __init__(self, client: Client, settings: SearchSettings, concurrency: int | None) -> None:
        super().__init__(client)
        self._settings, self._concurrency = settings, concurrency
        models = Models(client, concurrency)
        self.chat = _Chat(client, settings, models)
        self.responses = (_AsyncResponses if isinstance(client, AsyncOpenAI) else _Responses)(client, settings, models)

    def __copy__(self) -> ScaledClient:
        return ScaledClient(self._target, self._settings, self._concurrency)

    def __deepcopy__(self, memo: Any) -> ScaledClient:
        return self.__copy__()  # its connections cannot be copied

    def __repr__(self) -> str:
        return _shown(self._target, self._settings)

    @property  # type: ignore[misc]  # so that frameworks which ask for an OpenAI take it
    def __class__(self) -> type[Any]:
        return type(self._target)

    @property
    def beta(self) -> Any:
        """Return the client's own `beta`, with the same scaled chat if it has one."""
        beta = self._target.beta
        return _Beta(beta, self.chat) if hasattr(beta, "chat") else beta

    def with_options(self, **options: Any) -> ScaledClient:
        """Return a scaled client with other options of the client."""
        return ScaledClient(self._target.with_options(**options), self._settings, self._concurrency)

    copy = with_options

    def __enter__(self) -> Self:
        self._target.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._target.__exit__(kind, error, traceback)

    async def __aenter__(self) -> Self:
        await self._target.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._target.__aexit__(kind, error, traceback)


class _Chat(Part):
    way = ("chat",)
    own = ("_target", "completions")

    def __init__(self, client: Client, settings: SearchSettings, models: Models) -> None:
        super().__init__(client.chat)
        kind = _AsyncCompletions if isinstance(client, AsyncOpenAI) else _Completions
        self.completions = kind(client, settings, models)

    def __repr__(self) -> str:
        return f"{_shown(self.completions._client, self.completions._settings)}.chat"


class _Beta(Through):
    own = ("_target", "chat")

    def __init__(self, target: Any, chat: _Chat) -> None:
        super().__init__(target)
        self.chat = chat


class _Completions(Part):
    way = ("chat", "completions")
    own = ("_target", "_client", "_settings", "_models")

    def __init__(self, client: Client, settings: SearchSettings, models: Models) -> None:
        super().__init__(client.chat.completions)
        self._client, self._settings, self._models = client, settings, models

    def __repr__(self) -> str:
        return f"{_shown(self._client, self._settings)}.chat.completions"

    def create(self, **request: Any) -> Any:
        """Do what the client's own method does, by a search."""
        search = self._creating(request)
        return self._target.create(**split(request)[0]) if search is None else search.run()

    def parse(self, **request: Any) -> Any:
        """Do what the client's own method does, by a search; candidates that cannot be parsed fail."""
        search = self._parsing(request)
        return self._target.parse(**split(request)[0]) if search is None else search.run()

    @property
    def stream(self) -> Any:
        """Return the client's own, and warn that its events are those of one sample; use `create(stream=True)`."""
        passes("chat.completions.stream")
        return self._target.stream

    def _creating(self, request: dict[str, Any]) -> Search | None:
        sent = split(request)[0]
        if not takes_request(self._target.create, sent) or isinstance(sent.get("response_format"), type):
            return None  # the client raises its own error, and sends nothing
        return search_for(self._client, self._models, self._settings, request)

    def _parsing(self, request: dict[str, Any]) -> Search | None:
        sent = split(request)[0]
        if not takes_request(self._target.parse, sent):
            return None
        parser = Parser(sent)
        own = {key: value for key, value in request.items() if key != "response_format"}
        return search_for(self._client, self._models, self._settings, {**own, **parser.request}, parser)


class _AsyncCompletions(_Completions):
    async def create(self, **request: Any) -> Any:
        """Do what the client's own method does, by a search."""
        search = self._creating(request)
        return await self._target.create(**split(request)[0]) if search is None else await search.arun()

    async def parse(self, **request: Any) -> Any:
        """Do what the client's own method does, by a search; candidates that cannot be parsed fail."""
        search = self._parsing(request)
        return await self._target.parse(**split(request)[0]) if search is None else await search.arun()


class _Responses(Part):
    way = ("responses",)
    own = ("_target", "_client", "_settings", "_models")

    def __init__(self, client: Client, settings: SearchSettings, models: Models) -> None:
        super().__init__(client.responses)
        self._client, self._settings, self._models = client, settings, models

    def __repr__(self) -> str:
        return f"{_shown(self._client, self._settings)}.responses"

    def create(self, **request: Any) -> Any:
        """Do what the client's own method does, by a search."""
        search = self._searching(request)
        return self._target.create(**split(request)[0]) if search is None else search.run()

    @property
    def stream(self) -> Any:
        """Return the client's own, and warn that its events are those of one sample; use `create(stream=True)`."""
        passes("responses.stream")
        return self._target.stream

    @property
    def parse(self) -> Any:
        """Return the client's own, and warn that it is not searched; use `create` with `text={"format": …}`."""
        passes("responses.parse")
        return self._target.parse

    def _searching(self, request: dict[str, Any]) -> ResponseSearch | None:
        sent = split(request)[0]
        if not takes_request(self._target.create, sent):
            return None  # the client raises its own error, and sends nothing
        for name in UNSEARCHED:
            if sent.get(name):
                passes(f"responses.create with {name}=", depth=4)
        return responses_search(self._client, self._models, self._settings, request)


class _AsyncResponses(_Responses):
    async def create(self, **request: Any) -> Any:
        """Do what the client's own method does, by a search."""
        search = self._searching(request)
        return await self._target.create(**split(request)[0]) if search is None else await search.arun()


__all__ = ["ScaledClient", "result_of", "scale"]
