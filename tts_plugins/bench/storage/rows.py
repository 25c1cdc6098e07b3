"""What a benchmark's store holds: problems, solves and candidates, as they were when they ended. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SolveKey:
    """Which solve: the problem's id, the arm (a strategy within a budget), and the seed."""

    problem: str
    arm: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class SolveRow(SolveKey):
    """One solve as it ended.

    Attributes:
        correct: whether the chosen answer is right; None if it was not graded. False if there is none.
        chosen: the place of the chosen candidate among its candidates; None if there was none.
        stopped: as in `Result`, or "failed".
        error: why there is no answer.
        choice: the strategy that a policy chose.
        text: the answer, if it is not one of its candidates, such as several combined.
        confidence: how sure the choice was, as in `Result`.
        abstained: whether the answer was withheld, since it was not sure enough; `correct` is of what was withheld.
        calls, requests, prompt_tokens, completion_tokens, usd, seconds, exact: its whole usage, as in `Usage`.
        verifier_tokens: those of the tokens that the verifier took.
    """

    correct: bool | None
    answer: str | None
    score: float | None
    chosen: int | None
    stopped: str
    error: str | None = None
    choice: str | None = None
    text: str | None = None
    confidence: float | None = None
    abstained: bool = False
    calls: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    verifier_tokens: int = 0
    usd: float | None = 0.0
    seconds: float = 0.0
    exact: bool = True

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens together, the verifier's included."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def model_tokens(self) -> int:
        """Those of the generator alone."""
        return self.tokens - self.verifier_tokens


@dataclass(frozen=True, kw_only=True)
class CandidateRow:
    """One candidate of a solve, as in `Scored`. `sent_seed` is its request's; `text` is None if a pool has it."""

    place: int
    answer: str | None
    correct: bool | None
    score: float | None = None
    tokens: int | None = None
    truncated: bool = False
    finished: bool = True
    step_scores: tuple[float, ...] = ()
    logprobs: tuple[float, ...] = ()
    sent_seed: int | None = None
    text: str | None = None


@dataclass(frozen=True, kw_only=True)
class ProblemRow:
    """A problem of the benchmark, in the order of its source.

    `messages` is JSON: the whole conversation, where `text` is only the user's last message of it.
    """

    id: str
    text: str | None = None
    answer: str | None = None
    level: str | None = None
    messages: str | None = None
