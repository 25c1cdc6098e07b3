"""A judge that compares: models are surer of which of two is better than of what one is worth."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from tts_plugins._internal.config import check_count
from tts_plugins._internal.values import once_made
from tts_plugins.budget import Bound
from tts_plugins.errors import BudgetExhausted, CandidateError, ConfigurationError, DeadlineExceeded, VerifierError
from tts_plugins.prompts import LIMIT, Messages, make_key, pairwise_messages, pairwise_schema, problem_text
from tts_plugins.protocols import Model, Run
from tts_plugins.types import Candidate, Generation, Problem, Score
from tts_plugins.verifiers._judge_replies import Unreadable, read_verdict, text_of
from tts_plugins.verifiers._model_calls import Asker, shown, worst_text, worst_trouble
from tts_plugins.verifiers.judges._bradley_terry import Outcome, bradley_terry, knockout_pairs, swiss_pairs, win_rates

RUBRIC = "The better one is the one that is right; of two that are right, the one that answers more completely."


class PairwiseJudge:
    """Scores candidates by comparing pairs of them, each in both orders; it waits for all of them.

    Args:
        model: who judges; `max_tokens` of about 150 will do.
        mode: "knockout" finds the best with n - 1 comparisons; "swiss" plays `rounds` rounds of n // 2, which ranks
            the others too.
        rounds: of "swiss".
        rubric: what makes one better.
        limit: bytes of each candidate that the judge sees.
        name: as it appears in traces.

    A verdict that changes with the order (a flip) is a tie, and so says nothing. The scores are mean probabilities of
    winning against the others by Bradley and Terry's model over all comparisons (1952). A comparison that could not
    be read, even after a repair, is left out. `details` and the trace have comparisons, flips and failures. When the
    budget or the time ends first, what was compared decides.

    Raises:
        ConfigurationError: a field is out of range.
    """

    def __init__(
        self,
        model: Model,
        *,
        mode: Literal["knockout", "swiss"] = "knockout",
        rounds: int = 4,
        rubric: str = RUBRIC,
        limit: int = LIMIT,
        name: str = "PairwiseJudge",
    ) -> None:
        if mode not in ("knockout", "swiss"):
            raise ConfigurationError(f"{name}: mode={mode!r} is not known; use 'knockout' or 'swiss'")
        check_count(name, "rounds", rounds)
        check_count(name, "limit", limit, least=200)
        self.name, self.mode, self.rounds, self.rubric, self.limit = name, mode, rounds, rubric, limit
        self._asker = Asker(model, name, schema=pairwise_schema())

    @once_made
    def __repr__(self) -> str:
        return f"{self.name}({self._asker.model.name}, {self.mode})"

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """For each candidate: one comparison in both orders (knockout) or half of one a round, with repairs."""
        text = worst_text(tokens, self.limit)
        both = [self._messages(problem_text(problem), text, text, "x" * 8, t) for t in ("", worst_trouble())]
        return await self._asker.bound(both, times=2 if self.mode == "knockout" else self.rounds)

    async def score_set(self, run: Run, candidates: Sequence[Candidate]) -> Sequence[Score]:
        """One score for each candidate, in order.

        Raises:
            VerifierError: not one comparison could be had.
            BudgetExhausted: there was no room for any.
        """
        table = _Table()
        if len(candidates) > 1:
            try:
                await (self._knockout if self.mode == "knockout" else self._swiss)(run, candidates, table)
            except (BudgetExhausted, DeadlineExceeded) as error:
                if not table.outcomes:
                    raise
                table.failures.append(error)
        facts = {
            "comparisons": len(table.outcomes), "flips": table.flips, "failed": len(table.failures),
            "flip_rate": table.flips / len(table.outcomes) if table.outcomes else None,
        }  # fmt: skip
        run.note("pairwise", verifier=self.name, mode=self.mode, **facts)
        if len(candidates) > 1 and not table.outcomes:
            raise VerifierError(
                f"{self.name}: not one comparison could be had; {table.failures[0]}"
            ) from table.failures[0]
        rates = win_rates(bradley_terry(len(candidates), table.outcomes))
        return [
            Score(value=rate, feedback=table.words.get(i, ""), details={**facts, "points": table.points.get(i, 0.0)})
            for i, rate in enumerate(rates)
        ]

    async def _knockout(self, run: Run, candidates: Sequence[Candidate], table: _Table) -> None:
        alive: list[int] = list(range(len(candidates)))
        while len(alive) > 1:
            pairs, passed = knockout_pairs(alive)
            await self._play(run, candidates, pairs, table)
            # Of two that tied, the one with more points so far goes on, then the first.
            alive = [max(pair, key=lambda i: (table.beat(i, pair), table.points.get(i, 0.0), -i)) for pair in pairs]
            alive += passed

    async def _swiss(self, run: Run, candidates: Sequence[Candidate], table: _Table) -> None:
        met: set[tuple[int, int]] = set()
        for turn in range(self.rounds):
            pairs = swiss_pairs(len(candidates), table.points, met, turn)
            met |= {(min(pair), max(pair)) for pair in pairs}
            await self._play(run, candidates, pairs, table)

    async def _play(
        self, run: Run, candidates: Sequence[Candidate], pairs: Sequence[tuple[int, int]], table: _Table
    ) -> None:
        """A round: all its comparisons at once; if the budget ends, this is raised after those that it allowed."""
        played = await asyncio.gather(
            *(self._compare(run, candidates[i], candidates[j]) for i, j in pairs), return_exceptions=True
        )
        ended: BaseException | None = None
        for pair, outcome in zip(pairs, played, strict=True):
            if isinstance(outcome, CandidateError):
                table.failures.append(outcome)
            elif isinstance(outcome, BaseException):
                ended = ended or outcome
            else:
                table.add(pair, *outcome)
        if ended is not None:
            raise ended

    async def _compare(self, run: Run, a: Candidate, b: Candidate) -> tuple[float, bool, str]:
        """The share of the win that is a's, whether the verdict flipped with the order, and the reason."""
        if shown(a) == shown(b):
            return 0.5, False, "the two are the same"
        asked = await asyncio.gather(self._ask(run, a, b), self._ask(run, b, a), return_exceptions=True)
        for failed in asked:  # neither of the two is left running when the other fails
            if isinstance(failed, BaseException):
                raise failed
        (one, why), (two, also) = (verdict for verdict in asked if not isinstance(verdict, BaseException))
        first, second = one, 1.0 - two
        flipped = first != second
        return (0.5 if flipped else first), flipped, why if first >= second else also

    async def _ask(self, run: Run, first: Candidate, second: Candidate) -> tuple[float, str]:
        texts = (shown(first), shown(second))
        problem = problem_text(first.problem)
        key = make_key(run.seed, self.name, problem, *texts)
        verdicts, _ = await self._asker.ask_and_read(
            run,
            lambda trouble: self._messages(problem, *texts, key, trouble),
            lambda generation: _read(generation, key),
        )
        return verdicts[0]

    def _messages(self, problem: str, first: str, second: str, key: str, trouble: str) -> Messages:
        return pairwise_messages(
            problem, first, second, rubric=self.rubric, key=key, limit=self.limit, trouble=trouble
        )  # fmt: skip


@dataclass
class _Table:
    """What was played so far."""

    outcomes: list[Outcome] = field(default_factory=list)
    points: dict[int, float] = field(default_factory=dict)
    words: dict[int, str] = field(default_factory=dict)
    failures: list[Exception] = field(default_factory=list)
    flips: int = 0

    def add(self, pair: tuple[int, int], share: float, flipped: bool, why: str) -> None:
        i, j = pair
        self.outcomes.append((i, j, share))
        self.points[i] = self.points.get(i, 0.0) + share
        self.points[j] = self.points.get(j, 0.0) + 1.0 - share
        self.flips += flipped
        self.words[i] = self.words[j] = why

    def beat(self, i: int, pair: tuple[int, int]) -> float:
        for a, b, share in reversed(self.outcomes):
            if (a, b) == pair:
                return share if i == a else 1.0 - share
        return 0.5


def _read(generation: Generation, key: str) -> tuple[float, str]:
    verdict = read_verdict(generation.text, key)
    better = verdict.get("better")
    shares = {"A": 1.0, "B": 0.0, "tie": 0.5}
    if not isinstance(better, str) or better not in shares:
        raise Unreadable("better must be 'A', 'B' or 'tie'", better)
    return shares[better], text_of(verdict, "critique")
