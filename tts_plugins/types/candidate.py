"""What a model returned, and the candidates and scores that are made of it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, Self

from tts_plugins.types._frozen import EMPTY, Output, from_checked
from tts_plugins.types._json import well_formed
from tts_plugins.types.problem import Problem
from tts_plugins.types.usage import Usage

_numbers = itertools.count(1)


def _new_id() -> str:
    # Unique within a process, short enough to read in a trace; next() on a count is atomic.
    return f"c{next(_numbers)}"


@dataclass(frozen=True)
class Step:
    """The unit that a process verifier scores: a part of a candidate's text, separator excluded."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One choice that a model returned.

    Attributes:
        text: what it said, without lone surrogates; empty where it only called tools.
        output: the native object (a message, a prediction, a tool call); the text where there is none.
        finish_reason: as the server gave it; "length" means that it was cut.
        tokens: completion tokens of this choice, where they are known singly.
        logprobs: log-probability of each token, where they were asked for.
        top_logprobs: for each token, itself first and then its alternatives, as (token, log-probability).
        reasoning: the text of its thinking, where the server shows it.
    """

    text: str
    output: Any = field(default=None, repr=False)  # to show it would build it
    finish_reason: str = "stop"
    tokens: int | None = None
    logprobs: tuple[float, ...] | None = None
    top_logprobs: tuple[tuple[tuple[str, float], ...], ...] | None = None
    reasoning: str | None = None

    def __post_init__(self) -> None:
        # Cleaned here, where all replies come in, so that no store, trace or next prompt trips over it.
        for name in ("text", "reasoning"):
            said = getattr(self, name)
            if isinstance(said, str) and not said.isascii() and (clean := well_formed(said)) is not said:
                object.__setattr__(self, name, clean)

    @classmethod
    def made(cls, text: str, **values: Any) -> Generation:
        """A new one, of fields by name; as the class itself makes it, in a quarter of the time."""
        if values.get("reasoning") is not None:
            return Generation(text=text, **values)
        return from_checked(Generation, {**_SAID, "text": text if text.isascii() else well_formed(text), **values})

    def replace(self, **changes: Any) -> Self:
        """A copy with changes."""
        if not changes.keys() <= vars(self).keys():
            return replace(self, **changes)  # which says what field there is not
        return from_checked(type(self), {**vars(self), **changes})


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What one request to a model brought: its choices, and what they cost together (None: it cannot say)."""

    generations: tuple[Generation, ...]
    usage: Usage | None


@dataclass(frozen=True, eq=False)
class Candidate:
    """A partial or finished solution. Compared by identity.

    Attributes:
        problem: what it answers.
        text: all that was written so far.
        output: the native object of its model (a message, a dict, a prediction), else the text.
        answer: the answer as it was written; None where none could be read.
        answer_key: the form in which equal answers compare equal; None where `answer` is compared as it stands.
        steps: its steps, where it was searched or cut in steps.
        finished: nothing is to be added.
        truncated: it was cut by a length limit; such an answer is unfinished rather than wrong.
        tokens: its completion tokens, where they are known singly.
        logprobs: log-probability of each token, where they were asked for.
        index: its place among the candidates of its run, from 0; it fixes the seed.
        seed: the seed that its request carried.
        parent: the id of the candidate that it continues or revises.
        id: unique in this process.
    """

    problem: Problem
    text: str = ""
    output: Any = field(default=None, repr=False)  # to show it would build it
    answer: str | None = None
    answer_key: str | None = None
    steps: tuple[Step, ...] = ()
    finished: bool = False
    truncated: bool = False
    finish_reason: str = ""
    tokens: int | None = None
    logprobs: tuple[float, ...] | None = None
    reasoning: str | None = None
    index: int = 0
    seed: int | None = None
    parent: str | None = None
    id: str = field(default_factory=_new_id)

    @classmethod
    def whole(
        cls, problem: Problem, generation: Generation, index: int, seed: int, parent: str | None = None
    ) -> Candidate:
        """A whole solution, as a model wrote it in one go."""
        said = vars(generation)  # its `output` is perhaps not built yet
        return from_checked(
            Candidate,
            {
                "problem": problem,
                "text": said["text"],
                "output": said["output"],
                "answer": None,
                "answer_key": None,
                "steps": (),
                "finished": True,
                "truncated": said["finish_reason"] == "length",
                "finish_reason": said["finish_reason"],
                "tokens": said["tokens"],
                "logprobs": said["logprobs"],
                "reasoning": said["reasoning"],
                "index": index,
                "seed": seed,
                "parent": parent,
                "id": _new_id(),
            },
        )

    @property
    def vote(self) -> str | None:
        """What it votes for: its key, else its answer as it stands; None where it has no answer."""
        return self.answer if self.answer_key is None else self.answer_key

    def replace(self, **changes: Any) -> Self:
        """A copy with changes; it keeps its id unless that is changed too."""
        values = {**vars(self), **changes}
        if len(values) != _FIELDS.get(type(self)):
            return replace(self, **changes)  # for a subclass's own checks, or to say what field there is not
        return from_checked(type(self), values)


@dataclass(frozen=True, eq=False)
class Scored(Candidate):
    """A candidate with what its verifier said.

    Attributes:
        score: in [0, 1]; None where no verifier was asked.
        step_scores: a score for each step, where the verifier gives them.
        feedback: the verifier's reason in words; revision feeds on it.
        details: whatever else the verifier reports (criteria, critique).
    """

    score: float | None = None
    step_scores: tuple[float, ...] = ()
    feedback: str = ""
    details: Mapping[str, Any] = field(default_factory=lambda: EMPTY)

    @classmethod
    def of(cls, candidate: Candidate, **scoring: Any) -> Scored:
        """The candidate with its scoring; the same id, since it is the same solution."""
        own = vars(candidate)
        if type(candidate) is not Candidate:  # it may have more than a candidate has
            own = {name: own[name] for name in _CANDIDATE_FIELDS}
        values = {**own, **_UNSCORED, **scoring}
        if cls is not Scored or len(values) != _FIELDS[Scored]:
            return cls(**{**own, **scoring})  # for a subclass's own checks, or to say what field there is not
        return from_checked(cls, values)


Generation.output = Candidate.output = Output()
_SAID = {f.name: None if f.default is MISSING else f.default for f in fields(Generation)}
_CANDIDATE_FIELDS = tuple(Candidate.__dataclass_fields__)
_FIELDS: Mapping[type[Candidate], int] = {kind: len(kind.__dataclass_fields__) for kind in (Candidate, Scored)}
_UNSCORED = {"score": None, "step_scores": (), "feedback": "", "details": EMPTY}


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a verifier says of one candidate: `value` in [0, 1], step scores, a reason in words."""

    value: float
    steps: tuple[float, ...] = ()
    feedback: str = ""
    details: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
