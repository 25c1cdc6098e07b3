"""One call of `create` as one search: what is sent, what the engine gets, and what the caller gets."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import openai
from openai import AsyncOpenAI, NotGiven

from tts_plugins import Candidate, Escalation, Problem, Result, Score, solve, solve_sync
from tts_plugins.adapters import (
    Passing,
    SearchSettings,
    Text,
    as_verifier,
    described,
    is_number,
    is_whole,
    lock,
    metered_verifier,
)
from tts_plugins.answers import AnswerKey
from tts_plugins.errors import ConfigurationError, RequestNotSent, TTSError, UnboundedCallError
from tts_plugins.models.openai_compatible import REQUEST
from tts_plugins_openai._forms import chunks_of, completion_of, plain_messages
from tts_plugins_openai._model import RECORDER, Bridge, Client, ClientModel, Recorder
from tts_plugins_openai._parsing import Parser, check_parsed
from tts_plugins_openai._streams import AsyncScaledStream, ScaledStream

T = TypeVar("T")
OWNER = "scale(client)"
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_OURS = ("model", "messages", "n", "seed", "stream", "stream_options", "temperature", "max_tokens",
         "max_completion_tokens", "tts")  # fmt: skip
_MODELS = 64


def _fingerprint(client: Client) -> int:
    """Return a hash of all that decides where and how a client sends; users may change that at any time."""
    headers = sorted((name, value) for name, value in client.default_headers.items() if isinstance(value, str))
    return hash((str(client.base_url), str(client.api_key), repr(client.timeout), repr(headers),
                 repr(client.default_query), client.max_retries, id(client._client)))  # fmt: skip


_OMITTED = (NotGiven, getattr(openai, "Omit", NotGiven))  # the clients before 1.108 have the older name only


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


@dataclass(frozen=True, kw_only=True)
class Search:
    """One call of `create`."""

    model: ClientModel
    problem: Problem
    arguments: dict[str, Any]
    n: int
    stream: bool
    with_usage: bool
    recorder: Recorder
    passing: Passing

    def run(self) -> Any:
        """Search on this thread."""
        token = RECORDER.set(self.recorder)
        try:
            with self.passing.out(), _translated(self.model):
                result = solve_sync(self.problem, model=self.model, **self.arguments)
        finally:
            RECORDER.reset(token)
        return self._answered(result, ScaledStream)

    async def arun(self) -> Any:
        """Search on this loop."""
        token = RECORDER.set(self.recorder)
        try:
            with self.passing.out(), _translated(self.model):
                result = await solve(self.problem, model=self.model, **self.arguments)
        finally:
            RECORDER.reset(token)
        return self._answered(result, AsyncScaledStream)

    def _answered(self, result: Result, streamed: Callable[[Sequence[Any], Result, Any], Any]) -> Any:
        answer = self.answer(result)
        answer._tts = result
        if not self.stream:
            return answer
        return streamed(self.chunks(answer), result, self.recorder.response_of(result.best.output))

    def answer(self, result: Result) -> Any:
        """Return what the client's method would have returned."""
        return completion_of(
            result, self.recorder.of, n=self.n, model=self.model.name, requests=self.recorder.completions
        )

    def chunks(self, answer: Any) -> list[Any]:
        """Return the answer as the chunks of a stream."""
        return list(chunks_of(answer, with_usage=self.with_usage))


def search_for(
    client: Client, models: Models, base: SearchSettings, request: dict[str, Any], parser: Parser | None = None
) -> Search | None:
    """Return the search for a request; None if it cannot be searched, and goes to the client unchanged.

    Args:
        parser: reads each candidate as a type; one that it cannot read fails.

    Raises:
        ConfigurationError: a setting is wrong, or several samples are asked for at temperature 0.
    """
    request, asked = split(request)
    if "model" not in request or "messages" not in request or "audio" in (request.get("modalities") or ()):
        return None  # the client raises its own error for what is missing
    settings = base.changed(OWNER, asked)
    check(settings, request)
    if parser is not None:
        check_parsed(settings.strategy)
    messages = plain_messages(request["messages"])
    kept = {key: value for key, value in request.items() if key not in _OURS}
    metadata = {REQUEST: kept, "request": {**request, "messages": messages}}
    return Search(
        model=models.get(request, settings.price), problem=Problem(messages, metadata=metadata),
        n=request.get("n") or 1,
        with_usage=bool((request.get("stream_options") or {}).get("include_usage")),
        **parts_of(client, models, settings, request, ClientModel, parser),
    )  # fmt: skip


