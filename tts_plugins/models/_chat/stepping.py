"""Single steps from a chat server: by continuing an assistant's text if it can, else by asking for one step."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from tts_plugins._internal.token_usage import without
from tts_plugins._internal.values import fields_of
from tts_plugins.budget import Bound, Limits
from tts_plugins.errors import MalformedResponse, ModelError, ModelNotFound, RequestRefused
from tts_plugins.models._chat.step_format import UNSAID, Said, StepSettings, Way, read_step, step_request
from tts_plugins.models._chat.templates import NoTemplate
from tts_plugins.models._openai.accepted import Named
from tts_plugins.models._openai.error_mapping import refusal
from tts_plugins.protocols import Run
from tts_plugins.steps import steps_of
from tts_plugins.types import Candidate, Generation, Problem, Reply

__all__ = ["RepeatedStep", "StepSettings", "Stepping"]

# No model writes this key by itself, so it distinguishes a continued turn, which may be returned whole, from a new one.
_KEY = "[k7q2] one two three four"
_QUESTION = "Write the key [k7q2], then count from one to eight in words, separated by spaces. Write nothing else."
_PROBE = (
    {"role": "user", "content": _QUESTION},
    {"role": "assistant", "content": _KEY},
)


class RepeatedStep(ModelError):
    """The model was asked for its next step, and wrote only steps that were there before."""


class _SeparatorFirst(ModelError):
    """The server's template trims the prefix, so that the model wrote the separator, and was stopped by it."""

    retryable = True


class _Unsettled(Exception):
    """Template or completions failed for now, which says nothing about later."""


