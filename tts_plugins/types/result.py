"""The outcome of a solve."""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tts_plugins.types._json import json_form
from tts_plugins.types.candidate import Scored
from tts_plugins.types.problem import Problem
from tts_plugins.types.usage import Usage

Stopped = Literal["complete", "stop_rule", "budget", "deadline", "cancelled", "error"]
OnAbstain = Literal["none", "raise", "escalate"]


class TraceView(Protocol):
    """What can be done with a trace."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Mapping[str, Any]]: ...
    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable: the run's settings and every event."""
        ...

    def tree(self) -> str:
        """Rendered for a terminal."""
        ...

    def html(self) -> str:
        """One self-contained HTML page."""
        ...

    def _repr_html_(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Abstained:
    """Why a question was not answered: the choice was not sure enough.

    Attributes:
        below: the least confidence with which a question is answered.
        confidence, agreement: those of the choice that is withheld, as `Result` has them.
        reason: all of it in words, ties included.
        person: whether a person is to be asked now, as the settings say.
    """

    below: float
    confidence: float | None
    agreement: float | None
    reason: str
    person: bool = False

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable form."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """The outcome of one solve.

    Attributes:
        best: the candidate that was chosen, also where its answer is withheld.
        candidates: all that were seen, by index.
        usage: all that was spent on this solve, verification included.
        stopped: why it ended: "complete", "stop_rule", "budget", "deadline", "cancelled", or "error": a call failed
            in a way that no further candidate could escape (a refused key, a used-up account); `warnings` says how.
        trace: every call with its parent, candidate, score, usage and times.
        seed: the run's seed: the same seed sends the same requests.
        warnings: what cut the search short besides what `stopped` says: a level of which every candidate failed,
            `max_steps`; and what makes the choice doubtful: a tie for the first place, or votes without a readable
            answer. Empty where all went as asked.
        confidence: how well the chosen answer is supported, from 0 to 1: by majority, the share of votes; by weighted
            vote, the answer's summed scores divided by the number of candidates; by best score, that score. None where
            nothing can be said: a single sample without a verifier, no readable answer, a partial solution.
        agreement: the share of candidates that gave the chosen answer; None where there is no answer, or nobody else.
        abstained: why the question is not answered, where `abstain_below` forbade it; `output` and `answer` are None
            then, and `text` is empty.
        escalated: whether the answer is that of the escalation, a larger model or another strategy, or of a later rung
            of a `Ladder`.
    """

    problem: Problem
    best: Scored
    candidates: tuple[Scored, ...]
    usage: Usage
    stopped: Stopped
    trace: TraceView
    seed: int
    warnings: tuple[str, ...] = ()
    confidence: float | None = None
    agreement: float | None = None
    abstained: Abstained | None = None
    escalated: bool = False

    @property
    def output(self) -> Any:
        """The native object of the chosen candidate; its text where there is none. None if it abstained."""
        if self.abstained is not None:
            return None
        return self.best.text if self.best.output is None else self.best.output

    @property
    def text(self) -> str:
        """The text of the chosen candidate; empty if it abstained."""
        return self.best.text if self.abstained is None else ""

    @property
    def answer(self) -> str | None:
        """The answer of the chosen candidate, as it was written; None if it abstained."""
        return self.best.answer if self.abstained is None else None

    @property
    def answer_key(self) -> str | None:
        """The form of the chosen answer in which equal answers compare equal; None if it abstained."""
        return self.best.vote if self.abstained is None else None

    @property
    def score(self) -> float | None:
        """The score of the chosen candidate, where a verifier gave one."""
        return self.best.score

    def to_dict(self) -> dict[str, Any]:
        """What came of it, as JSON: the choice, the usage, and each candidate; the trace has a form of its own."""
        names = ("id", "index", "text", "answer", "score", "feedback", "truncated")
        return {
            "output": _native(self.output, self.text),
            "text": self.text,
            "answer": self.answer,
            "score": self.score,
            "confidence": self.confidence,
            "agreement": self.agreement,
            "abstained": None if self.abstained is None else self.abstained.to_dict(),
            "escalated": self.escalated,
            "stopped": self.stopped,
            "warnings": list(self.warnings),
            "seed": self.seed,
            "chosen": self.best.id,
            "usage": self.usage.to_dict(),
            "candidates": [{name: getattr(c, name) for name in names} for c in self.candidates],
        }

    def __repr__(self) -> str:
        said = {
            "answer": _short(self.answer), "text": _short(self.text), "score": self.score,
            "confidence": self.confidence, "abstained": self.abstained and _short(self.abstained.reason, 200),
        }  # fmt: skip
        parts = [f"{name}={value!r}" for name, value in said.items() if value is not None]
        spent = f"{len(self.candidates)} candidates, {self.usage.tokens} tokens, stopped={self.stopped!r}"
        return f"Result({', '.join([*parts, spent])})"

    def _repr_html_(self) -> str:
        return self.trace._repr_html_()


def _short(text: str | None, size: int = 60) -> str | None:
    flat = None if text is None else " ".join(text[: 100 * size].split())
    return flat if flat is None or len(flat) <= size else f"{flat[: size - 1]}…"


def _native(output: Any, text: str) -> Any:
    """A native output as JSON has it; a message of a chat model as its text, unless it calls tools."""
    dump = getattr(output, "model_dump", None)
    try:
        if callable(dump):
            output = dump(mode="json", exclude_none=True) if getattr(output, "tool_calls", None) else text
        plain = isinstance(output, dict | list | tuple | set | frozenset | str | numbers.Real) or output is None
        return json_form(output) if plain else text
    except Exception:  # noqa: BLE001 - it may hold itself, or what its own dump refuses
        return text
