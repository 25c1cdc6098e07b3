"""Waits for room in an account: whose turn it is, and who has to be refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tts_plugins.budget import Amount
from tts_plugins.ledger._hold import ZERO, Hold

if TYPE_CHECKING:
    from tts_plugins.ledger import Ledger


class Ticket:
    """A wait for room. `ready` is called once, on any thread, with a hold or with the refusal."""

    __slots__ = ("around", "at_most", "ledger", "ready", "unit", "within")

    def __init__(
        self, ledger: Ledger, unit: Amount, at_most: int, within: Hold | None, ready: Callable[[object], None]
    ) -> None:
        self.ledger, self.unit, self.at_most, self.within, self.ready = ledger, unit, at_most, within, ready
        self.around = within or ledger._enclosing()  # what cannot end before this wait does

    def cancel(self) -> None:
        """Wait no longer; nothing happens where it was answered already."""
        self.ledger._cancel(self)


def next_answer(root: Ledger) -> Ticket | None:
    """The first wait that can be granted, else the first that has to be refused; None where all have to wait."""
    full: set[Ledger] = set()  # in a full account somebody waits, and who comes later waits behind
    passer: Ticket | None = None
    stuck: Ticket | None = None
    for ticket in root._queue:
        if root in full and ticket.around is None:
            continue
        chain = list(ticket.ledger._chain(ticket.within))
        blocker = next((x for x, hold in chain if x._fit(ticket.unit, 1, hold) < 1), None)
        if blocker is None:
            # What an enclosing hold covers takes no room from those that came before.
            if not any(x in full and not _covers(hold, ticket.unit) for x, hold in chain):
                return ticket
            passer = passer or (ticket if ticket.around is not None else None)
        elif blocker not in full:
            if hopeless(ticket.ledger, ticket.unit, ticket.within):
                return ticket
            full.add(blocker)
            if not blocker._busy and not any(probe() for probe in blocker._parked.values()):
                stuck = stuck or ticket
    # Rather than a refusal: one that may pass, since its enclosing hold will then end and make room.
    return None if stuck is None else passer or stuck


def hopeless(ledger: Ledger, unit: Amount, within: Hold | None) -> bool:
    """Whether it would not fit either if all that others hold came back."""
    for payer, hold in ledger._chain(within):
        own = hold.amount if hold is not None and hold.open else ZERO
        for need, limit, spent, drawable in zip(unit, payer._limits, payer._spent, own, strict=True):
            if need > 0 and limit is not None and need > max(limit - spent, drawable):
                return True
    return False


def _covers(hold: Hold | None, unit: Amount) -> bool:
    return hold is not None and hold.open and unit.excess(hold.amount) == ZERO


def deliver(answers: list[tuple[Ticket, object]]) -> None:
    # Outside the lock: `ready` wakes another event loop or thread, which may come straight back here.
    failed: Exception | None = None
    for ticket, answer in answers:
        try:
            ticket.ready(answer)
        except Exception as error:  # noqa: BLE001 - raised below; the others have to hear their answers all the same
            failed = failed or error
            if isinstance(answer, Hold):
                answer.release()
    if failed is not None:
        raise failed