class Stepping:
    """Gives a chat model `expand`. It builds on `_prompt_of`, `_bounded` and `_ask` of `OpenAICompatibleModel`.

    An adapter for a framework's chat models gives it these too: prompts are dicts with `messages` in OpenAI's form.
    One that names "completions" among its `_ways` has `_completing` besides.
    """

    name: str
    limits: Limits
    max_tokens: int | None
    _request: dict[str, Any]
    _prompt_of: Callable[[Sequence[Mapping[str, Any]], Problem], dict[str, Any]]
    _bounded: Callable[..., Awaitable[Bound | None]]  # None for a metered model
    _ask: Callable[..., Any]
    _completing: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]  # messages rendered to a `prompt`
    _ways: Sequence[Way] = ("plain", "vllm", "prefix")  # those that are tried

    def _begin_stepping(self, settings: StepSettings, address: str | None) -> None:
        self._steps, self._way = settings, settings.way
        self._stoppable = True
        self._echoes: bool | None = None  # whether a reply begins with the text that it continues, once that is known
        self._unfound: WeakSet[Run] = WeakSet()  # that asked when the server was unable to answer
        self._probing: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
        address = address or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        if self._way == "auto" and "api.openai.com" in address:
            self._way = "prompt"  # it continues nothing, so there is nothing to find out

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_unfound": None, "_probing": None}  # runs and loops stay in their process

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _unfound=WeakSet(), _probing=WeakKeyDictionary())

    @property
    def separator(self) -> str:
        """What separates two steps of a text."""
        return self._steps.separator

    async def prepare(self, run: Run) -> None:
        """Find out, once, how the server continues a text: at most four short questions, within the run's budget."""
        lock = self._probing.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        async with lock:
            if self._way == "auto" and run not in self._unfound:
                try:
                    self._way = await self._found_way(run)
                    run.note("steps", model=self.name, way=self._way)
                except _Unsettled as error:
                    # This solve uses the prompt, as long as nothing is known; the next one tries again.
                    self._unfound.add(run)
                    run.note("steps", model=self.name, way="prompt", error=str(error))

    async def step_bound(self, candidate: Candidate, ahead: int = 0) -> Bound | None:
        """Return the prompt's tokens at most, those of the steps ahead, and those of one step."""
        limit = self._steps.max_tokens or self.max_tokens
        prompt, _ = self._step_prompt(candidate, greedy=False)
        if self._completes(candidate):
            with contextlib.suppress(ModelError):  # its messages bound it too, and it is rendered when it is sent
                prompt = await self._completing(prompt)
        return await self._bounded(prompt, limit, ahead * (limit or 0))

    async def expand(self, candidate: Candidate, seeds: Sequence[int | None], *, greedy: bool = False) -> Reply:
        """Ask for as many next steps as there are seeds, in one request.

        Raises:
            RepeatedStep: all that came were steps that it has already.
        """
        prompt, earlier = self._step_prompt(candidate, greedy=greedy)
        if self._completes(candidate):
            prompt = await self._completing(prompt)
        stops = self._own_stops(len(steps_of(candidate)))

        def shape(choice: Any, generation: Generation) -> Generation:
            said = Said(
                text=self._new(prompt, generation.text),
                finish=generation.finish_reason,
                stop_reason=fields_of(choice).get("stop_reason", UNSAID),
            )
            if not said.text.strip() and said.stop_reason in stops and earlier is None and steps_of(candidate):
                self._stoppable = False
            text, finish = read_step(self._steps, said, stops, earlier, self._way == "whole")
            return replace(generation, text=text, finish_reason=finish, output=None)

        reply: Reply = await self._ask(
            prompt, seeds, max_tokens=self._steps.max_tokens, shape=shape,
            adapt=lambda error: self._without_stop(prompt, error),
        )  # fmt: skip
        if stops and not self._stoppable and all(not g.text.strip() for g in reply.generations):
            raise _SeparatorFirst(f"{self.name}: the template trims what it continues; steps are cut on this side now")
        fresh = tuple(g for g in reply.generations if g.finish_reason != "repeated")
        if not fresh:
            raise RepeatedStep(f"{self.name} wrote only steps that the solution has already")
        return reply if len(fresh) == len(reply.generations) else replace(reply, generations=fresh)

    def _step_prompt(self, candidate: Candidate, *, greedy: bool) -> tuple[dict[str, Any], Sequence[str] | None]:
        """Return the prompt, and the steps that a reply in words may repeat; None if the server continues the text."""
        steps, messages = [step.text for step in steps_of(candidate)], candidate.problem.messages
        earlier: Sequence[str] | None = None
        extra: dict[str, Any] = {"temperature": 0.0} if greedy else {}
        if self._in_words(len(steps)):
            earlier = steps
            ask = step_request(steps, self.separator, self._way == "whole")
            messages.append({"role": "user", "content": ask})
        elif steps:
            last = {"role": "assistant", "content": self.separator.join(steps) + self.separator}
            messages.append({**last, "prefix": True} if self._way == "prefix" else last)
            if self._way == "vllm":
                extra["extra_body"] = {"continue_final_message": True, "add_generation_prompt": False}
        if stops := self._own_stops(len(steps)):
            extra["stop"] = [*self._stops_of_request(), *stops]
        return {**self._prompt_of(messages, candidate.problem), **extra}, earlier

    def _completes(self, candidate: Candidate) -> bool:
        """Return whether its next step is asked of the completions endpoint."""
        # As long as the way is not known, the first step goes through chat: then all solves ask for it in the same way.
        return self._way == "completions" and (self._steps.way == "completions" or bool(steps_of(candidate)))

    def _in_words(self, written: int) -> bool:
        return self._way in ("prompt", "whole") or (self._way == "auto" and written > 0)

    def _own_stops(self, written: int) -> list[str]:
        return self._steps.stops(written) if self._stoppable and not self._in_words(written) else []

    def _stops_of_request(self) -> list[str]:
        """Return the stop strings that the request has anyway."""
        theirs = self._request.get("stop", [])
        return [theirs] if isinstance(theirs, str) else list(theirs)

    def _new(self, prompt: Mapping[str, Any], text: str) -> str:
        """Return what of a reply is new: llama.cpp repeats the assistant's turn that it continues, unless it streams.

        Some completions repeat their prompt. What the server does is learnt from its first such reply: later, a step
        that only looks like the beginning of the solution is a step.

        Raises:
            MalformedResponse: a stop string has cut the prompt's own repetition.
        """
        if "messages" in prompt:
            last = prompt["messages"][-1]
            given = last["content"] if last["role"] == "assistant" else None
        else:
            given = prompt["prompt"]
        if not isinstance(given, str) or self._echoes is False:
            return text
        stops = prompt.get("stop", ()) if "prompt" in prompt and text and given.startswith(text) else ()
        if any(given.startswith(stop, len(text)) for stop in stops):
            raise MalformedResponse(
                f"{self.name}: the completion repeats its prompt up to a stop string, and has nothing new; give "
                "StepSettings(way='prompt'), or have the server not echo prompts"
            )
        new = without(given, text)
        if self._echoes is None and text.strip():
            self._echoes = new != text
        return new

    def _without_stop(self, prompt: dict[str, Any], error: Exception) -> bool:
        """Return whether the server refuses `stop`, which is then left to this side."""
        refused = refusal(error)
        if refused is None or refused[0] not in (400, 422) or "stop" not in prompt:
            return False
        if refused[1].overflow or not Named(refused[1], prompt).has("stop"):
            return False
        self._stoppable = False
        del prompt["stop"]
        return True

    async def _found_way(self, run: Run) -> Way:
        ways = list(self._ways)
        while ways:
            way = ways.pop(0)
            probe = _Probe(self, way)
            if not await probe.possible():
                continue
            try:
                reply = await run.generate(probe, Problem(_PROBE))
            except NoTemplate:
                continue
            except ModelError as error:
                if way == "completions" and error.retryable:
                    raise _Unsettled(f"{type(error).__name__}: {error}") from error
                if not isinstance(error, RequestRefused | ModelNotFound):
                    raise
                if isinstance(error, ModelNotFound) and way != "completions":
                    raise  # the chat's path is there for certain: it is the model's name
                # A last turn of the assistant is refused: one marked as a prefix may still pass, or no turns at all.
                ways = [w for w in ways if w in ("prefix", "completions")]
                continue
            said = reply.generations[0].text
            new = without(await probe.begun(), said)
            self._echoes = new != said
            if new.lstrip().lower().startswith("five"):
                return way
        self._echoes = None
        return "prompt"


