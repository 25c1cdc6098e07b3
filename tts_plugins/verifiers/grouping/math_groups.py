"""Votes for answers that are equal formulas, merged: math-verify in a process that can be killed, behind guards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakKeyDictionary

from tts_plugins._internal.config import check_count
from tts_plugins._internal.values import is_number
from tts_plugins.answers import extract, normalise
from tts_plugins.errors import ConfigurationError
from tts_plugins.protocols import Run
from tts_plugins.selection import RelatedKey, Relation
from tts_plugins.types import Problem
from tts_plugins.verifiers._math_process import MathProcesses
from tts_plugins.verifiers.grouping.guards import decided, elements, one_way, plain


class MathGroups:
    """Reads answers, and lets those that are equal formulas vote together: `solve(..., answer=MathGroups())`.

    Args:
        read: from a text to its answer.
        timeout: seconds for one comparison; what takes longer counts as different.
        most: distinct answers of a run that are compared with each other; further ones only vote for themselves.
        workers: processes of math-verify.

    Only distinct keys are compared, each pair once a run (about 45 ms a pair). Guards come first: units, percent,
    brackets, order, primes, and upper and lower case of variables have to agree. Answers merge only where each is equal
    to each other one, and the order of arrival changes nothing. `close()` ends the processes.

    Raises:
        ConfigurationError: a field is out of range.
        MissingExtraError: math-verify is not installed.
    """

    def __init__(
        self,
        read: Callable[[str], str | None] = extract,
        *,
        timeout: float = 5.0,
        most: int = 16,
        workers: int = 1,
    ) -> None:
        if not callable(read):
            raise ConfigurationError(f"MathGroups: read={read!r} cannot be called; pass a function of a text")
        if not is_number(timeout) or not timeout > 0:
            raise ConfigurationError(f"MathGroups: timeout={timeout!r} must be above 0 seconds")
        check_count("MathGroups", "most", most, least=2)
        check_count("MathGroups", "workers", workers)
        self._read, self._most = read, most
        self._processes = MathProcesses("MathGroups", timeout=float(timeout), workers=workers)
        self._runs: WeakKeyDictionary[Run, _Known] = WeakKeyDictionary()

    def __call__(self, text: str) -> str | None:
        """The answer in a text."""
        return self._read(text)

    async def relate(self, run: Run, key: str, raw: str, problem: Problem) -> str:
        """The key, compared with those that were seen in the run before."""
        known = self._runs.setdefault(run, _Known())
        async with known.lock:
            if key not in known.raws and len(known.raws) < self._most:
                for other, written in known.raws.items():
                    if await self.equal(raw, written):
                        known.relation.add(key, other)
                known.raws[key] = raw
        return RelatedKey(key, known.relation)

    async def equal(self, a: str, b: str) -> bool:
        """Whether two answers, as they were written, are equal."""
        if normalise(a) == normalise(b):
            return True
        a, b = plain(a), plain(b)
        if (sure := decided(a, b)) is not None:
            return sure
        if (pairs := elements(a, b)) is not None:
            return bool(pairs) and all([await self.equal(*pair) for pair in pairs])
        reply = await self._processes.ask({"gold": a, "answer": b, "both": not one_way(a, b)})
        return bool(reply.get("equal"))

    def close(self) -> None:
        """End the processes; a later comparison starts them again."""
        self._processes.close()


class _Known:
    """The distinct answers of one run, as they were written, by their keys."""

    def __init__(self) -> None:
        self.raws: dict[str, str] = {}
        self.relation, self.lock = Relation(), asyncio.Lock()
