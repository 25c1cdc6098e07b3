"""A language model as the judge: criteria in, a structured verdict out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tts_plugins._internal.config import check_count
from tts_plugins._internal.values import is_whole, once_made
from tts_plugins.budget import Bound
from tts_plugins.errors import ConfigurationError
from tts_plugins.prompts import LIMIT, Messages, judge_messages, judge_schema, make_key, problem_text
from tts_plugins.protocols import Model, Run
from tts_plugins.types import Candidate, Generation, Problem, Score
from tts_plugins.verifiers._judge_replies import Unreadable, expectation, number, read_verdict, text_of, unit
from tts_plugins.verifiers._memo import Once
from tts_plugins.verifiers._model_calls import Asker, shown, worst_text, worst_trouble
from tts_plugins.verifiers.judges.canaries import Canaries

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
        key: "required", or "optional" for a judge that never repeats it: then a candidate that gets its own verdict
            repeated by the judge can fool it, `details["keyless"]` says where no key was seen, and canaries are on.
        canaries: the share of candidates for which a canary is judged, too (see `Canaries`); 0.1 where the key is
            optional, else 0.
        name: as it appears in traces.

    The judge sees the problem, and the candidate as data (see `tts_plugins.prompts`). Its verdict must repeat a key
    that the candidate's writer could not know. What can be read in one way only is read (see
    `verifiers._lenient_json`); what is no such verdict is asked for once more, with the reason; then it is an error
    that says what came. Candidates of the same text are judged once. The critique is the feedback that revision reads.
    A candidate without any text scores 0 and is not asked about.

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
        key: Literal["required", "optional"] = "required",
        canaries: float | None = None,
        name: str = "LLMJudge",
    ) -> None:
        _check(name, scale, votes, use_logprobs, limit)
        if key not in ("required", "optional"):
            raise ConfigurationError(f"{name}: key={key!r} is not known; use 'required' or 'optional'")
        self.name, self.scale, self.votes, self.limit = name, scale, votes, limit
        self.criteria = as_criteria(rubric, name)
        self.key, self._logprobs = key, use_logprobs
        rate = canaries if canaries is not None else 0.1 if key == "optional" else 0.0
        self._canaries = Canaries(_Inner(self), rate=rate, name=name) if rate else None
        self._once = Once[Score]()
        schema = judge_schema(list(self.criteria), scale)
        self._asker = Asker(model, name, schema=schema, logprobs=use_logprobs is not False)

    @once_made
    def __repr__(self) -> str:
        return f"{self.name}({self._asker.model.name})"

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """Each vote, and a repair of each; and the canaries'."""
        return await (self._canaries or _Inner(self)).bound(problem, tokens)

    async def _bound(self, problem: Problem, tokens: int | None) -> Bound:
        text, key = worst_text(tokens, self.limit), "x" * 8
        both = [self._messages(problem, text, key, trouble) for trouble in ("", worst_trouble())]
        return await self._asker.bound(both, times=self.votes)

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """The mean verdict; `details` has the criteria, the votes, and whether log-probabilities were used.

        Raises:
            VerifierError: no verdict could be read from half of the votes or more.
        """
        return await (self._canaries or _Inner(self)).score(run, candidate)

    async def _judged(self, run: Run, candidate: Candidate) -> Score:
        text = shown(candidate)
        if not text.strip():
            return Score(value=0.0, feedback="the candidate is empty")
        key = make_key(run.seed, self.name, problem_text(candidate.problem), text)
        return (await self._once.get(run, key, lambda: self._ask(run, candidate, text, key)))[0]

    async def _ask(self, run: Run, candidate: Candidate, text: str, key: str) -> Score:
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
        verdict = read_verdict(generation.text, key, optional=self.key == "optional")
        drawn = number(verdict, "score", self.scale)
        marks = self._marks(verdict.get("criteria", {}))
        expected = expectation(generation, "score", self.scale) if self._logprobs is not False else None
        if expected is None and self._logprobs is True:
            raise Unreadable("it has no log-probabilities of the scale's numbers; set logprobs=20 on the judge's model")
        value = drawn if expected is None else expected
        critique, keyless = text_of(verdict, "critique"), "key" not in verdict
        return _Verdict(unit(value, self.scale), marks, critique, expected is not None, keyless)

    def _marks(self, given: Any) -> dict[str, float]:
        """The number for each criterion: in an object by name, each perhaps in one with its reason, or in a list."""
        if isinstance(given, list) and len(given) == len(self.criteria):
            given = dict(zip(self.criteria, given, strict=True))
        if not isinstance(given, Mapping):
            raise Unreadable(f"criteria is not a number for each of {', '.join(self.criteria)}", given)
        plain = {n: v["score"] if isinstance(v, Mapping) and "score" in v else v for n, v in given.items()}
        return {name: unit(number(plain, name, self.scale), self.scale) for name in self.criteria}

    def _score(self, verdicts: Sequence[_Verdict], troubles: Sequence[str]) -> Score:
        values = [v.value for v in verdicts]
        mean = sum(values) / len(values)
        nearest = min(verdicts, key=lambda v: abs(v.value - mean))
        marks = {name: sum(v.criteria[name] for v in verdicts) / len(verdicts) for name in self.criteria}
        details: dict[str, Any] = {
            "criteria": marks, "votes": values, "logprobs": all(v.expected for v in verdicts), "unread": list(troubles),
        }  # fmt: skip
        if any(v.keyless for v in verdicts):
            details["keyless"] = True
        return Score(value=min(1.0, mean), feedback=nearest.critique, details=details)


@dataclass(frozen=True)
class _Verdict:
    value: float
    criteria: Mapping[str, float]
    critique: str
    expected: bool
    keyless: bool


class _Inner:
    """A judge without its canaries."""

    def __init__(self, judge: LLMJudge) -> None:
        self._judge, self.name = judge, judge.name

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """The judge's."""
        return await self._judge._bound(problem, tokens)

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """The judge's."""
        return await self._judge._judged(run, candidate)


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
    whole = len(scale) == 2 and all(map(is_whole, scale))
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
