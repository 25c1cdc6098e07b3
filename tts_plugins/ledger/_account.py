"""The account: nothing is spent that was not reserved, whoever spends it and on whichever thread.

A call is made inside a `Hold`. Holds nest: a candidate holds its generation and its verification, and each of
the two draws its own hold from that; a solve inside a model's function draws from the hold of that function's
call. Who finds no room may wait for others to settle, in order of arrival; the wait is refused as soon as no
hold that blocks it belongs to a call that can still end by itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from tts_plugins.budget import DIMENSIONS, PICO, Amount, Budget
from tts_plugins.errors import BudgetExhausted, ConfigurationError
from tts_plugins.ledger._hold import NOTHING, ZERO, Hold
from tts_plugins.ledger._wait_queue import Ticket, deliver, hopeless, next_answer
from tts_plugins.types import EMPTY, Usage

__all__ = ["Hold", "Ledger", "Ticket"]

_NO_LIMITS = (None,) * len(DIMENSIONS)


class Ledger:
    """An account with limits. Thread-safe; share one among as many solves as you like.

    Args:
        budget: the limits; None for an account that only counts. Its `seconds` run from the first solve.
        inside: the hold or the ledger of an enclosing solve, which pays for what is spent here.
        role: what all that is spent here is for whoever pays, "model" or "verifier"; as it was spent where left out.
    """

    def __init__(
        self, budget: Budget | None = None, *, inside: Hold | Ledger | None = None, role: str | None = None
    ) -> None:
        if budget is not None and not isinstance(budget, Budget):
            raise ConfigurationError(f"Ledger: budget={budget!r} is no Budget; pass Budget(calls=32), or None")
        self.budget = budget
        self._limits = tuple(None if budget is None else budget.limit(d) for d in DIMENSIONS)
        self._inside = inside if isinstance(inside, Hold) else None
        self._parent = inside.ledger if isinstance(inside, Hold) else inside
        # Those of the root, which all inside share. It refers to itself nowhere: so it is freed with its last use.
        self._lock: threading.RLock = threading.RLock() if self._parent is None else self._parent._lock
        # Who waits; a dict keeps the order and forgets in O(1).
        self._queue: dict[Ticket, None] = {} if self._parent is None else self._parent._queue
        self._parked: dict[Hold, Callable[[], bool]] = {}
        self._busy = 0
        self._open = 0
        self._spent = ZERO
        self._held = ZERO
        self._overshoot = ZERO
        self._usage = Usage()
        self._role = role
        self._started: float | None = None

    def __repr__(self) -> str:
        # Without figures, which change: caches use it as a key.
        inside = f"inside={self._parent!r}" if self._parent is not None else ""
        return f"Ledger({', '.join(filter(None, [repr(self.budget) if self.budget else '', inside]))})"

    def __str__(self) -> str:
        return f"{self!r}: {self._spent} spent" + (f", {self._held} held" if any(self._held) else "")

    @property
    def spent(self) -> Amount:
        """What has been charged."""
        return self._spent

    @property
    def held(self) -> Amount:
        """What is reserved by calls in flight."""
        return self._held

    @property
    def overshoot(self) -> Amount:
        """What was charged beyond its hold: zero as long as every bound was right."""
        return self._overshoot

    @property
    def usage(self) -> Usage:
        """All that was settled here, by role too."""
        return self._usage

    @property
    def root(self) -> Ledger:
        """The outermost account that pays for this one."""
        ledger: Ledger = self
        while ledger._parent is not None:
            ledger = ledger._parent
        return ledger

    @property
    def idle_queue(self) -> bool:
        """Whether nobody waits for room, on this account or those that it shares a root with."""
        return not self._queue

    @property
    def open_holds(self) -> int:
        """Holds that are neither settled nor released: zero when nothing runs."""
        return self._open

    def left(self) -> dict[str, float | None]:
        """What is neither spent nor held, for calls, tokens and usd; None where there is no limit."""
        with self._lock:
            room = [
                None if n is None else n - s - h for n, s, h in zip(self._limits, self._spent, self._held, strict=True)
            ]
        return {"calls": room[0], "tokens": room[1], "usd": None if room[2] is None else room[2] / PICO}

    def deadline(self, now: float) -> float | None:
        """When the `seconds` end, its own or a payer's, on the clock of `now`; the first call starts them."""
        outer = None if self._parent is None else self._parent.deadline(now)
        if self.budget is None or self.budget.seconds is None:
            return outer
        with self._lock:
            if self._started is None:
                self._started = now
        own = self._started + self.budget.seconds
        return own if outer is None else min(own, outer)

    def limits(self, dimension: str) -> bool:
        """Whether this account, or one that pays for it, has a limit on calls, tokens or usd."""
        mine = self.budget is not None and getattr(self.budget, dimension) is not None
        return mine or (self._parent is not None and self._parent.limits(dimension))

    def check_sound(self) -> None:
        """Before what was reserved is sent: that calls which went past their bounds have left room for it.

        Raises:
            BudgetExhausted: what is spent and what is held are together more than a limit.
        """
        if not any(any(ledger._overshoot) for ledger, _ in self._chain(None)):
            return  # as long as every bound was right, what is reserved has room
        with self._lock:
            for ledger, _ in self._chain(None):
                limits = zip(ledger._limits, ledger._spent, ledger._held, strict=True)
                if any(limit is not None and spent + held > limit for limit, spent, held in limits):
                    refusal = BudgetExhausted(
                        f"calls took more than was reserved for them, {ledger._overshoot} in all, so that others are "
                        f"not sent: of {ledger.budget} are {ledger._spent} spent and {ledger._held} held; does the "
                        "server keep max_tokens?"
                    )
                    refusal.ledger = ledger
                    raise refusal

    def reserve(self, unit: Amount, *, at_most: int = 1, within: Hold | None = None) -> Hold:
        """Hold up to `at_most` times `unit`, as many as fit now, without waiting.

        Args:
            within: a hold of this ledger to draw from before anything else.

        Raises:
            BudgetExhausted: not even one fits.
            ValueError: `within` belongs to another ledger, or `at_most` is below 1.
        """
        self._check(at_most, within)
        with self._lock:
            count = self._room(unit, at_most, within)
            if count < 1:
                raise self._refusal(unit, within)
            return self._take(unit.times(count), within, count)

    def fits(self, unit: Amount, at_most: int) -> int:
        """How many times `unit` fits now, here and for whoever pays; `at_most` at most."""
        self._check(at_most, None)
        with self._lock:
            return self._room(unit, at_most, None)

    def ask(
        self, unit: Amount, ready: Callable[[object], None], *, at_most: int = 1, within: Hold | None = None
    ) -> Ticket:
        """The same, waiting where it does not fit: `ready` gets the `Hold`, or the `BudgetExhausted`."""
        self._check(at_most, within)
        ticket = Ticket(self, unit, at_most, within, ready)
        with self._lock:
            if hopeless(self, unit, within):
                answers: list[tuple[Ticket, object]] = [(ticket, self._refusal(unit, within))]
            else:
                self._queue[ticket] = None
                self._pause(ticket.around, 1)
                answers = self._pump()
        deliver(answers)
        return ticket

    def join(self, holds: Sequence[Hold]) -> Hold:
        """One hold of all that these have left, which are closed; nobody else gets any of it in between."""
        first, *others = holds
        with self._lock:
            for hold in others:
                for into, h in zip(first._mirrors(), hold._mirrors(), strict=True):
                    into.amount, into.size = into.amount.plus(h.amount), into.size.plus(h.size)
                    h.amount = ZERO
            self._park_quietly(first, None)
        for hold in others:
            hold.release()
        return first

    def pays_for(self, other: Ledger) -> bool:
        """Whether what is spent on the other account is spent on this one too."""
        ledger: Ledger | None = other
        while ledger is not None and ledger is not self:
            ledger = ledger._parent
        return ledger is self

    def pump(self) -> None:
        """Look at all waits again: for holds that depend on something outside, such as a place in a limiter."""
        with self._lock:
            answers = self._pump()
        deliver(answers)

    def _check(self, at_most: int, within: Hold | None) -> None:
        if at_most < 1:
            raise ValueError(f"at_most={at_most} must be at least 1")
        if within is not None and within.ledger is not self:
            raise ValueError("within= is a hold of another ledger; open a Ledger(inside=hold) to draw on it")

    # What follows runs under the lock.

    def _chain(self, within: Hold | None) -> Iterator[tuple[Ledger, Hold | None]]:
        ledger: Ledger | None = self
        while ledger is not None:
            yield ledger, within
            # What is drawn from a hold here is drawn, for whoever pays, from what mirrors that hold there.
            within = ledger._inside if within is None else within.mirror
            ledger = ledger._parent

    def _fit(self, unit: Amount, at_most: int, within: Hold | None) -> int:
        if self._limits == _NO_LIMITS:
            return at_most
        count, drawable = at_most, within.amount if within is not None and within.open else ZERO
        for need, limit, spent, held, own in zip(unit, self._limits, self._spent, self._held, drawable, strict=True):
            if need > 0 and limit is not None:
                count = min(count, (max(limit - spent - held, 0) + own) // need)
        return count

    def _room(self, unit: Amount, at_most: int, within: Hold | None) -> int:
        if self._parent is None:
            return self._fit(unit, at_most, within)
        return min(ledger._fit(unit, at_most, hold) for ledger, hold in self._chain(within))

    def _refusal(self, unit: Amount, within: Hold | None) -> BudgetExhausted:
        ledger = next(x for x, hold in self._chain(within) if x._fit(unit, 1, hold) < 1)
        budget = {} if ledger.budget is None else ledger.budget.to_dict()
        limits = ", ".join(f"{name}={value}" for name, value in budget.items() if name != "seconds")
        uses = ((ledger._spent, "spent"), (ledger._held, "held"))
        if taken := [f"{amount} {what}" for amount, what in uses if any(amount)]:
            why = f"has no room for a call that may take {unit}: of it are {' and '.join(taken)}"
        else:
            why = f"is too small for a single call, which may take {unit} (prompt, max_tokens and verification)"
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
        self._held = self._held.plus(fresh)
        self._busy += 1
        self._open += 1
        return Hold(self, amount, within, mirror, units)

    def _close(self, hold: Hold, usage: Usage, *, bounded: bool = True) -> Amount | None:
        free = usage is NOTHING or usage == NOTHING
        used = ZERO if free else Amount.used(usage)
        with self._lock:
            if not hold.open:
                return None
            # What was drawn from it has been held, and is charged, apart: only the rest covers this.
            over = ZERO if free else used.excess(hold.amount)
            over = over if bounded else Amount(over.calls)
            self._park_quietly(hold, None)
            for h in hold._mirrors():
                ledger, h.open = h.ledger, False
                ledger._held = ledger._held.minus(h.amount)
                ledger._open -= 1
                ledger._busy -= 0 if h._paused else 1
                if h.within is not None:
                    h.within.inside += h.inside if free else [*h.inside, usage]
                if not free:
                    ledger._spent = ledger._spent.plus(used)
                    ledger._overshoot = ledger._overshoot.plus(over)
                    ledger._usage = ledger._usage + usage
                    if ledger._role is not None:
                        usage = replace(usage, by_role=EMPTY).of_role(ledger._role)
            answers = self._pump() if self._queue else []
        deliver(answers)
        return over

    def _enclosing(self) -> Hold | None:
        ledger: Ledger | None = self
        while ledger is not None and ledger._inside is None:
            ledger = ledger._parent
        return None if ledger is None else ledger._inside

    def _pause(self, hold: Hold | None, by: int) -> None:
        """Holds that enclose a wait cannot end by themselves: neither they nor what they are drawn from."""
        while hold is not None:
            for h in hold._mirrors():
                was, h._paused = h._paused > 0, h._paused + by
                if h.open and was != (h._paused > 0):
                    h.ledger._busy += 1 if was else -1
            hold = hold.within or hold.ledger._enclosing()

    def _park(self, hold: Hold, can_progress: Callable[[], bool] | None) -> None:
        with self._lock:
            self._park_quietly(hold, can_progress)
            answers = self._pump()  # what is no longer parked may still be blocked
        deliver(answers)

    def _park_quietly(self, hold: Hold, can_progress: Callable[[], bool] | None) -> None:
        if (can_progress is not None) == (hold in self._parked) or not hold.open:
            return
        for h in hold._mirrors():
            if can_progress is None:
                del h.ledger._parked[h]
            else:
                h.ledger._parked[h] = can_progress
        self._pause(hold, -1 if can_progress is None else 1)

    def _cancel(self, ticket: Ticket) -> None:
        with self._lock:
            if ticket not in self._queue:
                return
            del self._queue[ticket]
            self._pause(ticket.around, -1)
            answers = self._pump()
        deliver(answers)

    def _pump(self) -> list[tuple[Ticket, object]]:
        """Answer the waits that can be answered, in order of arrival for each account."""
        answers: list[tuple[Ticket, object]] = []
        while (ticket := next_answer(self.root)) is not None:
            del self._queue[ticket]
            self._pause(ticket.around, -1)
            answers.append((ticket, ticket.ledger._answer(ticket)))
        return answers

    def _answer(self, ticket: Ticket) -> Hold | BudgetExhausted:
        count = self._room(ticket.unit, ticket.at_most, ticket.within)
        if count < 1:
            return self._refusal(ticket.unit, ticket.within)
        return self._take(ticket.unit.times(count), ticket.within, count)
