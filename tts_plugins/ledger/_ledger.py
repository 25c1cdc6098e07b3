"""The account: nothing is spent that was not reserved, whoever spends it and on whichever thread.

A call is made inside a `Hold`. Holds nest: a candidate holds its generation and its verification, and each of the two
draws its own hold from that; a solve inside a model's function draws from the hold of that function's call. Who finds
no room may wait for others to settle, in order of arrival. The invariants stand at `TreeAccount`, and why nobody waits
for ever in `_concurrency.wait_graph`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn

from tts_plugins._concurrency import forks
from tts_plugins._concurrency.wait_graph import GRAPH, deliver
from tts_plugins.budget import ZERO, Amount, Budget, Need
from tts_plugins.errors import BudgetExhausted, ConfigurationError
from tts_plugins.ledger._account import TreeAccount
from tts_plugins.ledger._hold import Account, Hold
from tts_plugins.ledger._ticket import Claim, Ticket
from tts_plugins.types import Usage

_SHARED = (
    "open a Ledger in each process, or share one account between processes: `tts-plugins serve` keeps one for all of "
    "its clients, and tts_plugins.distributed one for a Ray cluster; a process forked inside of a solve has its "
    "account, so let it be started before, or by the method 'spawn'"
)


class Ledger(TreeAccount):
    """An account with limits. Thread-safe; share one among as many solves as you like, in one process.

    Args:
        budget: the limits; None for an account that only counts. Its `seconds` run from the first solve.
        inside: the hold or the ledger of an enclosing solve, which pays for what is spent here.
        role: what all that is spent here is for whoever pays, "model" or "verifier"; as it was spent where left out.
        around: the hold of a call that cannot end before what is spent here, where that call does not pay for it.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        *,
        inside: Hold | Ledger | None = None,
        role: str | None = None,
        around: Hold | None = None,
    ) -> None:
        if budget is not None and not isinstance(budget, Budget):
            raise ConfigurationError(f"Ledger: budget={budget!r} is not a Budget; pass Budget(calls=32), or None")
        hold = inside if isinstance(inside, Hold) else None
        payer = inside.ledger if isinstance(inside, Hold) else inside
        assert payer is None or isinstance(payer, Ledger)
        super().__init__(budget, payer, hold, around)
        self.budget = budget
        # Of the root, which all inside share: who waits. It refers to itself nowhere, so it is freed with its last use.
        self._queue: set[Ticket] = set() if payer is None else payer._queue
        self.role = role
        self._started: float | None = None
        self.escaped = 0  # solves that ran on threads of a function of the user's, without this account
        self.cut_inside = False  # whether a solve inside ended early, since this account or a payer had no room

    def __repr__(self) -> str:
        # Without figures, which change: caches use it as a key.
        inside = f"inside={self.payer!r}" if self.payer is not None else ""
        return f"Ledger({', '.join(filter(None, [repr(self.budget) if self.budget else '', inside]))})"

    def __str__(self) -> str:
        return f"{self!r}: {self.spent} spent" + (f", {self.held} held" if any(self.held) else "")

    def __reduce__(self) -> NoReturn:
        raise ConfigurationError(
            f"{self!r} cannot be pickled: an account is one, and a copy in another process would spend it twice; "
            f"{_SHARED}"
        )

    def __copy__(self) -> Ledger:
        return self

    def __deepcopy__(self, memo: object) -> Ledger:
        return self  # a copy of a module or a chain spends from the same account

    @property
    def spent(self) -> Amount:
        """What has been charged."""
        return self.balance.spent

    @property
    def held(self) -> Amount:
        """What is reserved by calls in flight."""
        return self.balance.held

    @property
    def overshoot(self) -> Amount:
        """What was charged beyond its hold: zero as long as every bound was right."""
        return self.balance.overshoot

    @property
    def usage(self) -> Usage:
        """All that was settled here, by role too."""
        with GRAPH.lock:
            return self.balance.total()

    @property
    def root(self) -> Ledger:
        """The outermost account that pays for this one."""
        return self if self._payer is None else self._payer.root

    @property
    def _payer(self) -> Ledger | None:
        assert self.payer is None or isinstance(self.payer, Ledger)
        return self.payer

    @property
    def idle_queue(self) -> bool:
        """Whether nobody waits for room, on this account or those that it shares a root with."""
        return not self._queue

    @property
    def open_holds(self) -> int:
        """Holds that are neither settled nor released: zero when nothing runs."""
        return self.holders + self.passing

    def left(self) -> dict[str, float | None]:
        """What is neither spent nor held, for calls, tokens and usd; None where there is no limit."""
        self._check_process()
        with GRAPH.lock:
            return self.balance.left()

    def deadline(self, now: float) -> float | None:
        """When the `seconds` end, its own or a payer's, on the clock of `now`; the first call starts them."""
        outer = None if self._payer is None else self._payer.deadline(now)
        if self.budget is None or self.budget.seconds is None:
            return outer
        with GRAPH.lock:
            if self._started is None:
                self._started = now
        own = self._started + self.budget.seconds
        return own if outer is None else min(own, outer)

    def limits(self, dimension: str) -> bool:
        """Whether this account, or one that pays for it, has a limit on calls, tokens or usd."""
        mine = self.budget is not None and getattr(self.budget, dimension) is not None
        return mine or (self._payer is not None and self._payer.limits(dimension))

    def pays_for(self, other: Ledger) -> bool:
        """Whether what is spent on the other account is spent on this one too."""
        return any(account is self for account, _ in other.chain(None))

    def check_sound(self) -> None:
        """Before what was reserved is sent: that calls which went past their bounds have left room for it.

        Raises:
            BudgetExhausted: what is spent and what is held are together more than a limit.
        """
        account: Account | None = self
        while account is not None and account.balance.overshoot == ZERO:
            account = account.payer
        if account is None:
            return  # as long as every bound was right, what is reserved has room
        with GRAPH.lock:
            for payer, _ in self.chain(None):
                balance = payer.balance
                if balance.overdrawn():
                    refusal = BudgetExhausted(
                        f"calls took more than was reserved for them, {balance.overshoot} in all, so that others are "
                        f"not sent: of {balance.budget} are {balance.spent} spent and {balance.held} held; does the "
                        "server keep max_tokens?"
                    )
                    refusal.ledger = payer
                    raise refusal

    def reserve(self, unit: Amount | Need, *, at_most: int = 1, within: Hold | None = None) -> Hold:
        """Hold up to `at_most` times `unit`, as many as fit now, without waiting.

        Args:
            unit: what one takes; or what several take each, and once for all.
            at_most: how many, at least 1.
            within: a hold of this ledger to draw from before anything else.

        Raises:
            BudgetExhausted: not even one fits.
            ValueError: `within` belongs to another ledger, or `at_most` is below 1.
        """
        claim = Claim(self, unit, at_most, within)
        self._check_process()
        with GRAPH.lock:
            answer = claim.answer()
        if isinstance(answer, Hold):
            return answer
        try:
            raise answer
        finally:
            del answer  # its traceback has this frame: it would refer to itself, and be freed late

    def fits(self, unit: Amount | Need, at_most: int) -> int:
        """Return how many times `unit` fits now, here and in the accounts that pay; at most `at_most`."""
        claim = Claim(self, unit, at_most, None)
        self._check_process()
        with GRAPH.lock:
            return claim.room()

    def has_room(self, amount: Amount) -> bool:
        """Return whether an amount can be reserved."""
        return self.fits(amount, 1) > 0

    def ask(
        self,
        unit: Amount | Need,
        ready: Callable[[object], None],
        *,
        at_most: int = 1,
        within: Hold | None = None,
        around: Hold | None = None,
    ) -> Ticket:
        """Reserve, waiting where it does not fit: `ready` gets the `Hold`, or the `BudgetExhausted`.

        Args:
            unit, at_most, within: as for `reserve`.
            ready: called once, with the lock of no account held.
            around: the hold of the call that waits, where it is another one than `within`: it cannot end meanwhile.
        """
        claim = Claim(self, unit, at_most, within)
        self._check_process()
        ticket = _Queued(claim, around, ready)
        with GRAPH.lock:
            if not claim.can_ever_fit():
                GRAPH.answer(ticket, claim.refusal())
            elif (at := ticket.blocker()) is None:
                GRAPH.answer(ticket, claim.answer())
            else:
                self._queue.add(ticket)
                GRAPH.begin(ticket, at)
            answers = GRAPH.settle()
        deliver(answers)
        return ticket

    def join(self, holds: Sequence[Hold]) -> Hold:
        """One hold of all that these have left, which are closed; nobody else gets any of it in between."""
        first, *others = holds
        with GRAPH.lock:
            for hold in others:
                for into, h in zip(first.mirrors(), hold.mirrors(), strict=True):
                    into.amount, into.size = into.amount.plus(h.amount), into.size.plus(h.size)
                    h.amount = ZERO
            GRAPH.stir(first)
        for hold in others:
            hold.release()
        return first

    def _check_process(self) -> None:
        if self._process != forks.pid:
            raise ConfigurationError(
                f"{self.root!r} belongs to process {self._process}, and this is process {forks.pid}: what is "
                f"spent here would not be counted there; {_SHARED}"
            )


class _Queued(Ticket):
    """A ticket that its root knows of."""

    __slots__ = ()

    def ended(self) -> None:
        """Hear that it has left its queue."""
        account = self.claim.account
        assert isinstance(account, Ledger)
        account._queue.discard(self)
