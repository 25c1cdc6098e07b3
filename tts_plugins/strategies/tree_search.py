"""Adaptive branching tree search (AB-MCTS-A, Inoue et al. 2025, 2503.04412): widen or deepen, by Thompson sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tts_plugins._internal.config import check_count
from tts_plugins._internal.values import is_number
from tts_plugins.errors import OVER, AllCandidatesFailed, ConfigurationError, TTSError
from tts_plugins.protocols import Run
from tts_plugins.stopping import Rule, check_rule, should_stop
from tts_plugins.strategies._base import BaseStrategy
from tts_plugins.strategies._choice import chosen
from tts_plugins.strategies._search import check_select, need_verifier, note_end, nothing_made
from tts_plugins.types import Problem, Scored

if TYPE_CHECKING:
    from random import Random


@dataclass(frozen=True, kw_only=True)
class TreeSearch(BaseStrategy):
    """`n` whole answers in a tree: at each node, another child (widen), or further down (deepen).

    At the root a new child is an independent sample; below, it revises the answer of its node. Which of the two, and
    which child to go down to, is drawn from Beta posteriors over the scores that each way has brought so far. It needs
    whole answers and a score only. An attempt that fails (it cannot be parsed, the verifier raises) counts as an answer
    whose score is 0, and what revises it is shown the failure as its feedback; it is never chosen.

    Args:
        n: answers at most.
        batch: answers made side by side; above 1 it decides on less, and waits less.
        select: how the answer is chosen from all.
        history: latest attempts on the way down that a revision is shown.
        prior: both parameters of the Beta priors; 0.5 is Jeffreys'.
        stop: a rule from `tts_plugins.stopping`, such as `Threshold(1.0)`.

    Raises:
        ConfigurationError: a field is out of range; at the call, there is no verifier, or the model cannot revise.
    """

    n: int = 16
    batch: int = 1
    select: Literal["best", "weighted"] = "best"
    history: int = 4
    prior: float = 0.5
    stop: Rule | None = None

    def __post_init__(self) -> None:
        check_count("TreeSearch", "n", self.n)
        check_count("TreeSearch", "batch", self.batch)
        check_count("TreeSearch", "history", self.history)
        check_select("TreeSearch", self.select, ("best", "weighted"))
        prior: object = self.prior
        if not is_number(prior) or prior <= 0:
            raise ConfigurationError(f"TreeSearch: prior={prior!r} must be a finite number above 0")
        if self.stop is not None:
            check_rule("TreeSearch", "stop", self.stop)

    def calls(self) -> tuple[int, int]:
        """The least and the most generations that it asks for."""
        return (self.n if self.stop is None else min(self.n, self.stop.least((), self.n)), self.n)

    async def __call__(self, run: Run, problem: Problem) -> Scored:
        need_verifier(run, "TreeSearch", "SelfConsistency")
        root, seen, errors, asked = _Node(), list[Scored](), list[TTSError](), 0
        while asked < self.n:
            nodes = [self._chosen(root, run.rng) for _ in range(min(self.batch, self.n - asked))]
            asked += len(nodes)
            made = await run.together([self._child(run, problem, node) for node in nodes])
            for node, child in zip(nodes, made, strict=True):
                if isinstance(child, Scored):
                    node.add(child)
                    seen.append(child)
                elif isinstance(child, AllCandidatesFailed):
                    node.add_failed(child.attempts)
            failed = [error for error in made if isinstance(error, TTSError)]
            errors += failed
            over = [error for error in failed if not isinstance(error, AllCandidatesFailed)]
            if over and len(failed) == len(made):
                note_end(run, over[0])
                break
            if seen and should_stop(self.stop, seen, self.n - asked):
                run.note("stop", rule=repr(self.stop), seen=len(seen), left=self.n - asked)
                break
        if not seen:
            raise nothing_made(errors)
        return chosen(run, seen, self.select)

    def _chosen(self, root: _Node, rng: Random) -> _Node:
        """The node that gets the next child."""
        node = root
        while node.children:
            widen, deepen = self._draw(node.wide, rng), self._draw(node.deep, rng)
            if widen >= deepen:
                break
            draws = [self._draw(child.below, rng) for child in node.children]
            node = node.children[draws.index(max(draws))]
        return node

    def _draw(self, scores: Sequence[float], rng: Random) -> float:
        good = math.fsum(scores)
        return rng.betavariate(self.prior + good, self.prior + len(scores) - good)

    async def _child(self, run: Run, problem: Problem, node: _Node) -> Scored | TTSError:
        try:
            if node.attempt is None:
                (sampled,) = [c async for c in run.sample(problem, 1)]
                return sampled
            return await run.revise(problem, node.attempts()[-self.history :])
        except OVER as error:
            return error


@dataclass(eq=False)
class _Node:
    """An attempt, and the scores that each way from it has brought."""

    attempt: Scored | None = None
    parent: _Node | None = None
    children: list[_Node] = field(default_factory=list)
    wide: list[float] = field(default_factory=list)  # of its children
    deep: list[float] = field(default_factory=list)  # of what came from going down to one of them
    below: list[float] = field(default_factory=list)  # its own, and of all beneath it

    def add(self, attempt: Scored) -> None:
        """A new child, whose score is known to all above it."""
        score = attempt.score or 0.0
        child = _Node(attempt, self, below=[score])
        self.children.append(child)
        self.wide.append(score)
        node: _Node = self
        while node.parent is not None:
            node.below.append(score)
            node.parent.deep.append(score)
            node = node.parent

    def add_failed(self, attempts: Sequence[Scored]) -> None:
        """Add those that wrote something, which a revision may improve; the others offer nothing to build on."""
        for attempt in attempts:
            if attempt.text:
                self.add(attempt)

    def attempts(self) -> list[Scored]:
        """From the first to its own."""
        out: list[Scored] = []
        node: _Node | None = self
        while node is not None and node.attempt is not None:
            out.append(node.attempt)
            node = node.parent
        return out[::-1]
