"""`Solve`: a step of a Ray Data pipeline, whose reading, back-pressure and writing stay Ray's."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from tts_plugins._calls.limiter import share_limits
from tts_plugins._concurrency.sync_calls import run_sync
from tts_plugins.batch.rows import COLUMNS as TYPES
from tts_plugins.batch.rows import Row
from tts_plugins.batch.runner import BatchWork, OutOfBudget
from tts_plugins.distributed._actors import leased, sharing
from tts_plugins.distributed.lease import LeasedLedger
from tts_plugins.distributed.shared_budget import SharedBudget
from tts_plugins.engine.many import Handler
from tts_plugins.errors import ConfigurationError, DataError, TTSError

COLUMNS = ("text", "answer", "score", "confidence", "abstained", "stopped", "error", "calls", "tokens", "usd")
_TYPES = {**TYPES, "tokens": "int64"}


class Solve:
    """Solves the rows of a batch side by side, and adds columns to it.

        dataset.map_batches(
            Solve, batch_size=64, batch_format="pyarrow", compute=ray.data.ActorPoolStrategy(size=4),
            fn_constructor_kwargs={"model": Factory(OpenAICompatibleModel, "qwen3-4b", base_url=…),
                                   "strategy": BestOfN(n=8), "verifier": check, "budget": shared, "workers": 4},
        )

    A batch ends with the slowest of its rows, so that an actor waits for it; several batches at a time in one actor
    fill the gap: `ActorPoolStrategy(size=4, max_concurrent_calls_per_actor=4, enable_true_multi_threading=True)`. Ray
    repeats whole batches of an actor that dies, without limit unless it is told otherwise, and they are paid again:
    `tts-plugins batch` acknowledges row by row.

    Every batch format works; in "pyarrow" other columns stay exactly as they are, in Ray's "numpy" a null may become
    a NaN. New columns have the same types in each block, so that the files of a data set fit together.

    Args:
        model, strategy, verifier, answer, attempts: as for `solve_many`.
        each: the limits of each solve.
        budget: what all actors draw on; made in the driver, where it must be kept until the data set is written.
        workers: how many actors there are to be; they divide a server's places.
        column: the column with the problems: texts, or lists of chat messages.
        id: the column with their ids, from which their seeds are made; their places in a batch if left out.
        metadata: columns that the verifier needs, such as the expected answer; in `problem.metadata`.
        prefix: of the new columns: text, answer, score, confidence, abstained, stopped, error, calls, tokens and usd.
        seed: as for `solve_many`.

    Raises:
        ConfigurationError: a setting is wrong.
    """

    def __init__(
        self, *, model: Any, budget: SharedBudget | None = None, each: Any = None, workers: int = 1,
        column: str = "prompt", id: str | None = None, metadata: Sequence[str] = (), prefix: str = "tts_",
        seed: int = 0, **settings: Any,
    ) -> None:  # fmt: skip
        if budget is not None and not isinstance(budget, SharedBudget):
            raise ConfigurationError(
                f"Solve: budget={budget!r} must be a SharedBudget that the driver makes, SharedBudget(Budget(usd=20)); "
                "the limits of each solve are `each`"
            )
        if isinstance(metadata, str):
            raise ConfigurationError(f"Solve: metadata={metadata!r} must be a list of columns; pass [{metadata!r}]")
        self._column, self._id, self._metadata, self._prefix = column, id, tuple(metadata), prefix
        work = BatchWork({"model": model, "budget": each, **settings}, seed)
        self._ledger: LeasedLedger | None = None
        self._running = 0
        self._handle: Handler = run_sync(lambda: self._begin(work, budget, workers))

    def __call__(self, batch: Any) -> Any:
        """Solve a batch, and return it with new columns, in its own format; rows that fail have their `error`.

        Raises:
            DataError: a column is not there, or a new one is there already.
            ConfigurationError: it is not a batch but one row, as `map`, `flat_map` and `filter` give it.
            TTSError: no solve can succeed: a wrong key, an unknown model, a server that is down, a lost account.
        """
        problems = self._problems(batch)
        found = run_sync(lambda: self._solved(problems))
        return _with_columns(batch, {name: [row.get(name) for row in found] for name in COLUMNS}, self._prefix)

    async def _begin(self, work: BatchWork, budget: SharedBudget | None, workers: int) -> Handler:
        if budget is not None:
            share_limits(sharing(workers, budget.actor.pace.remote))
            self._ledger = leased(f"solve-{uuid.uuid4().hex[:12]}", budget.actor, budget.limits)
            await self._ledger.register()
        return work(self._ledger)

    async def _solved(self, problems: Sequence[Row | DataError]) -> list[dict[str, Any]]:
        self._running += 1
        try:
            return list(await asyncio.gather(*map(self._one, problems)))
        finally:
            self._running -= 1
            if self._ledger is not None and not self._running:
                self._ledger.return_soon()

    async def _one(self, row: Row | DataError) -> dict[str, Any]:
        if isinstance(row, DataError):  # other rows of the data set may be paid already: it is this row's alone
            return {"error": f"DataError: {row}"}
        try:
            made: dict[str, Any] = await self._handle(row)
        except OutOfBudget as error:
            made = {"error": f"BudgetExhausted: {error}"}
        if self._ledger is not None and self._ledger.failed is not None:
            raise self._ledger.failed
        if made.get("calls") is not None:
            made["tokens"] = made["prompt_tokens"] + made["completion_tokens"]
        return made

    def _problems(self, batch: Any) -> list[Row | DataError]:
        names = list(batch.column_names if hasattr(batch, "column_names") else batch)
        needed = dict.fromkeys([self._column, *filter(None, [self._id]), *self._metadata])
        for name in needed:
            if name not in names:
                raise DataError(f"Solve: there is no column {name!r}; the columns are {', '.join(map(str, names))}")
        if there := [name for name in COLUMNS if self._prefix + name in names]:
            raise DataError(
                f"Solve: there is a column {self._prefix}{there[0]} already, which would be replaced; give another "
                "`prefix`"
            )
        if isinstance(batch, Mapping) and _is_row(batch[self._column]):
            raise ConfigurationError(
                "Solve: it was given one row, as `map`, `flat_map` and `filter` do, and solves those of a batch side "
                "by side; use dataset.map_batches(Solve, batch_size=64, …)"
            )
        values = {name: _listed(batch[name]) for name in needed}
        return [self._problem(place, {name: values[name][place] for name in needed})
                for place in range(len(values[self._column]))]  # fmt: skip

    def _problem(self, place: int, value: dict[str, Any]) -> Row | DataError:
        name = place if self._id is None else value[self._id]
        where = f"row {name}, {self._column}"
        if name is None or name != name:
            return DataError(f"row {place} of its batch, {self._id}: it has no id; give each row one")
        content = value[self._column]
        if not isinstance(content, str | list):
            return DataError(f"{where}: {content!r:.60} is neither a text nor a list of chat messages")
        row = Row(str(name), content, {name: value[name] for name in self._metadata}, f"Solve: row {name}")
        try:
            row.problem()
        except TTSError as error:
            return DataError(f"{where}: {error}")
        return row


def _is_row(values: Any) -> bool:
    """Return whether this is one problem, and not a column of them."""
    if values is None or isinstance(values, str | bytes | int | float):
        return True
    return len(values) > 0 and isinstance(values[0], Mapping)  # a list of chat messages


def _listed(column: Any) -> list[Any]:
    """Return a column of any batch format as plain objects."""
    if hasattr(column, "to_pylist"):  # of pyarrow
        listed: list[Any] = column.to_pylist()
        return listed
    return [_plain(value) for value in (column.tolist() if hasattr(column, "tolist") else column)]


def _plain(value: Any) -> Any:
    """Return a value without NumPy's types, which Ray makes of lists in lists, and without those of pandas."""
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _with_columns(batch: Any, new: Mapping[str, list[Any]], prefix: str) -> Any:
    """Return a batch with more columns, whose types do not depend on its values: without any error, they are texts."""
    if isinstance(batch, Mapping):
        typed = {prefix + name: values if any(v is not None for v in values) else _array(name, values)
                 for name, values in new.items()}  # fmt: skip
        return {**{name: _whole(column) for name, column in batch.items()}, **typed}
    if hasattr(batch, "append_column"):
        for name, values in new.items():
            batch = batch.append_column(prefix + name, _array(name, values))
        return batch
    import pandas

    made = {prefix + name: pandas.arrays.ArrowExtensionArray(_array(name, values)) for name, values in new.items()}
    return batch.assign(**made)


def _whole(column: Any) -> Any:
    """Return a column as it came; lists in NumPy's form as lists, of which Ray would write the first item alone."""
    kind = getattr(getattr(column, "dtype", None), "kind", "")
    if kind != "O" or not any(hasattr(value, "tolist") for value in column):
        return column
    import pyarrow

    try:
        return pyarrow.array(_listed(column))
    except pyarrow.ArrowException:  # items of several types, which Ray pickles
        return column


def _array(name: str, values: list[Any]) -> Any:
    import pyarrow

    return pyarrow.array(values, pyarrow.type_for_alias(_TYPES[name]))
