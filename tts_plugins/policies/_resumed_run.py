"""A run that starts with samples: it hands those out first, and asks the wrapped run for the rest."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from tts_plugins.errors import OVER
from tts_plugins.protocols import Model, Run, StopRule
from tts_plugins.runs import OtherModelRun, passed_on
from tts_plugins.selection import with_content
from tts_plugins.stopping import should_stop, wave_growth
from tts_plugins.types import Problem, Scored


class Resumed:
    """A stop rule applied to new samples as if they followed those `before`, with up to `after` more to come."""

    def __init__(self, rule: StopRule, before: Sequence[Scored], after: int = 0) -> None:
        self._rule, self._before, self._after = rule, tuple(with_content(before)), after

    def __repr__(self) -> str:
        return repr(self._rule)

    def __call__(self, seen: Sequence[Scored], left: int) -> bool:
        return self._rule([*self._before, *seen], left + self._after)

    @property
    def wave_growth(self) -> int:
        """The rule's own."""
        return wave_growth(self._rule)

    def least(self, seen: Sequence[Scored], left: int) -> int:
        """The rule's own."""
        return self._rule.least([*self._before, *seen], left + self._after)


def satisfied(rule: StopRule | None, seen: Sequence[Scored], n: int) -> bool:
    """Return whether the rule would have stopped at some prefix of these samples, of `n` at most."""
    return any(should_stop(rule, seen[:t], n - t) for t in range(1, len(seen) + 1) if n > t)


class SeededRun(OtherModelRun):
    """A `Run` whose first whole solutions are those given; each is handed out once.

    A `Revision` starts its chains from the given solutions, a search over steps starts anew. With another `model`,
    further solutions are that one's. `seen` has all that were handed out.
    """

    def __init__(self, run: Run, given: Sequence[Scored], model: Model | None = None) -> None:
        super().__init__(run, model)
        self._given = list(given)
        self.seen: list[Scored] = []

    async def sample(
        self, problem: Problem, n: int, *, stop: StopRule | None = None, **how: Any
    ) -> AsyncIterator[Scored]:
        given, self._given = self._given[:n], self._given[n:]
        left = n - len(given)
        # All are paid for, so all are handed out, even if the rule would have stopped before the last of them.
        stopped = satisfied(stop, given, n)
        for candidate in given:
            self.seen.append(candidate)
            yield candidate
        if stopped:
            self._run.note("stop", rule=repr(stop), seen=len(given), left=left)
        if stopped or not left:
            return
        rule = None if stop is None else Resumed(stop, given)
        rest = passed_on(super().sample(problem, left, stop=rule, **how), self.seen.append)
        try:
            async with contextlib.aclosing(rest):
                async for candidate in rest:
                    yield candidate
        except OVER as error:
            if not given:
                raise
            self._run.note("search_ended", error=f"{type(error).__name__}: {error}")
