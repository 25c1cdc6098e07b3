"""What is asked of a model for one candidate: a whole solution, one further step, or a revised answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from tts_plugins._calls.context import derived
from tts_plugins.answers import marked, unfinished
from tts_plugins.budget import Bound
from tts_plugins.protocols import Model, ReviseModel, StepModel
from tts_plugins.steps import steps_of
from tts_plugins.types import Candidate, Generation, Problem, Reply, Scored, Step


class Ask(Protocol):
    """One request for as many candidates as it gets seeds."""

    @property
    def model(self) -> Model:
        """The model that is asked."""
        ...

    @property
    def problem(self) -> Problem: ...

    @property
    def written(self) -> int:
        """The most tokens that its candidates already have before this request."""
        ...

    async def bound(self) -> Bound | None:
        """The worst that one generation can cost; None for a metered model."""
        ...

    def send(self, seeds: Sequence[int | None]) -> Awaitable[Reply]:
        """The request."""
        ...

    def make(self, generation: Generation, index: int, seed: int) -> Candidate:
        """The candidate that a generation is, or completes."""
        ...


@dataclass(slots=True)
class Job:
    """A candidate that is still to be generated: its place in the run, its seed, and what to ask for."""

    index: int
    seed: int
    ask: Ask


@dataclass(frozen=True)
class Whole:
    """A whole solution."""

    model: Model
    problem: Problem
    written: int = 0

    async def bound(self) -> Bound | None:
        """The model's."""
        return await self.model.bound(self.problem)

    def send(self, seeds: Sequence[int | None]) -> Awaitable[Reply]:
        """The model's."""
        return self.model.generate(self.problem, seeds)

    def make(self, generation: Generation, index: int, seed: int) -> Candidate:
        """Finished, whatever it says."""
        return Candidate.whole(self.problem, generation, index, seed)


@dataclass(frozen=True)
class Jobs(Whole):
    """Whole solutions, of which each asks the same. They are made one by one, since a budget may allow only a few of a
    million.
    """

    indices: range = range(0)
    seed: int = 0

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, part: slice) -> Jobs:
        indices = self.indices[part]
        return self if indices == self.indices else replace(self, indices=indices)

    def __iter__(self) -> Iterator[Job]:
        seed_of = derived(self.seed, "candidate")
        return (Job(i, seed_of(i), self) for i in self.indices)


@dataclass(frozen=True)
class Revised:
    """A revised answer, given earlier attempts."""

    model: ReviseModel
    problem: Problem
    history: Sequence[Scored]
    merge: bool = False
    written: int = 0

    async def bound(self) -> Bound | None:
        """The model's."""
        return await self.model.revise_bound(self.problem, self.history, merge=self.merge)

    def send(self, seeds: Sequence[int | None]) -> Awaitable[Reply]:
        """The model's."""
        return self.model.revise(self.problem, self.history, seeds, merge=self.merge)

    def make(self, generation: Generation, index: int, seed: int) -> Candidate:
        """Its parent is the latest attempt."""
        return Candidate.whole(self.problem, generation, index, seed, self.history[-1].id)


@dataclass(frozen=True)
class NextStep:
    """One further step of a candidate; `sent` is called when it is asked for.

    A child is finished where the model ended by itself, wrote nothing, or wrote an answer with its marker; cut by a
    length limit, it is truncated; that does not make it wrong.
    """

    model: StepModel
    parent: Candidate
    greedy: bool = False
    sent: Callable[[], None] | None = None

    @property
    def problem(self) -> Problem:
        """The parent's."""
        return self.parent.problem

    @property
    def written(self) -> int:
        """Its bytes: a tokeniser makes at most one token of a byte."""
        return len(self.parent.text.encode("utf-8", "replace"))

    async def bound(self) -> Bound | None:
        """The model's."""
        return await self.model.step_bound(self.parent)

    def send(self, seeds: Sequence[int | None]) -> Awaitable[Reply]:
        """The model's."""
        if self.sent is not None:
            self.sent()
        return self.model.expand(self.parent, seeds, greedy=self.greedy)

    def make(self, generation: Generation, index: int, seed: int) -> Candidate:
        """Return the parent with one further step, or with none if the step is blank."""
        parent, said = self.parent, generation.text.strip("\n")
        empty = not said.strip()
        before = steps_of(parent)
        steps = before if empty else (*before, Step(said))
        text = parent.text if empty else self.model.separator.join(step.text for step in steps)
        answered = marked(said) and not unfinished(text)  # what is thought is not an answer yet
        return Candidate(
            problem=parent.problem,
            text=text,
            steps=steps,
            finished=empty or generation.finish_reason != "step" or answered,
            truncated=generation.finish_reason == "length",
            finish_reason=generation.finish_reason,
            tokens=None if generation.tokens is None else generation.tokens + (parent.tokens or 0),
            logprobs=parent.logprobs if empty else _joined(parent, generation) if before else generation.logprobs,
            reasoning=generation.reasoning,
            index=index,
            seed=seed,
            parent=parent.id,
        )


def _joined(parent: Candidate, generation: Generation) -> tuple[float, ...] | None:
    """Return the log-probabilities of the whole text so far; None if those of a part are not known."""
    if parent.logprobs is None or generation.logprobs is None:
        return None
    return parent.logprobs + generation.logprobs
