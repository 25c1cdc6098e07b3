"""Fakes that behave: a model and a verifier with known answers, for tests of yours and of this package."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tts_plugins._internal.values import is_number
from tts_plugins.budget import FREE, Bound, Limits
from tts_plugins.errors import ConfigurationError, VerifierError
from tts_plugins.protocols import Run
from tts_plugins.types import Candidate, Generation, Problem, Reply, Score, Scored, Usage

Script = Sequence[Any] | Callable[[Problem, int], Any]


class ScriptedModel:
    """A model that says what its script says.

    Args:
        script: texts, generations or exceptions (which are raised), given out in order and from the start again;
            or a function of the problem and the number of the generation, from 0.
        latency: seconds that a request takes.
        prompt_tokens, completion_tokens: what each request and each generation is said to use.
        max_tokens: the bound of a generation; None for a model without one.
        batch: choices in one request at most.
        price: US dollars per token, for prompt and completion alike; None for an unknown price.
        limits: what its server bears.
        name: as it appears in traces.

    `requests` holds the seeds of each request so far; `peak` the most that were in flight at once.
    """

    def __init__(
        self,
        script: Script,
        *,
        name: str = "scripted",
        latency: float = 0.0,
        prompt_tokens: int = 5,
        completion_tokens: int = 10,
        max_tokens: int | None = 10,
        batch: int = 1,
        price: float | None = 0.0,
        limits: Limits | None = None,
    ) -> None:
        if not callable(script) and not script:
            raise ConfigurationError("ScriptedModel: script is empty; give at least one text")
        if price is not None and not (is_number(price) and 0 <= price < math.inf):
            raise ConfigurationError(f"ScriptedModel: price={price!r} must be dollars per token, at least 0, or None")
        self.name, self.batch = name, batch
        self.limits = limits or Limits()
        self.requests: list[tuple[int | None, ...]] = []
        self.peak = 0
        self._script, self._latency, self._price = script, latency, price
        self._prompt, self._completion, self._max = prompt_tokens, completion_tokens, max_tokens
        self._given = 0
        self._active = 0

    async def bound(self, problem: Problem) -> Bound:
        """Return `prompt_tokens`, `max_tokens`, and their price."""
        price = None if self._price is None else self._price * (self._prompt + (self._max or 0))
        once = (self._price or 0.0) * self._prompt
        return Bound(
            prompt_tokens=self._prompt, completion_tokens=self._max, usd=price, shared_tokens=self._prompt,
            shared_usd=once,
        )  # fmt: skip

    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
        """Return the next lines of the script, one for each seed.

        Raises:
            Exception: whatever the script has at that place.
        """
        first, self._given = self._given, self._given + len(seeds)
        return await self._reply(seeds, [self._line(problem, first + i) for i in range(len(seeds))])

    async def _reply(self, seeds: Sequence[int | None], said: Sequence[Any]) -> Reply:
        self.requests.append(tuple(seeds))
        self._active += 1
        self.peak = max(self.peak, self._active)
        try:
            await asyncio.sleep(self._latency)
        finally:
            self._active -= 1
        for line in said:
            if isinstance(line, BaseException):
                raise line
        made = tuple(g if isinstance(g, Generation) else Generation(text=str(g), tokens=self._completion) for g in said)
        tokens = self._completion * len(made)
        return Reply(
            generations=made,
            usage=Usage(
                calls=len(made),
                requests=1,
                prompt_tokens=self._prompt,
                completion_tokens=tokens,
                usd=None if self._price is None else self._price * (self._prompt + tokens),
            ),
        )

    def _line(self, problem: Problem, number: int) -> Any:
        if callable(self._script):
            return self._script(problem, number)
        return self._script[number % len(self._script)]


class ScriptedStepModel(ScriptedModel):
    """A model that writes the steps of its script.

    Args:
        tree: from a text so far ("" for none) to its next steps, given out in order and from the start again; or a
            function of the candidate and the number of the child, from 0. A step is a text, a `Generation` (whose
            `finish_reason` "step" means that more may follow) or an exception. An empty text, or a text so far that is
            not in the tree, ends the solution, as an answer's marker does.
        separator: what separates two steps.
        settings: as for `ScriptedModel`.

    `expanded` holds the text, the number of children and whether it was greedy, for each request so far.
    """

    def __init__(
        self,
        tree: Mapping[str, Sequence[Any]] | Callable[[Candidate, int], Any],
        *,
        separator: str = "\n\n",
        **settings: Any,
    ) -> None:
        super().__init__(["a whole solution"], **settings)
        self.separator = separator
        self.expanded: list[tuple[str, int, bool]] = []
        self._tree = tree
        self._numbers: dict[str, int] = {}

    async def prepare(self, run: Run) -> None:
        """Do nothing: there is nothing to learn."""

    async def step_bound(self, candidate: Candidate, ahead: int = 0) -> Bound:
        """Return the same as for a whole solution."""
        return await self.bound(candidate.problem)

    async def expand(self, candidate: Candidate, seeds: Sequence[int | None], *, greedy: bool = False) -> Reply:
        """Return the next steps of the tree, one for each seed; the first one if it is greedy."""
        self.expanded.append((candidate.text, len(seeds), greedy))
        first = 0 if greedy else self._numbers.get(candidate.text, 0)
        if not greedy:
            self._numbers[candidate.text] = first + len(seeds)
        return await self._reply(seeds, [self._step(candidate, first + i) for i in range(len(seeds))])

    def _step(self, candidate: Candidate, number: int) -> Any:
        if callable(self._tree):
            said = self._tree(candidate, number)
        else:
            steps = self._tree.get(candidate.text, [""])
            said = steps[number % len(steps)]
        if isinstance(said, str):
            return Generation(text=said, tokens=self._completion, finish_reason="step" if said.strip() else "stop")
        return said


class ScriptedReviseModel(ScriptedModel):
    """A `ScriptedModel` whose revisions come from a function of the problem, the history and its number, from 0."""

    def __init__(
        self, script: Script, revise: Callable[[Problem, Sequence[Scored], int], Any], **settings: Any
    ) -> None:
        super().__init__(script, **settings)
        self.histories: list[tuple[str, ...]] = []
        self._revise = revise

    async def revise_bound(self, problem: Problem, history: Sequence[Scored], *, merge: bool = False) -> Bound:
        """Return the same as for a first answer."""
        return await self.bound(problem)

    async def revise(
        self, problem: Problem, history: Sequence[Scored], seeds: Sequence[int | None], *, merge: bool = False
    ) -> Reply:
        """Return what the function says, one for each seed."""
        first = len(self.histories)
        self.histories += [tuple(a.text for a in history)] * len(seeds)
        return await self._reply(seeds, [self._revise(problem, history, first + i) for i in range(len(seeds))])


class TableVerifier:
    """A verifier that looks scores up: by the candidate's answer, else by its text.

    Args:
        table: from answer or text to a score, a `Score`, a sequence of step scores, or an exception to raise.
        default: for what is not in the table; None makes that an error of the candidate.
        latency: seconds that scoring takes.
        name: as it appears in traces.
    """

    def __init__(
        self, table: Mapping[str, Any], *, default: Any = None, latency: float = 0.0, name: str = "table"
    ) -> None:
        self.name = name
        self.scored: list[str] = []
        self._table, self._default, self._latency = table, default, latency

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """Return a bound of zero: a look-up is free."""
        return FREE

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """Return the score in the table.

        Raises:
            VerifierError: the candidate is not in the table, and there is no default.
        """
        await asyncio.sleep(self._latency)
        self.scored.append(candidate.id)
        key = next((k for k in (candidate.answer, candidate.vote) if k in self._table), candidate.text)
        value = self._table.get(key or "", self._default)
        if value is None:
            raise VerifierError(f"{self.name}: {key!r} is not in the table, and there is no default")
        if isinstance(value, BaseException):
            raise value
        if isinstance(value, Score):
            return value
        if isinstance(value, Sequence) and not isinstance(value, str):
            return Score(value=value[-1], steps=tuple(value))
        return Score(value=value)
