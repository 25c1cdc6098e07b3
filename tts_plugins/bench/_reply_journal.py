"""A model whose replies are stored before anybody sees them, and are returned again after a kill."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import fields
from typing import Any, cast

from tts_plugins.bench.storage.rows import SolveKey
from tts_plugins.bench.storage.store import Store
from tts_plugins.budget import Bound, Limits
from tts_plugins.errors import DataError, ModelError, TTSError
from tts_plugins.protocols import Model, ReviseModel, Run, StepModel
from tts_plugins.types import (
    Candidate,
    Deferred,
    Generation,
    Problem,
    Reply,
    Scored,
    Usage,
    held_output,
    well_formed,
)

_MESSAGE = "chat message"


class Asked:
    """The calls of one solve so far."""

    def __init__(self, key: SolveKey) -> None:
        self.key = key
        self.times: Counter[str] = Counter()
        self.fatal: TTSError | None = None  # why the whole solve is invalid, whatever the engine does with it


# Set in the task of each solve. One model serves all of them, since its limiter counts what is in flight over all.
ASKED: ContextVar[Asked] = ContextVar("asked")


def journaled(model: Model, store: Store) -> Model:
    """Return the model, able to do what it was able to do, for solves that set `ASKED`."""
    kinds = {(False, False): _Model, (True, False): _Steps, (False, True): _Revises, (True, True): _Both}
    return kinds[isinstance(model, StepModel), isinstance(model, ReviseModel)](model, store)


class _Model:
    def __init__(self, model: Model, store: Store) -> None:
        self._model, self._store = model, store

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def limits(self) -> Limits:
        return self._model.limits

    @property
    def batch(self) -> int:
        return self._model.batch

    async def bound(self, problem: Problem) -> Bound | None:
        return await self._model.bound(problem)

    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
        return await self._once(["generate"], seeds, lambda: self._model.generate(problem, seeds))

    async def _once(
        self, call: Sequence[object], seeds: Sequence[int | None], ask: Callable[[], Awaitable[Reply]]
    ) -> Reply:
        # By the first seed alone: a budget may have cut a request shorter than it is now, and the engine asks for
        # what a reply lacks.
        name = hashlib.sha256(json.dumps([*call, *seeds[:1]], default=str).encode()).hexdigest()[:24]
        asked = ASKED.get()
        asked.times[name] += 1  # the same request a second time is a request for something else
        name = f"{name}/{asked.times[name]}"
        try:
            known = self._store.reply(asked.key, name)
            if known is not None:
                then, reply = _read(known)
                if then == list(seeds[: len(then)]):
                    return reply
            reply = await ask()
            self._store.add_reply(asked.key, name, _written(seeds, reply))
        except (ModelError, DataError) as error:
            # The engine ends with the candidates that it has, which are too few to measure.
            if isinstance(error, DataError) or error.fatal:
                asked.fatal = error
            raise
        return reply


class _Steps(_Model):
    @property
    def _step_model(self) -> StepModel:
        return cast(StepModel, self._model)

    @property
    def separator(self) -> str:
        return self._step_model.separator

    async def prepare(self, run: Run) -> None:
        await self._step_model.prepare(run)

    async def step_bound(self, candidate: Candidate, ahead: int = 0) -> Bound | None:
        return await self._step_model.step_bound(candidate, ahead)

    async def expand(self, candidate: Candidate, seeds: Sequence[int | None], *, greedy: bool = False) -> Reply:
        call = ["expand", candidate.text, greedy]
        return await self._once(call, seeds, lambda: self._step_model.expand(candidate, seeds, greedy=greedy))


class _Revises(_Model):
    @property
    def _revise_model(self) -> ReviseModel:
        return cast(ReviseModel, self._model)

    async def revise_bound(self, problem: Problem, history: Sequence[Scored], *, merge: bool = False) -> Bound | None:
        return await self._revise_model.revise_bound(problem, history, merge=merge)

    async def revise(
        self, problem: Problem, history: Sequence[Scored], seeds: Sequence[int | None], *, merge: bool = False
    ) -> Reply:
        call = ["revise", [(c.text, c.feedback) for c in history], merge]
        return await self._once(call, seeds, lambda: self._revise_model.revise(problem, history, seeds, merge=merge))


class _Both(_Steps, _Revises):
    pass


def _written(seeds: Sequence[int | None], reply: Reply) -> str:
    usage = None if reply.usage is None else _fields(reply.usage, without="by_role")
    choices = [{**_fields(g, without="output"), "output": _output(held_output(g))} for g in reply.generations]
    return well_formed(json.dumps({"seeds": list(seeds), "generations": choices, "usage": usage}, ensure_ascii=False))


def _fields(value: Generation | Usage, *, without: str) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in fields(value) if f.name != without}


def _output(value: object) -> Any:
    """Return a native object as JSON has it: a message as its mapping, others by their text alone."""
    if isinstance(value, Deferred):  # a message that is not built for this, which would load a package on the loop
        said: dict[str, Any] = value.data
        return {_MESSAGE: {name: each for name, each in said.items() if each is not None}}
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return {_MESSAGE: dump(mode="json", exclude_none=True)}
    return value if isinstance(value, str | int | float | list | dict) else None


def _read(text: str) -> tuple[list[int | None], Reply]:
    value = json.loads(text)
    usage = None if value["usage"] is None else Usage(**value["usage"])
    return value["seeds"], Reply(generations=tuple(_generation(g) for g in value["generations"]), usage=usage)


def _message(fields: dict[str, Any]) -> Any:
    from openai.types.chat import ChatCompletionMessage

    return ChatCompletionMessage.model_validate(fields)


def _generation(value: dict[str, Any]) -> Generation:
    output, logprobs, tops = value["output"], value["logprobs"], value["top_logprobs"]
    if isinstance(output, dict) and _MESSAGE in output:
        output = Deferred(_message, output[_MESSAGE])
    return Generation(
        **{
            **value,
            "output": output,
            "logprobs": None if logprobs is None else tuple(logprobs),
            "top_logprobs": None if tops is None else tuple(tuple((t, p) for t, p in each) for each in tops),
        }
    )
