"""One call of `create` as one search: what is sent, what the engine gets, and what the caller gets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from tts_plugins import Candidate, Escalation, Problem, Result, Score, solve, solve_sync
from tts_plugins.adapters import Passing, SearchSettings, Text, as_key, as_verifier, described, metered_verifier
from tts_plugins.answers import AnswerKey
from tts_plugins.errors import RequestNotSent, TTSError, UnboundedCallError
from tts_plugins.types import REQUEST
from tts_plugins_openai._forms import chunks_of, completion_of, plain_messages
from tts_plugins_openai._model import RECORDER, Client, ClientModel, Recorder
from tts_plugins_openai._models import Models
from tts_plugins_openai._parsing import Parser, check_parsed
from tts_plugins_openai._request import OWNER, PERSON, check, check_escalation, split
from tts_plugins_openai._streams import AsyncScaledStream, ScaledStream

T = TypeVar("T")
_OURS = ("model", "messages", "n", "seed", "stream", "stream_options", "temperature", "max_tokens",
         "max_completion_tokens", "tts")  # fmt: skip


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

    return as_key(key, answer)
