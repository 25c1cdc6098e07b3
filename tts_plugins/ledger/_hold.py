"""What is reserved in an account, and what it asks of that account."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tts_plugins._concurrency.wait_graph import GRAPH, Holder, Resource, deliver
from tts_plugins.budget import ZERO, Amount
from tts_plugins.ledger._balance import Balance
from tts_plugins.types import Usage

NOTHING = Usage()


class Account(Resource):
    """An account as its holds and waits see it.

    Attributes:
        balance: its figures.
        payer: the account that pays for it, if there is one.
        inside: the hold there that it draws from.
        role: what all that is spent here is for whoever pays; None where the usages say so.
        passes: it only counts, without limits and without a hold that it draws from, so that a hold of this account is
            one of its payer, too.
        passing: its open holds of that kind.
    """

    balance: Balance
    payer: Account | None
    inside: Hold | None
    role: str | None
    passes: bool
    passing: int

    def close(self, hold: Hold, usage: Usage, *, bounded: bool = True, role: str | None = None) -> Amount | None:
        """Charge a hold and give back the rest; return what went beyond it, None where it is closed already."""
        raise NotImplementedError

    def take(self, amount: Amount, within: Hold | None, units: int) -> Hold:
        """Hold an amount for which there is room, here and in the accounts that pay for this one."""
        raise NotImplementedError

    def enclosing(self) -> Hold | None:
        """Return the hold that a solve on this account runs inside of."""
        raise NotImplementedError

    def chain(self, within: Hold | None) -> list[tuple[Account, Amount]]:
        """Return this account and all that pay for it, with what may be drawn there of a hold that encloses."""
        account: Account | None = self
        found = list[tuple[Account, Amount]]()
        while account is not None:
            found.append((account, ZERO if within is None or not within.open else within.amount))
            # What is drawn from a hold here is drawn from its mirror in each account that pays.
            if not account.passes:
                within = account.inside if within is None else within.mirror
            account = account.payer
        return found


class Hold(Holder):
    """A reserved amount, settled once. What is drawn inside it no longer counts as its own.

    Its resource, for whose room others wait, is the `bearer`: the first account at or above its own that does not pass.
    """

    __slots__ = ("amount", "inside", "ledger", "mirror", "place", "size", "units", "within")

    def __init__(
        self, account: Account, bearer: Account, amount: Amount, within: Hold | None, mirror: Hold | None, units: int
    ) -> None:
        self.ledger, self.resource = account, bearer
        self.size = amount
        self.amount = amount
        self.within = within
        self.mirror = mirror
        self.units = units
        self.open = True
        self.blocked = 0
        self.inside: Sequence[Usage] = ()  # what was charged for what was drawn from it
        self.place: Holder | None = None  # where its call has one at its server

    def settle(self, usage: Usage, *, bounded: bool = True, role: str | None = None) -> Amount:
        """Charge what was really used and give back the rest.

        Args:
            usage: what the calls took.
            bounded: whether the amount was the most that it can take; without `max_tokens` that is so of calls alone.
            role: what the calls were for, where the usage does not say so by role.

        Returns:
            What was used beyond the amount held: recorded as overshoot, zero where bounds are right.

        Raises:
            ValueError: the hold was settled or released before.
        """
        over = self.ledger.close(self, usage, bounded=bounded, role=role)
        if over is None:
            raise ValueError("a hold is settled once, and this one is closed already")
        return over

    def charged_inside(self, usages: Sequence[Usage]) -> None:
        """Note what was charged for what was drawn from it."""
        if not isinstance(self.inside, list):  # most have nothing inside, and no list either
            self.inside = []
        self.inside.extend(usages)

    def release(self) -> None:
        """Give back all that was not drawn; nothing happens where it is closed already."""
        if self.open:
            self.ledger.close(self, NOTHING)

    def park(self, wait: object = None) -> None:
        """Say that it is kept for later, so that nobody waits for it to end.

        Args:
            wait: what it waits for, where it goes on after that; what it is inside of goes on all the same. Several
                things of one call may wait at once.
        """
        with GRAPH.lock:
            if self.open:
                GRAPH.rest(wait or self, self.mirrors() if wait else self.enclosers())
            answers = GRAPH.settle()
        deliver(answers)

    def unpark(self, wait: object = None) -> None:
        """Say that its call goes on, as far as that waits for nothing else."""
        with GRAPH.lock:
            GRAPH.stir(wait or self)
            answers = GRAPH.settle()
        deliver(answers)

    def mirrors(self) -> Iterator[Hold]:
        """Yield it, and the same amount in each account that pays for its own, unless that is the same hold."""
        hold: Hold | None = self
        while hold is not None:
            yield hold
            hold = hold.mirror

    def enclosers(self) -> Iterator[Holder]:
        """Yield what cannot end before something inside it does: it, what it is drawn from, and their places."""
        hold: Hold | None = self
        while hold is not None:
            for each in hold.mirrors():
                yield each
                if each.place is not None:
                    yield each.place
            hold = hold.within or hold.ledger.enclosing()
