"""The account: nothing is spent that was not reserved, whoever spends it and on whichever thread.

A call is made inside a `Hold`. Holds nest: a candidate holds its generation and its verification, and each of the two
draws its own hold from that; a solve inside a model's function draws from the hold of that function's call. Who finds
no room may wait for others to settle, in order of arrival.

Invariants of an account, under the lock of the wait graph:

1. What is held is the sum of the amounts of its open holds; what was drawn from a hold is no longer part of its amount.
2. Spent and held are together at most the limit, and the overshoot: what was charged beyond its hold.
3. Each hold has a mirror in the account that pays for this one, with the same amount, and is closed with it. So 1 and
   2 hold there too, and nothing that is spent inside is free outside.

Why no wait for room lasts for ever is the matter of `_concurrency.wait_graph`, whose resource an account is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NoReturn

from tts_plugins._concurrency import forks
from tts_plugins._concurrency.wait_graph import GRAPH, Wait, deliver
from tts_plugins.budget import Amount, Budget, Need
from tts_plugins.errors import BudgetExhausted, ConfigurationError
from tts_plugins.ledger._balance import ZERO, Balance
from tts_plugins.ledger._hold import NOTHING, Account, Hold
from tts_plugins.types import EMPTY, Usage

__all__ = ["Hold", "Ledger", "Ticket"]


class Ticket(Wait):
    """A wait for room. `ready` is called once, on any thread, with a hold or with the refusal."""

    __slots__ = ("at_most", "ledger", "unit", "within")

    def __init__(
        self,
        ledger: Ledger,
        unit: Need,
        at_most: int,
        within: Hold | None,
        around: Hold | None,
        ready: Callable[[object], None],
    ) -> None:
        around = around or within or ledger.enclosing()
        super().__init__(ready, () if around is None else around.enclosers())
        self.ledger, self.unit, self.at_most, self.within = ledger, unit, at_most, within

    def ended(self) -> None:
        """Hear that it has left its queue."""
        self.ledger._queue.discard(self)


class Ledger(Account):
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
        super().__init__()
        if budget is not None and not isinstance(budget, Budget):
            raise ConfigurationError(f"Ledger: budget={budget!r} is no Budget; pass Budget(calls=32), or None")
        self.budget = budget
        self._balance = Balance(budget)
        self._inside = inside if isinstance(inside, Hold) else None
        self._around = self._inside or around
        payer = inside.ledger if isinstance(inside, Hold) else inside
        assert payer is None or isinstance(payer, Ledger)
        self._parent: Ledger | None = payer
        # Of the root, which all inside share: who waits. It refers to itself nowhere, so it is freed with its last use.
        self._queue: set[Ticket] = set() if payer is None else payer._queue
        self._process: int = forks.process() if payer is None else payer._process
        self._usage = Usage()
        self._role = role
        self._started: float | None = None
        self.escaped = 0  # solves that ran on threads of a function of the user's, without this account

    def __repr__(self) -> str:
        # Without figures, which change: caches use it as a key.
        inside = f"inside={self._parent!r}" if self._parent is not None else ""
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
        return self._balance.spent

    @property
    def held(self) -> Amount:
        """What is reserved by calls in flight."""
        return self._balance.held

    @property
    def overshoot(self) -> Amount:
        """What was charged beyond its hold: zero as long as every bound was right."""
        return self._balance.overshoot

    @property
    def usage(self) -> Usage:
        """All that was settled here, by role too."""
        return self._usage

    @property
    def root(self) -> Ledger:
        """The outermost account that pays for this one."""
        return self if self._parent is None else self._parent.root

    @property
    def idle_queue(self) -> bool:
        """Whether nobody waits for room, on this account or those that it shares a root with."""
        return not self._queue

    @property
    def open_holds(self) -> int:
        """Holds that are neither settled nor released: zero when nothing runs."""
        return self.holders

    def left(self) -> dict[str, float | None]:
        """What is neither spent nor held, for calls, tokens and usd; None where there is no limit."""
        self._check_process()
        with GRAPH.lock:
            return self._balance.left()

    def deadline(self, now: float) -> float | None:
        """When the `seconds` end, its own or a payer's, on the clock of `now`; the first call starts them."""
        outer = None if self._parent is None else self._parent.deadline(now)
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
        return mine or (self._parent is not None and self._parent.limits(dimension))

    def pays_for(self, other: Ledger) -> bool:
        """Whether what is spent on the other account is spent on this one too."""
        return other is self or (other._parent is not None and self.pays_for(other._parent))

    def check_sound(self) -> None:
        """Before what was reserved is sent: that calls which went past their bounds have left room for it.

        Raises:
            BudgetExhausted: what is spent and what is held are together more than a limit.
        """
        if not any(any(ledger.overshoot) for ledger, _ in self._chain(None)):
            return  # as long as every bound was right, what is reserved has room
        with GRAPH.lock:
            for ledger, _ in self._chain(None):
                if ledger._balance.overdrawn():
                    refusal = BudgetExhausted(
                        f"calls took more than was reserved for them, {ledger.overshoot} in all, so that others are "
                        f"not sent: of {ledger.budget} are {ledger.spent} spent and {ledger.held} held; does the "
                        "server keep max_tokens?"
                    )
                    refusal.ledger = ledger
                    raise refusal

    def reserve(self, unit: Amount | Need, *, at_most: int = 1, within: Hold | None = None) -> Hold:
        """Hold up to `at_most` times `unit`, as many as fit now, without waiting.

        Args:
            unit: what one takes; or what several take each, and once for all.
            within: a hold of this ledger to draw from before anything else.

        Raises:
            BudgetExhausted: not even one fits.
            ValueError: `within` belongs to another ledger, or `at_most` is below 1.
        """
        self._check(at_most, within)
        need = _need(unit)
        with GRAPH.lock:
            count = self._room(need, at_most, within)
            if count < 1:
                raise self._refusal(need, within)
            return self._take(need.times(count), within, count)

    def fits(self, unit: Amount | Need, at_most: int) -> int:
        """How many times `unit` fits now, here and for whoever pays; `at_most` at most."""
        self._check(at_most, None)
        with GRAPH.lock:
            return self._room(_need(unit), at_most, None)

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
            around: the hold of the call that waits, where it is another one than `within`: it cannot end meanwhile.
        """
        self._check(at_most, within)
        ticket = Ticket(self, _need(unit), at_most, within, around, ready)
        with GRAPH.lock:
            if not self._chain_can_ever_fit(ticket.unit, within):
                GRAPH.answer(ticket, self._refusal(ticket.unit, within))
            elif (at := self._blocker(ticket)) is None:
                GRAPH.answer(ticket, self._grant(ticket))
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

    def _check(self, at_most: int, within: Hold | None) -> None:
        self._check_process()
        if at_most < 1:
            raise ValueError(f"at_most={at_most} must be at least 1")
        if within is not None and within.ledger is not self:
            raise ValueError("within= is a hold of another ledger; open a Ledger(inside=hold) to draw on it")

    def _check_process(self) -> None:
        if self._process != forks.process():
            raise ConfigurationError(
                f"{self.root!r} belongs to process {self._process}, and this is process {forks.process()}: what is "
                f"spent here would not be counted there; {_SHARED}"
            )

    # What follows runs under the lock of the graph.

    def enclosing(self) -> Hold | None:
        """The hold that a solve on this account runs inside of."""
        ledger: Ledger | None = self
        while ledger is not None and ledger._around is None:
            ledger = ledger._parent
        return None if ledger is None else ledger._around

    def serve(self) -> None:
        """Answer the waits that stand here, in order of arrival, as far as there is room."""
        while self.waits:
            ticket = self.waits[0]
            assert isinstance(ticket, Ticket)
            at = ticket.ledger._blocker(ticket)
            if at is None:
                GRAPH.answer(ticket, ticket.ledger._grant(ticket))
            elif at is not self:
                GRAPH.move(ticket, at)
            elif not ticket.ledger._chain_can_ever_fit(ticket.unit, ticket.within):
                self.give_up(ticket)
            else:
                return

    def let_pass(self, wait: Wait) -> bool:
        """Serve the wait before its turn where there is room for it."""
        assert isinstance(wait, Ticket)
        if wait.ledger._full(wait) is not None:
            return False
        GRAPH.answer(wait, wait.ledger._grant(wait))
        return True

    def give_up(self, wait: Wait) -> None:
        """Refuse the wait."""
        assert isinstance(wait, Ticket)
        GRAPH.answer(wait, wait.ledger._refusal(wait.unit, wait.within))

    def close(self, hold: Hold, usage: Usage, *, bounded: bool = True) -> Amount | None:
        """Charge a hold and give back the rest; return what went beyond it, None where it is closed already."""
        if self._process != forks.process():
            return ZERO  # of a call that the parent process makes, and settles
        free = usage is NOTHING or usage == NOTHING
        used = ZERO if free else Amount.used(usage)
        with GRAPH.lock:
            if not hold.open:
                return None
            # What was drawn from it has been held, and is charged, apart: only the rest covers this.
            over = ZERO if free else used.excess(hold.amount)
            over = over if bounded else Amount(over.calls)
            h: Hold | None = hold
            while h is not None:
                ledger = h.ledger
                assert isinstance(ledger, Ledger)
                balance = ledger._balance
                balance.held = balance.held.minus(h.amount)
                if h.within is not None:
                    h.within.inside += h.inside if free else [*h.inside, usage]
                if not free:
                    balance.charge(used, over)
                    ledger._usage = ledger._usage + usage
                    if ledger._role is not None:
                        usage = replace(usage, by_role=EMPTY).of_role(ledger._role)
                GRAPH.closed(h)
                h = h.mirror
            answers = GRAPH.settle()
        if answers:
            deliver(answers)
        return over

    def _chain(self, within: Hold | None) -> Iterator[tuple[Ledger, Hold | None]]:
        ledger: Ledger | None = self
        while ledger is not None:
            yield ledger, within
            # What is drawn from a hold here is drawn, for whoever pays, from what mirrors that hold there.
            within = ledger._inside if within is None else within.mirror
            ledger = ledger._parent

    def _room(self, unit: Need, at_most: int, within: Hold | None) -> int:
        for ledger, hold in self._chain(within):
            at_most = ledger._balance.fit(unit, at_most, _own(hold))
        return at_most

    def _chain_can_ever_fit(self, unit: Need, within: Hold | None) -> bool:
        return all(x._balance.can_ever_fit(unit.times(1), _own(hold)) for x, hold in self._chain(within))

    def _full(self, ticket: Ticket) -> Ledger | None:
        """The first account that has no room for what is waited for."""
        chain = self._chain(ticket.within)
        return next((x for x, hold in chain if x._balance.fit(ticket.unit, 1, _own(hold)) < 1), None)

    def _blocker(self, ticket: Ticket) -> Ledger | None:
        """Where it has to wait: at an account without room, or behind who came before; None where it need not."""
        if (full := self._full(ticket)) is not None:
            return full
        for ledger, hold in self._chain(ticket.within):
            # What an enclosing hold covers takes no room from those that came before.
            if (
                ledger.waits
                and ledger.waits[0].number < ticket.number
                and ticket.unit.times(1).excess(_own(hold)) != ZERO
            ):
                return ledger
        return None

    def _refusal(self, unit: Need, within: Hold | None) -> BudgetExhausted:
        chain = self._chain(within)
        ledger = next((x for x, hold in chain if x._balance.fit(unit, 1, _own(hold)) < 1), self)
        budget = {} if ledger.budget is None else ledger.budget.to_dict()
        limits = ", ".join(f"{name}={value}" for name, value in budget.items() if name != "seconds")
        uses = ((ledger.spent, "spent"), (ledger.held, "held"))
        if taken := [f"{amount} {what}" for amount, what in uses if any(amount)]:
            why = f"has no room for a call that may take {unit.times(1)}: of it are {' and '.join(taken)}"
        else:
            why = (
                f"is too small for a single call, which may take {unit.times(1)} (prompt, max_tokens and verification)"
            )
        refusal = BudgetExhausted(f"the budget ({limits}) {why}; raise the limit or lower max_tokens or n")
        refusal.ledger = ledger
        return refusal

    def _take(self, amount: Amount, within: Hold | None, units: int) -> Hold:
        outer = self._inside if within is None else within.mirror
        mirror = None if self._parent is None else self._parent._take(amount, outer, units)
        fresh = amount
        if within is not None and within.open:
            fresh = amount.excess(within.amount)
            within.amount = within.amount.excess(amount)
        self._balance.held = self._balance.held.plus(fresh)
        hold = Hold(self, amount, within, mirror, units)
        GRAPH.opened(hold)
        return hold

    def _grant(self, ticket: Ticket) -> Hold:
        count = self._room(ticket.unit, ticket.at_most, ticket.within)
        return self._take(ticket.unit.times(count), ticket.within, count)


_SHARED = (
    "open a Ledger in each process, or share one account between processes: `tts-plugins serve` keeps one for all of "
    "its clients, and tts_plugins.distributed one for a Ray cluster"
)


def _need(unit: Amount | Need) -> Need:
    return unit if isinstance(unit, Need) else Need(unit)


def _own(hold: Hold | None) -> Amount:
    return hold.amount if hold is not None and hold.open else ZERO
