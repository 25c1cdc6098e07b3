"""`Solve`: a step of a Ray Data pipeline, whose reading, back-pressure and writing stay Ray's."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from tts_plugins._calls.limiter import share_limits
from tts_plugins._concurrency.sync_calls import run_sync
from tts_plugins.batch.rows import Row
from tts_plugins.batch.runner import BatchWork, OutOfBudget
from tts_plugins.distributed._actors import leased, sharing
from tts_plugins.distributed.lease import LeasedLedger
from tts_plugins.distributed.shared_budget import SharedBudget
from tts_plugins.engine.many import Handler
from tts_plugins.errors import ConfigurationError, DataError, TTSError

COLUMNS = ("text", "answer", "score", "confidence", "abstained", "stopped", "error", "calls", "tokens", "usd")


class Solve:
    """Solves the rows of a batch side by side, and adds columns to it.

        dataset.map_batches(
            Solve, batch_size=64, compute=ray.data.ActorPoolStrategy(size=4),
            fn_constructor_kwargs={"model": Factory(OpenAICompatibleModel, "qwen3-4b", base_url=…),
                                   "strategy": BestOfN(n=8), "verifier": check, "budget": shared, "workers": 4},
        )

    A batch ends with the slowest of its rows, so that an actor waits for it; several batches at a time in one actor
    fill the gap: `ActorPoolStrategy(size=4, max_concurrent_calls_per_actor=4, enable_true_multi_threading=True)`. Ray
    repeats whole batches of an actor that dies, without limit unless it is told otherwise, and they are paid again:
    `tts-plugins batch` acknowledges row by row.

    Args:
        model, strategy, verifier, answer, attempts: as for `solve_many`.
        each: the limits of each solve.
        budget: what all actors draw on; made in the driver, where it must be kept until the data set is written.
        workers: how many actors there are to be; they divide a server's places.
        column: the column with the problems: texts, or lists of chat messages.
        id: the column with their ids, from which their seeds are made; their places in a batch if left out.
        prefix: of the new columns: text, answer, score, confidence, abstained, stopped, error, calls, tokens and usd.
        seed: as for `solve_many`.

    Raises:
        ConfigurationError: a setting is wrong.
    """

    def __init__(
        self, *, model: Any, budget: SharedBudget | None = None, each: Any = None, workers: int = 1,
        column: str = "prompt", id: str | None = None, prefix: str = "tts_", seed: int = 0, **settings: Any,
    ) -> None:  # fmt: skip
        if budget is not None and not isinstance(budget, SharedBudget):
            raise ConfigurationError(
                f"Solve: budget={budget!r} must be a SharedBudget that the driver makes, SharedBudget(Budget(usd=20)); "
                "the limits of each solve are `each`"
            )
        self._column, self._id, self._prefix = column, id, prefix
        work = BatchWork({"model": model, "budget": each, **settings}, seed)
        self._ledger: LeasedLedger | None = None
        self._running = 0
        self._handle: Handler = run_sync(lambda: self._begin(work, budget, workers))

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Solve a batch of columns; rows that fail have their `error`.

        Raises:
            DataError: a column is not there, or a problem is none.
            TTSError: no solve can succeed: a wrong key, an unknown model, a server that is down, a lost account.
        """
        rows = self._rows(batch)
        found = run_sync(lambda: self._solved(rows))
        new = {f"{self._prefix}{name}": [row.get(name) for row in found] for name in COLUMNS}
        return {**batch, **new}

    async def _begin(self, work: BatchWork, budget: SharedBudget | None, workers: int) -> Handler:
        if budget is not None:
            share_limits(sharing(workers, budget.actor.pace.remote))
            self._ledger = leased(f"solve-{uuid.uuid4().hex[:12]}", budget.actor, budget.limits)
        return work(self._ledger)

    async def _solved(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        self._running += 1
        try:
            return list(await asyncio.gather(*map(self._one, rows)))
        finally:
            self._running -= 1
            if self._ledger is not None and not self._running:
                self._ledger.return_soon()

    async def _one(self, row: Row) -> dict[str, Any]:
        try:
            made: dict[str, Any] = await self._handle(row)
        except OutOfBudget as error:
            made = {"error": f"BudgetExhausted: {error}"}
        if self._ledger is not None and self._ledger.failed is not None:
            raise self._ledger.failed
        if made.get("calls") is not None:
            made["tokens"] = made["prompt_tokens"] + made["completion_tokens"]
        return made

    def _rows(self, batch: Mapping[str, Any]) -> list[Row]:
        for name in filter(None, (self._column, self._id)):
            if name not in batch:
                raise DataError(f"Solve: there is no column {name!r}; the columns are {', '.join(batch)}")
        rows = []
        for place, content in enumerate(batch[self._column]):
            name = str(place if self._id is None else batch[self._id][place])
            content = content.tolist() if hasattr(content, "tolist") else content
            row = Row(name, content, {}, f"Solve: row {name}")
            try:
                row.problem()
            except TTSError as error:
                raise DataError(f"Solve: row {name}, {self._column}: {error}") from error
            rows.append(row)
        return rows