@dataclass(frozen=True, eq=False)
class _Probe:
    """The question whose answer shows whether the server continues a text in one way."""

    model: Stepping
    way: Way
    batch: int = 1

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def limits(self) -> Limits:
        return self.model.limits

    async def possible(self) -> bool:
        """Return whether there is anything to be asked: completions need a template."""
        try:
            await self._asked(Problem(_PROBE))
        except NoTemplate:
            return False
        except ModelError as error:
            return error.retryable  # as part of the question, it is
        return True

    async def bound(self, problem: Problem) -> Bound | None:
        prompt = self._plain(problem)
        with contextlib.suppress(ModelError):  # its messages bound it too
            prompt = await self._asked(problem)
        return await self.model._bounded(prompt, 8)

    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
        reply: Reply = await self.model._ask(await self._asked(problem), seeds, max_tokens=8)
        return reply

    async def begun(self) -> str:
        """Return what a reply that repeats anything begins with."""
        prompt = (await self._asked(Problem(_PROBE))).get("prompt")
        return prompt if isinstance(prompt, str) else _KEY

    async def _asked(self, problem: Problem) -> dict[str, Any]:
        prompt = self._plain(problem)
        return await self.model._completing(prompt) if self.way == "completions" else prompt

    def _plain(self, problem: Problem) -> dict[str, Any]:
        messages, extra = problem.messages, {"temperature": 0.0}
        if self.way == "prefix":
            messages[-1]["prefix"] = True
        prompt = {**self.model._prompt_of(messages, problem), **extra}
        if self.way == "vllm":
            prompt["extra_body"] = {"continue_final_message": True, "add_generation_prompt": False}
        return prompt