def parts_of(
    client: Client, models: Models, settings: SearchSettings, request: Mapping[str, Any], kind: type[ClientModel],
    parser: Parser | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the arguments of `Search` that all searches of a client have in common."""
    arguments, passing = settings.arguments(), Passing()
    if parser is not None:
        arguments["answer"] = _parsed(parser, arguments["answer"])
    verifier = as_verifier(OWNER, settings.verifier)
    arguments["verifier"] = None if verifier is None else metered_verifier(verifier, _Judge(passing))
    arguments["attempts"] = client.max_retries + 1
    if isinstance(further := settings.escalate, str) and further != PERSON:
        check_escalation(OWNER, settings)
        larger = models.get({**request, "model": further}, settings.price, kind)
        arguments["escalate"] = Escalation(model=larger)
    stream = bool(request.get("stream"))
    return {
        "arguments": arguments,
        "stream": stream,
        "recorder": Recorder(parser=parser, raw=stream),
        "passing": passing,
    }


PERSON = "person"


def check_escalation(owner: str, settings: SearchSettings) -> None:
    """Raise unless `escalate` is a model's name, a strategy, or a person.

    Raises:
        ConfigurationError: it is something else, or a model's name under a price that is said to be that of one model.
    """
    further, price = settings.escalate, settings.price
    if further is None or further == PERSON:
        return
    if isinstance(further, str):
        if price is not None and not isinstance(price, Mapping):
            raise ConfigurationError(
                f"{owner}: escalate={further!r} names another model, and price={price!r} is that of one; pass a dict "
                "of prices by the models' names"
            )
        return
    if Escalation.of(owner, further).model is not None:
        raise ConfigurationError(
            f"{owner}: escalate={further!r} is a model of tts_plugins, whose answers are not the client's; pass the "
            "name of one of the client's models"
        )


@dataclass(frozen=True)
class _Judge:
    """Translates what a verifier raises; the engine itself counts the calls.

    LangGraph's interrupts pass through, since the client may be used inside a graph. The error of a function that
    cannot read the message says what the message is.
    """

    passing: Passing

    async def judge(
        self,
        candidates: Sequence[Candidate],
        where: str,
        work: Callable[[], Awaitable[T]],
        kind_of: Callable[[BaseException], Callable[[str], TTSError]],
    ) -> T:
        try:
            return await work()
        except TTSError:
            raise
        except BaseException as error:
            if (passed := self.passing.take(error, where)) is not None:
                raise passed from error
            if not isinstance(error, Exception):
                raise
            raise kind_of(error)(f"{where}: {described(error)}") from error

    async def scored(self, candidate: Candidate, score: Score) -> None:
        """Do nothing: the client has no traces."""

    def output_tokens(self) -> int | None:
        """Return None: the engine knows the request's limit."""
        return None


@contextmanager
def _translated(model: ClientModel) -> Iterator[None]:
    """Translate errors for callers of `create`: those of the client about its arguments are raised as they are."""
    try:
        yield
    except RequestNotSent as error:
        if error.model is model and error.__cause__ is not None:
            raise error.__cause__ from None
        raise
    except UnboundedCallError as error:
        if model.max_tokens is not None:
            raise  # it is the verifier's
        raise UnboundedCallError(
            f"{OWNER}: {model.name}: neither max_tokens nor max_completion_tokens is given, so a token or money budget "
            "cannot hold; pass max_tokens= to create, or max_output_tokens= to responses.create"
        ) from error


def _parsed(parser: Parser, answer: AnswerKey) -> AnswerKey:
    """Return a key that reads a candidate's answer, and raises if the candidate could not be parsed."""

    def key(text: str) -> str | None:
        parser.check(text.native if isinstance(text, Text) else None)
        return answer(text)

    key.__module__ = str(getattr(answer, "__module__", ""))  # whose it is, says where it may run
    return key


def split(request: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the part of a request that is for the server, and the part that is for the search."""
    sent = {key: value for key, value in request.items() if not isinstance(value, _OMITTED)}
    asked = dict(_settings(sent.pop("tts", None)))
    body = sent.get("extra_body")
    if isinstance(body, Mapping) and "tts" in body:
        asked = {**_settings(body["tts"]), **asked}
        sent["extra_body"] = {key: value for key, value in body.items() if key != "tts"}
        if not sent["extra_body"]:
            del sent["extra_body"]
    if asked.get("seed") is None and sent.get("seed") is not None:
        asked["seed"] = sent["seed"]  # each candidate's own is derived from it
    return sent, asked


def _settings(value: Any) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise ConfigurationError(f'{OWNER}: tts={value!r} must be a dict of settings, such as {{"n": 4}}')
    return value or {}


def check(settings: SearchSettings, request: Mapping[str, Any]) -> None:
    """Raise unless a search can answer this request.

    Raises:
        ConfigurationError: several samples at temperature 0, or more choices than candidates.
    """
    n, asked = settings.n, request.get("n")
    if request.get("temperature") == 0 and n is not None and n > 1:
        raise ConfigurationError(
            f"{OWNER}: {n} samples at temperature=0 would be the same one; set temperature to about 0.8, or ask for "
            'one sample with extra_body={"tts": {"n": 1}}'
        )
    if asked is not None and not is_whole(asked, 1):
        raise ConfigurationError(f"{OWNER}: n={asked!r} choices are asked for; n must be a whole number of at least 1")
    if asked is not None and n is not None and asked > n:
        raise ConfigurationError(
            f"{OWNER}: n={asked} choices are asked of a search over {n} candidates; give the strategy n={asked} or more"
        )


def _seconds(*timeouts: Any) -> float:
    """Return the first that is a number, or a timeout that has one for reading; else the client's own default."""
    for timeout in timeouts:
        value = timeout if isinstance(timeout, int | float) else getattr(timeout, "read", None)
        if is_number(value) and value > 0:
            return float(value)
    return 600.0


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) else 0.0
