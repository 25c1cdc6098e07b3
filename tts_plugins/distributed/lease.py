"""A ledger whose limits are a lease: more is drawn from an account elsewhere before it runs dry.

All of the engine works with it as with any `Ledger`. A solve that finds no room waits in the ledger's own queue; while
the account is asked for more, a hold of nothing stands for that message in the wait graph, so that the wait is not
refused. It is refused once the account says that what it needs can never be had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tts_plugins._concurrency.wait_graph import GRAPH, deliver
from tts_plugins.budget import Amount, Budget
from tts_plugins.distributed._open_calls import OpenCalls
from tts_plugins.distributed.account import ZERO, Ask, Grant, Limits
from tts_plugins.errors import TTSError
from tts_plugins.ledger import Balance, Hold, Ledger, Ticket

Send = Callable[[Ask], Awaitable[Grant]]
Leave = Callable[[str, Amount], Awaitable[Any]]
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_IDLE = 0.5  # seconds without anything in flight, after which what is left is returned


class _LeasedBalance(Balance):
    """Figures of a lease. What fits is decided by the lease; what can ever fit, by the account's ceiling."""

    __slots__ = ("_file", "_low", "ceiling", "marks")

    def __init__(self, budget: Budget | None, file: OpenCalls | None, low: Callable[[], None]) -> None:
        super().__init__(budget)
        self.ceiling: Limits = self.limits
        self.limits = tuple(None if limit is None else 0 for limit in self.limits)
        self.marks = self.limits  # what is left in the lease when more is drawn
        self._file, self._low = file, low

    def hold(self, amount: Amount) -> None:
        super().hold(amount)
        if self._file is not None:
            self._file.write(self.spent, self.held)
        if not self.unlimited and self._runs_low():
            self._low()

    def close(self, amount: Amount, used: Amount, over: Amount) -> None:
        super().close(amount, used, over)
        if self._file is not None:
            self._file.write(self.spent, self.held)

    def can_ever_fit(self, unit: Amount, own: Amount = ZERO) -> bool:
        for need, ceiling, spent, mine in zip(unit, self.ceiling, self.spent, own, strict=True):
            if need > 0 and ceiling is not None and need > max(ceiling - spent, mine):
                return False
        return True

    def overdrawn(self) -> bool:
        figures = zip(self.ceiling, self.spent, self.held, strict=True)
        return any(ceiling is not None and spent + held > ceiling for ceiling, spent, held in figures)

    def _runs_low(self) -> bool:
        spent, held, marks = self.spent, self.held, self.marks
        for i, limit in enumerate(self.limits):
            mark = marks[i]
            if limit is not None and mark is not None and limit - spent[i] - held[i] < mark:
                return True
        return False


