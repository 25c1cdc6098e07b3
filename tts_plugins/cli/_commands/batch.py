"""`tts-plugins batch`: the problems of a file, solved once each, into a file."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tts_plugins.batch.journal import Journal
from tts_plugins.batch.rows import Row, kind_of, read_rows, write_rows
from tts_plugins.batch.runner import BatchReport, BatchWork, run_batch
from tts_plugins.budget import Budget
from tts_plugins.cli._arguments import build as _build
from tts_plugins.cli._arguments import options
from tts_plugins.cli._arguments.engine import EngineGroup, say_repeated
from tts_plugins.cli._arguments.groups import BudgetGroup, ModelGroup, grouped, recorded
from tts_plugins.cli._display.console import (
    EVERY,
    Debug,
    Download,
    Json,
    check_writable,
    complain,
    emit,
    errors,
    resumable,
    say,
    start_local,
    stderr,
)
from tts_plugins.engine import Factory, LocalEngine
from tts_plugins.engine.many import Engine
from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.profiles import load_profile

Profile = Annotated[
    str,
    options.SEARCH(
        "The profile: strategy, verifier and the budget of each problem, from pyproject.toml or tts-plugins.toml.",
        metavar="NAME",
    ),
]


@grouped
def batch(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help='JSONL or Parquet: "id", "prompt" or "messages", and other fields.')
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="JSONL or Parquet: a row for each problem, in order.")],
    profile: Profile,
    limit: options.Limit = None,
    model: ModelGroup = ModelGroup(),
    concurrency: options.Concurrency = 64,
    attempts: options.Attempts = 4,
    machines: EngineGroup = EngineGroup(),
    candidates: Annotated[bool, options.OUTPUT("Write all candidates, too.", "--candidates")] = False,
    limits: BudgetGroup = BudgetGroup(),
    as_json: Json = False,
    quiet: options.Quiet = False,
    debug: Debug = False,
) -> None:
    """Solve every problem of a file, once, and write the results in their order.

    Each result is kept in OUT.journal as it comes: the same command resumes where it was ended or killed, and tries
    again what failed. The four --budget-… options limit the whole batch, all starts together; OUT.account remembers.

    [dim]tts-plugins batch in.jsonl out.jsonl --profile careful --model m --base-url http://127.0.0.1:8000/v1[/]

    [dim]tts-plugins batch in.parquet out.parquet --profile careful --engine ray --workers 8 --budget-usd 20 …[/]

    Exit code: 0 done, 1 error or a problem that failed, 2 wrong option, 3 the budget ended it, 130 interrupted.
    """  # fmt: skip
    with errors(debug):
        for path, option in ((source, "IN"), (out, "OUT")):
            kind_of(path, option)
        check_writable(out, "OUT")
        if out.exists() and source.exists() and out.samefile(source):
            raise ConfigurationError(f"OUT {out} is the file of the problems, which it would replace; give another")
        named = model.settings()
        total = limits.budget()
        journal_path, account = (out.with_name(f"{out.name}.{end}") for end in ("journal", "account"))
        chosen = load_profile(profile)
        if chosen.lacks is not None:
            raise ConfigurationError(f"batch: {chosen.lacks}")
        settings = {**chosen.settings(), "attempts": attempts}
        seed = settings.pop("seed", 0)
        download = Download(stderr(), quiet=quiet)
        if machines.engine == "local":
            settings["model"] = generator = _build.model_of(progress=download, **named)
            _build.check_key(generator, model.base_url, model.api_key_env)
            start_local(download, generator)
        else:
            settings["model"] = Factory(made_there, named)
        work = BatchWork(settings, seed, candidates)
        config = {**recorded(named), "profile": {k: repr(v) for k, v in chosen.settings().items()},
                  "candidates": candidates}  # fmt: skip
        if not journal_path.exists() and out.exists() and out.stat().st_size:
            raise ConfigurationError(
                f"OUT {out} exists, and {journal_path.name}, from which it would be made, does not: it would be "
                "replaced, and all of it paid again; move it away, or give another"
            )
        with Journal(journal_path, config) as journal:
            rows = journal.register(read_rows(source, limit=limit))
            if not rows:
                raise DataError(f"{source}: there is no problem in it; write a row for each")
            where = machines.make(concurrency, budget=total, account=account)
            view = _View(journal, rows, quiet=quiet)
            todo = view.timed(read_rows(source, limit=limit))
            report = asyncio.run(_run(todo, journal, work, where, concurrency, total, account, view))
            write_rows(out, journal.results())
        say_repeated(where)
        _tell(report, out, as_json=as_json, quiet=quiet)


def made_there(named: Mapping[str, Any]) -> Any:
    """Make the model on a worker."""
    return _build.model_of(progress=lambda done, total: None, **named)


async def _run(
    rows: Iterator[Row], journal: Journal, work: BatchWork, engine: Engine | None, concurrency: int,
    total: Budget | None, account: Path, view: _View,
) -> BatchReport:  # fmt: skip
    async with contextlib.AsyncExitStack() as stack:
        ledger = None
        if engine is None:
            close = getattr(work.settings["model"], "aclose", None)
            if close is not None:
                stack.push_async_callback(close)
            if total is not None:
                from tts_plugins.distributed.local_account import local_account

                ledger = await stack.enter_async_context(local_account(total, account))
        with resumable(journal.path):
            return await run_batch(
                rows, journal, work, engine=engine or LocalEngine(concurrency), ledger=ledger, on_result=view.add
            )


class _View:
    """A line on stderr every few seconds."""

    def __init__(self, journal: Journal, rows: int, *, quiet: bool) -> None:
        self._quiet, self._rows, self._fresh = quiet, rows, 0
        self._started = self._reported = time.monotonic()
        self._before, failed = journal.counts()
        if (others := journal.others()) and not quiet:
            say(f"{others:,} results are of problems that are not in this input; they stay in {journal.path} alone")
        if self._before and not quiet:
            again = f", and {failed} that failed are tried again" if failed else ""
            say(f"{self._before:,} of {rows:,} problems are solved already{again}")

    def timed(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Yield the rows; the clock starts with the first, which a cluster takes once its workers are there."""
        self._started = time.monotonic()
        yield from rows

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one more result."""
        self._fresh += 1
        now = time.monotonic()
        if not self._quiet and now - self._reported > EVERY:
            self._reported = now
            pace = self._fresh / (now - self._started)
            say(f"{self._before + self._fresh:,} of {self._rows:,}; {pace:.1f} a second")


def _tell(report: BatchReport, out: Path, *, as_json: bool, quiet: bool) -> None:
    said = {"rows": report.rows, "solved": report.solved, "failed": report.failed, "fresh": report.fresh,
            "complete": report.complete, "out": str(out)}  # fmt: skip
    if as_json:
        emit(said)
    elif not quiet:
        say(f"{out}: {report.solved:,} of {report.rows:,} problems solved, {report.failed:,} failed")
    if not report.complete:
        complain("the budget of the whole batch ended it; the same command with a larger one goes on")
        raise typer.Exit(3)
    if report.failed:
        complain(f"{report.failed:,} problems failed; {out} says why of each, and the same command tries them again")
        raise typer.Exit(1)
