"""The account: nothing is spent that was not reserved, whoever spends it and on whichever thread.

A call is made inside a `Hold`. Holds nest: a candidate holds its generation and its verification, and each of
the two draws its own hold from that; a solve inside a model's function draws from the hold of that function's
call. Who finds no room may wait for others to settle, in order of arrival; the wait is refused as soon as no
hold that blocks it belongs to a call that can still end by itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from tts_plugins.budget import DIMENSIONS, PICO, Amount, Budget
from tts_plugins.errors import BudgetExhausted
from tts_plugins.types import Usage

ZERO = Amount()
NOTHING = Usage()


class Hold:
    """A reserved amount, settled once. What is drawn inside it no longer counts as its own."""

    __slots__ = ("_paused", "amount", "ledger", "mirror", "open", "size", "units", "within")

    def __init__(self, ledger: Ledger, amount: Amount, within: Hold | None, mirror: Hold | None, units: int) -> None:
        self.ledger = ledger
        self.size = amount
        self.amount = amount
        self.within = within
        self.mirror = mirror
        self.units = units
        self.open = True
        self._paused = 0

    def settle(self, usage: Usage) -> Amount:
        """Charge what was really used and give back the rest.

        Returns:
            What was used beyond the amount held: recorded as overshoot, zero where bounds are right.

        Raises:
            ValueError: the hold was settled or released before.
        """
        if not self.open:
            raise ValueError("a hold is settled once, and this one is closed already")
        return self.ledger._close(self, usage)

    def release(self) -> None:
        """Give back all that was not drawn; nothing happens where it is closed already."""
        if self.open:
            self.ledger._close(self, Usage())

    def park(self, can_progress: Callable[[], bool]) -> None:
        """Say that its call waits for a place elsewhere; `can_progress` tells whether a place can come free."""
        self.ledger._park(self, can_progress)

    def unpark(self) -> None:
        """Say that its call goes on."""
        self.ledger._park(self, None)

    @property
    def blocked(self) -> bool:
        """Whether something inside it waits for room, here or in a limiter, so that it cannot end by itself."""
        return self._paused > 0

    def _mirrors(self) -> Iterator[Hold]:
        hold: Hold | None = self
        while hold is not None:
            yield hold
            hold = hold.mirror


class Ticket:
    """A wait for room. `ready` is called once, on any thread, with a hold or with the refusal."""

    __slots__ = ("at_most", "ledger", "ready", "unit", "within")

    def __init__(
        self, ledger: Ledger, unit: Amount, at_most: int, within: Hold | None, ready: Callable[[object], None]
    ) -> None:
        self.ledger, self.unit, self.at_most, self.within, self.ready = ledger, unit, at_most, within, ready

    def cancel(self) -> None:
        """Wait no longer; nothing happens where it was answered already."""
        self.ledger._cancel(self)


class Ledger:
    """An account with limits. Thread-safe; share one among as many solves as you like.

    Args:
        budget: the limits; None for an account that only counts. Its `seconds` run from the first solve.
        inside: the hold or the ledger of an enclosing solve, which pays for what is spent here.
    """

    def __init__(self, budget: Budget | None = None, *, inside: Hold | Ledger | None = None) -> None:
        self.budget = budget
        self._limits = tuple(None if budget is None else budget.limit(d) for d in DIMENSIONS)
        self._inside = inside if isinstance(inside, Hold) else None
        self._parent = inside.ledger if isinstance(inside, Hold) else inside
        self._root: Ledger = self._parent._root if self._parent is not None else self
        self._lock: threading.RLock = self._root._lock if self._parent is not None else threading.RLock()
        self._queue: dict[Ticket, None] = {}  # of the root only; a dict keeps the order and forgets in O(1)
        self._parked: dict[Hold, Callable[[], bool]] = {}
        self._busy = 0
        self._open = 0
        self._spent = ZERO
        self._held = ZERO
        self._overshoot = ZERO
        self._usage = Usage()
        self._started: float | None = None

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
        return self._root

    @property
    def idle_queue(self) -> bool:
        """Whether nobody waits for room, on this account or those that it shares a root with."""
        return not self._root._queue

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
        """When the `seconds` of the budget end, on the clock of `now`; the first call starts them."""
        if self.budget is None or self.budget.seconds is None:
            return None
        with self._lock:
            if self._started is None:
                self._started = now
        return self._started + self.budget.seconds

    def limits(self, dimension: str) -> bool:
        """Whether this account, or one that pays for it, has a limit on calls, tokens or usd."""
        mine = self.budget is not None and getattr(self.budget, dimension) is not None
        return mine or (self._parent is not None and self._parent.limits(dimension))

    def reserve(self, unit: Amount, *, at_most: int = 1, within: Hold | None = None) -> Hold:
        """Hold up to `at_most` times `unit`, as many as fit now, without waiting.

        Args:
            within: a hold of this ledger to draw from before anything else.

        Raises:
            BudgetExhausted: not even one fits.
        """
        with self._lock:
            count = self._room(unit, at_most, within)
            if count < 1:
                raise self._refusal(unit, within)
            return self._take(unit.times(count), within, count)

    def ask(
        self, unit: Amount, ready: Callable[[object], None], *, at_most: int = 1, within: Hold | None = None
    ) -> Ticket:
        """The same, waiting where it does not fit: `ready` gets the `Hold`, or the `BudgetExhausted`."""
        ticket = Ticket(self, unit, at_most, within, ready)
        with self._lock:
            self._root._queue[ticket] = None
            self._pause(within or self._enclosing(), 1)
            answers = self._pump()
        _deliver(answers)
        return ticket

    def pump(self) -> None:
        """Look at all waits again: for holds that depend on something outside, such as a place in a limiter."""
        with self._lock:
            answers = self._pump()
        _deliver(answers)

    # What follows runs under the lock.

    def _chain(self, within: Hold | None) -> Iterator[tuple[Ledger, Hold | None]]:
        ledger: Ledger | None = self
        while ledger is not None:
            yield ledger, within
            # What is drawn from a hold here is drawn, for whoever pays, from what mirrors that hold there.
            within = ledger._inside if within is None else within.mirror
            ledger = ledger._parent

    def _fit(self, unit: Amount, at_most: int, within: Hold | None) -> int:
        count, drawable = at_most, within.amount if within is not None and within.open else ZERO
        for need, limit, spent, held, own in zip(unit, self._limits, self._spent, self._held, drawable, strict=True):
            if need > 0 and limit is not None:
                count = min(count, (max(limit - spent - held, 0) + own) // need)
        return count

    def _room(self, unit: Amount, at_most: int, within: Hold | None) -> int:
        return min(ledger._fit(unit, at_most, hold) for ledger, hold in self._chain(within))

    def _refusal(self, unit: Amount, within: Hold | None) -> BudgetExhausted:
        ledger = next(x for x, hold in self._chain(within) if x._fit(unit, 1, hold) < 1)
        budget = {} if ledger.budget is None else ledger.budget.to_dict()
        limits = ", ".join(f"{name}={value}" for name, value in budget.items() if name != "seconds")
        return BudgetExhausted(
            f"the budget ({limits}) has no room for a call that may take {unit}: "
            f"{ledger._spent} are spent and {ledger._held} held; raise the limit or lower max_tokens or n"
        )

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

    def _close(self, hold: Hold, usage: Usage) -> Amount:
        used = Amount.used(usage)
        over = used.excess(hold.size)
        with self._lock:
            self._park_quietly(hold, None)
            for h in hold._mirrors():
                ledger, h.open = h.ledger, False
                ledger._held = ledger._held.minus(h.amount)
                ledger._spent = ledger._spent.plus(used)
                ledger._overshoot = ledger._overshoot.plus(over)
                ledger._open -= 1
                ledger._busy -= 0 if h._paused else 1
                if usage != NOTHING:
                    ledger._usage = ledger._usage + usage
            answers = self._pump()
        _deliver(answers)
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
            answers = self._pump() if can_progress is not None else []
        _deliver(answers)

    def _park_quietly(self, hold: Hold, can_progress: Callable[[], bool] | None) -> None:
        if (can_progress is not None) == (hold in self._parked):
            return
        for h in hold._mirrors():
            if can_progress is None:
                del h.ledger._parked[h]
            else:
                h.ledger._parked[h] = can_progress
        self._pause(hold, -1 if can_progress is None else 1)

    def _cancel(self, ticket: Ticket) -> None:
        with self._lock:
            if ticket not in self._root._queue:
                return
            del self._root._queue[ticket]
            self._pause(ticket.within or ticket.ledger._enclosing(), -1)
            answers = self._pump()
        _deliver(answers)

    def _pump(self) -> list[tuple[Ticket, object]]:
        """Answer the waits that can be answered, in order of arrival for each account."""
        root, answers, full = self._root, [], set[Ledger]()
        again = True
        while again:
            again = False
            for ticket in root._queue:  # left at the first answer, which changes it
                answer = ticket.ledger._answer(ticket, full)
                if answer is not None:
                    answers.append((ticket, answer))
                    again, full = True, set()
                    break
                if root in full:
                    break
        return answers

    def _answer(self, ticket: Ticket, full: set[Ledger]) -> object:
        """A hold, a refusal, or None for «wait»; accounts where somebody waits are added to `full`."""
        chain = list(self._chain(ticket.within))
        if any(ledger in full for ledger, _ in chain):
            return None
        answer: object
        count = self._room(ticket.unit, ticket.at_most, ticket.within)
        if count < 1:
            blocker = next(x for x, hold in chain if x._fit(ticket.unit, 1, hold) < 1)
            if blocker._busy > 0 or any(probe() for probe in blocker._parked.values()):
                full.add(blocker)
                return None
            answer = self._refusal(ticket.unit, ticket.within)
        del self._root._queue[ticket]
        self._pause(ticket.within or ticket.ledger._enclosing(), -1)
        if count >= 1:
            answer = self._take(ticket.unit.times(count), ticket.within, count)
        return answer


def _deliver(answers: list[tuple[Ticket, object]]) -> None:
    # Outside the lock: `ready` wakes another event loop or thread, which may come straight back here.
    for ticket, answer in answers:
        ticket.ready(answer)