class LeasedLedger(Ledger):
    """A `Ledger` of one worker, whose limits are drawn from an account that many workers share.

    Args:
        budget: the limits of the whole account.
        send: brings an `Ask` to the account.
        leave: tells the account, of this worker, what it has spent in all.
        worker: the name of this worker there.
        node, file: where what is spent and held open is written down.

    It belongs to the event loop that it is made on.
    """

    def __init__(
        self, budget: Budget | None, send: Send, leave: Leave | None = None, *, worker: str, node: str = "",
        file: OpenCalls | None = None,
    ) -> None:  # fmt: skip
        super().__init__(budget)
        self._loop, self._send, self._leave = asyncio.get_running_loop(), send, leave or _nobody
        self._lease = _LeasedBalance(budget, file, self.wanted)
        self.balance = self._lease
        self._worker, self._node, self._file = worker, node, file
        self._number = 0
        self._granted = ZERO
        self._asking: asyncio.Task[None] | None = None
        self._drawing = False
        self._mover: Hold | None = None
        self._turn = asyncio.Lock()  # one message at a time
        self._idle: asyncio.TimerHandle | None = None
        self._returning: asyncio.Task[None] | None = None
        self.failed: TTSError | None = None  # why the account cannot be asked any more

    def wanted(self) -> None:
        """Have more drawn: somebody waits for room, or the lease runs low."""
        if not self._drawing and self.failed is None and not self.balance.unlimited:
            self._drawing = True
            self._mover = self.take(ZERO, None, 0)
            self._loop.call_soon_threadsafe(self._start)

    def has_room(self, amount: Amount) -> bool:
        """Return whether an amount can be reserved, here or after more was drawn."""
        return self.balance.can_ever_fit(amount)

    async def register(self) -> None:
        """Have the account know of this worker, and where it writes down what it spends, before it spends anything."""
        async with self._turn:
            await self._exchange(returns=False, more=False)

    async def return_idle(self) -> None:
        """Return what is neither spent nor held: there is nothing to do here for now."""
        await self._drawn()
        async with self._turn:
            if self.failed is None and self._number:
                await self._exchange(returns=True, more=False)

    def return_soon(self) -> None:
        """Return what is idle, if nothing is in flight in a moment: work in small parts would ask each time."""
        if self._idle is None:
            self._idle = self._loop.call_later(_IDLE, self._return)

    def _return(self) -> None:
        self._idle = None
        if not self.open_holds and not self._drawing:
            self._returning = self._loop.create_task(self.return_idle())

    async def aclose(self) -> None:
        """Tell the account that nothing will be spent here any more; to be called when nothing is in flight."""
        if self._idle is not None:
            self._idle.cancel()
        await self._drawn()
        async with self._turn:
            if self._number and self.failed is None:
                await self._leave(self._worker, self.spent.plus(self.held))
            if self._file is not None:
                self._file.close()

    async def _drawn(self) -> None:
        """Wait until nothing is drawn any more: its hold of nothing is written down, too, when it ends."""
        while self._drawing and self.failed is None:
            await asyncio.sleep(0)  # until the task is there
            if self._asking is not None:
                await self._asking

    def _start(self) -> None:
        self._asking = self._loop.create_task(self._draw())

    async def _draw(self) -> None:
        pause = _FIRST_PAUSE
        try:
            while True:
                async with self._turn:
                    granted = await self._exchange(returns=bool(self.waits), more=True)
                if self._rested():
                    return
                pause = _FIRST_PAUSE if granted else pause
                while self.waits and not granted:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
                    if self._account_could_help():
                        break
                if self._rested():
                    return
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait have to hear of it
            self._fail(error)

    async def _exchange(self, *, returns: bool, more: bool) -> bool:
        """Send one message and take in its answer; return whether anything was granted."""
        lease, self._number = self._lease, self._number + 1
        with GRAPH.lock:
            spent, used = lease.spent, lease.spent.plus(lease.held)
            keep = Amount(*map(min, self._granted, used)) if returns else self._granted
            self._granted = keep
            lease.limits = _limited(lease.limits, keep)
            need = self._needed() if more else ZERO
        need = need.plus(used.excess(keep)) if any(need) else need
        path = "" if self._file is None else str(self._file.path)
        answer = await self._send(Ask(self._worker, self._number, spent, keep, need, more, self._node, path))
        fresh = answer.granted.minus(keep)
        with GRAPH.lock:
            self._granted = answer.granted
            lease.limits, lease.ceiling = _limited(lease.limits, answer.granted), answer.ceiling
            # Near the limit shares are small, and it is asked when somebody waits.
            early = all(got >= 16 * least for got, least in zip(fresh, need, strict=True) if least)
            lease.marks = _limited(lease.limits, Amount(*(got // 4 if early else 0 for got in fresh)))
            GRAPH.grown(self)
            answers = GRAPH.settle()
        deliver(answers)
        return any(f > 0 for f in fresh)

    def _needed(self) -> Amount:
        """Return what the first wait lacks here, to be looked at under the graph's lock."""
        if not self.waits:
            return ZERO
        first = self.waits[0]
        assert isinstance(first, Ticket)
        own = next((own for account, own in first.claim.account.chain(first.claim.within) if account is self), ZERO)
        return first.claim.need.times(1).excess(own)

    def _account_could_help(self) -> bool:
        """Return whether a wait may fit beside what is held here; else only a call that ends here can help it."""
        with GRAPH.lock:
            wants = self._needed().plus(self._lease.spent).plus(self._lease.held)
        return all(limit is None or want <= limit for want, limit in zip(wants, self._lease.ceiling, strict=True))

    def _rested(self) -> bool:
        """End the drawing if nobody waits; return whether it has ended."""
        with GRAPH.lock:
            if self.waits:
                return False
            self._drawing = False
            if self._mover is not None:
                self._mover.release()
            return True

    def _fail(self, error: Exception) -> None:
        cause = getattr(error, "cause", None) or error  # Ray wraps what its actors raise
        self.failed = TTSError(f"the account of the shared budget cannot be asked: {type(cause).__name__}: {cause}")
        with GRAPH.lock:
            self._lease.ceiling = self._lease.limits
            GRAPH.grown(self)
            answers = GRAPH.settle()
        deliver(answers)
        if self._mover is not None:
            self._mover.release()


def _limited(before: Limits, granted: Amount) -> Limits:
    return tuple(None if limit is None else got for limit, got in zip(before, granted, strict=True))


async def _nobody(worker: str, spent: Amount) -> None: ...
