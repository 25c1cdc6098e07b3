"""The account of leases without a cluster: one process, and a file from which it is restored after `kill -9`."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

from tts_plugins.budget import Amount, Budget
from tts_plugins.distributed._open_calls import OpenCalls
from tts_plugins.distributed.account import Account, Ask, Grant
from tts_plugins.distributed.lease import LeasedLedger


@contextlib.asynccontextmanager
async def local_account(budget: Budget, path: str | Path) -> AsyncIterator[LeasedLedger]:
    """Open a ledger that remembers in a file what it has spent, also where its process is killed.

    What calls in flight may have cost is charged when the file is opened again.

    Raises:
        DataError: the file cannot be used.
        BudgetExhausted: nothing is left of the limits.
    """
    path, name = Path(path), f"local-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    account = Account(budget, path, own=(name,))
    try:
        account.bury()
        account.check_left(str(path))

        async def send(ask: Ask) -> Grant:
            return account.ask(ask)

        async def leave(worker: str, spent: Amount) -> None:
            account.leave(worker, spent)

        calls = OpenCalls(path.with_name(f"{path.name}.{name}"))
        ledger = LeasedLedger(budget, send, leave, worker=name, file=calls)
        yield ledger
        await ledger.aclose()
        if ledger.failed is not None:
            raise ledger.failed
    finally:
        account.close()
