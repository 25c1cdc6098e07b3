"""Recursive self-aggregation (RSA, Venkatraman et al. 2025, 2509.26626): a population that merges its own answers."""

from __future__ import annotations

from dataclasses import dataclass

from tts_plugins._internal.config import check_count
from tts_plugins.errors import OVER, ConfigurationError, TTSError
from tts_plugins.protocols import Run
from tts_plugins.selection import Select
from tts_plugins.strategies._base import BaseStrategy
from tts_plugins.strategies._choice import chosen
from tts_plugins.strategies._search import check_select, need_verifier, note_end
from tts_plugins.types import Problem, Scored


@dataclass(frozen=True, kw_only=True)
class RecursiveAggregation(BaseStrategy):
    """`population` answers; then, `loops - 1` times, as many new ones, each merged from `subset` of the old at random.

    No verifier is needed: the last population votes.

    Args:
        population: answers in each loop (N of the paper).
        subset: answers that are merged into one (K of the paper: 4).
        loops: populations in all, the first included (T of the paper).
        select: how the last population is chosen from; all but "majority" need a verifier.

    Raises:
        ConfigurationError: a field is out of range; at the call, the model cannot revise.
    """

    population: int = 8
    subset: int = 4
    loops: int = 3
    select: Select = "majority"

    def __post_init__(self) -> None:
        check_count("RecursiveAggregation", "population", self.population)
        check_count("RecursiveAggregation", "subset", self.subset)
        check_count("RecursiveAggregation", "loops", self.loops)
        check_select("RecursiveAggregation", self.select)
        if self.subset > self.population:
            raise ConfigurationError(
                f"RecursiveAggregation: subset={self.subset} is more than population={self.population}; lower it"
            )

    def calls(self) -> tuple[int, int]:
        """The least and the most generations that it asks for."""
        return self.population * self.loops, self.population * self.loops

    async def __call__(self, run: Run, problem: Problem) -> Scored:
        if self.select != "majority":
            need_verifier(run, f"RecursiveAggregation(select={self.select!r})", "select='majority'")
        people = sorted([c async for c in run.sample(problem, self.population)], key=lambda c: c.index)
        for _ in range(self.loops - 1):
            subsets = [run.rng.sample(people, min(self.subset, len(people))) for _ in range(self.population)]
            merged = await run.together([_merged(run, problem, subset) for subset in subsets])
            children = [c for c in merged if isinstance(c, Scored)]
            if not children:
                note_end(run, next(error for error in merged if isinstance(error, TTSError)))
                break
            run.prune(people)
            people = children
        return chosen(run, people, self.select)


async def _merged(run: Run, problem: Problem, subset: list[Scored]) -> Scored | TTSError:
    try:
        return await run.revise(problem, subset, merge=True)
    except OVER as error:
        return error
