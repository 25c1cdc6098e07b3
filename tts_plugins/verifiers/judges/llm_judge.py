"""A language model as the judge: criteria in, a structured verdict out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tts_plugins._internal.config import check_count
from tts_plugins.budget import Bound
from tts_plugins.errors import ConfigurationError
from tts_plugins.prompts import LIMIT, Messages, judge_messages, judge_schema, make_key, problem_text
from tts_plugins.protocols import Model, Run
from tts_plugins.types import Candidate, Generation, Problem, Score
from tts_plugins.verifiers._model_calls import Asker, shown, worst_text, worst_trouble
from tts_plugins.verifiers._verdicts import Unreadable, expectation, number, read_verdict, text_of, unit

Rubric = str | Mapping[str, str] | Sequence[str]
DEFAULT: Mapping[str, str] = {
    "correctness": "is what it says and concludes right?",
    "completeness": "does it answer all that is asked?",
}


class LLMJudge:
    """Scores a candidate by a model's verdict: a critique, a number for each criterion, and one for the whole.

    Args:
        model: who judges; give it `max_tokens` (about 300), and `temperature=0` for a single vote.
        rubric: the criteria: names with what they mean, names alone, or one text.
        scale: the lowest and the highest number; the score is where the verdict lies between them.
        votes: verdicts asked for each candidate; the score is their mean.
        use_logprobs: take the expectation over the scale's numbers where the reply gives the score, instead of the
            number that was drawn (G-Eval, 2303.16634): "auto" where the model keeps alternatives, True to insist,
            False never. Needs a scale of single digits.
        limit: bytes of a candidate that the judge sees; the middle of longer ones is left out.
        name: as it appears in traces.

    The judge sees the problem, and the candidate as data (see `tts_plugins.prompts`). Its verdict must repeat a key
    that the candidate's writer could not know. What is no such verdict is asked for once more, with the reason; then
    it is an error that says what came. The critique is the feedback that revision reads. A candidate without any text
    scores 0 and is not asked about.

    Raises:
        ConfigurationError: a field is out of range.
    """

    def __init__(
        self,
        model: Model,
        *,
        rubric: Rubric = DEFAULT,
        scale: tuple[int, int] = (1, 5),
        votes: int = 1,
        use_logprobs: Literal["auto"] | bool = "auto",
        limit: int = LIMIT,
        name: str = "LLMJudge",
    ) -> None:
        _check(name, scale, votes, use_logprobs, limit)
        self.name, self.scale, self.votes, self.limit = name, scale, votes, limit
        self.criteria = as_criteria(rubric, name)
        self._logprobs = use_logprobs
        schema = judge_schema(list(self.criteria), scale)
        self._asker = Asker(model, name, schema=schema, logprobs=use_logprobs is not False)

    def __repr__(self) -> str:
        return f"{self.name}({self._asker.model.name})"

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """Each vote, and a repair of each."""
        text, key = worst_text(tokens, self.limit), "x" * 8
        both = [self._messages(problem, text, key, trouble) for trouble in ("", worst_trouble())]
        return await self._asker.bound(both, times=self.votes)

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """The mean verdict; `details` has the criteria, the votes, and whether log-probabilities were used.

        Raises:
            VerifierError: no verdict could be read from half of the votes or more.
        """
        text = shown(candidate)
        if not text.strip():
            return Score(value=0.0, feedback="the candidate is empty")
        key = make_key(run.seed, self.name, str(candidate.index), problem_text(candidate.problem), text)
        verdicts, troubles = await self._asker.ask_and_read(
            run,
            lambda trouble: self._messages(candidate.problem, text, key, trouble),
            lambda generation: self._read(generation, key),
            self.votes,
        )
        return self._score(verdicts, troubles)

    def _messages(self, problem: Problem, text: str, key: str, trouble: str) -> Messages:
        return judge_messages(
            problem_text(problem), text, criteria=self.criteria, scale=self.scale, key=key, limit=self.limit,
            trouble=trouble,
        )  # fmt: skip

    def _read(self, generation: Generation, key: str) -> _Verdict:
        verdict = read_verdict(generation.text, key)
        drawn = number(verdict, "score", self.scale)
        inner = verdict.get("criteria", {})
        if not isinstance(inner, Mapping):
            raise Unreadable(f"criteria is not a number for each of {', '.join(self.criteria)}", inner)
        marks = {name: unit(number(inner, name, self.scale), self.scale) for name in self.criteria}
        expected = expectation(generation, "score", self.scale) if self._logprobs is not False else None
        if expected is None and self._logprobs is True:
            raise Unreadable("it has no log-probabilities of the scale's numbers; set logprobs=20 on the judge's model")
        value = drawn if expected is None else expected
        return _Verdict(unit(value, self.scale), marks, text_of(verdict, "critique"), expected is not None)

    def _score(self, verdicts: Sequence[_Verdict], troubles: Sequence[str]) -> Score:
        values = [v.value for v in verdicts]
        mean = sum(values) / len(values)
        nearest = min(verdicts, key=lambda v: abs(v.value - mean))
        marks = {name: sum(v.criteria[name] for v in verdicts) / len(verdicts) for name in self.criteria}
        details = {
            "criteria": marks, "votes": values, "logprobs": all(v.expected for v in verdicts), "unread": list(troubles),
        }  # fmt: skip
        return Score(value=min(1.0, mean), feedback=nearest.critique, details=details)


@dataclass(frozen=True)
class _Verdict:
    value: float
    criteria: Mapping[str, float]
    critique: str
    expected: bool


def as_criteria(rubric: Rubric, who: str) -> Mapping[str, str]:
    """A rubric in any of its forms as names with meanings.

    Raises:
        ConfigurationError: it is empty, or a name cannot stand in a verdict.
    """
    if isinstance(rubric, str):
        criteria: Mapping[str, str] = {"rubric": rubric}
    elif isinstance(rubric, Mapping):
        criteria = dict(rubric)
    else:
        criteria = {str(name): "" for name in rubric}
    for name, what in criteria.items():
        taken = name in ("score", "key", "critique", "criteria")
        if not isinstance(name, str) or not name.strip() or '"' in name or taken or not isinstance(what, str):
            raise ConfigurationError(
                f"{who}: rubric has a criterion {name!r}; give names with what they mean, other than 'score'"
            )
    if not criteria or (isinstance(rubric, str) and not rubric.strip()):
        raise ConfigurationError(f"{who}: rubric={rubric!r} is empty; say what a good solution is")
    return criteria


def _check(who: str, scale: tuple[int, int], votes: int, use_logprobs: object, limit: int) -> None:
    whole = len(scale) == 2 and all(isinstance(v, int) and not isinstance(v, bool) for v in scale)
    if not whole or not 0 <= scale[0] < scale[1]:
        raise ConfigurationError(
            f"{who}: scale={scale!r} must be two whole numbers, the lower one first, such as (1, 5)"
        )
    check_count(who, "votes", votes)
    check_count(who, "limit", limit, least=200)
    if use_logprobs not in ("auto", True, False):
        raise ConfigurationError(f"{who}: use_logprobs={use_logprobs!r} is not known; use 'auto', True or False")
    if use_logprobs is True and scale[1] > 9:
        raise ConfigurationError(f"{who}: use_logprobs=True needs single digits, not scale={scale!r}; use (1, 5)")
