"""What is asked of an account: whether there is room for it, where it has to wait, and how it is answered."""

from __future__ import annotations

from collections.abc import Callable

from tts_plugins._concurrency.wait_graph import Wait
from tts_plugins.budget import ZERO, Amount, Need
from tts_plugins.errors import BudgetExhausted
from tts_plugins.ledger._hold import Account, Hold


class Claim:
    """Room for some units, in an account and in all that pay for it. To be looked at under the graph's lock."""

    __slots__ = ("account", "at_most", "need", "within")

    def __init__(self, account: Account, unit: Amount | Need, at_most: int, within: Hold | None) -> None:
        if at_most < 1:
            raise ValueError(f"at_most={at_most} must be at least 1")
        if within is not None and within.ledger is not account:
            raise ValueError("within= is a hold of another ledger; open a Ledger(inside=hold) to draw on it")
        self.account, self.at_most, self.within = account, at_most, within
        self.need = unit if isinstance(unit, Need) else Need(unit)

    def room(self) -> int:
        """How many units fit now."""
        count = self.at_most
        for account, own in self.account.chain(self.within):
            count = account.balance.fit(self.need, count, own)
        return count

    def full(self) -> Account | None:
        """The first account without room for a single unit."""
        chain = self.account.chain(self.within)
        return next((account for account, own in chain if account.balance.fit(self.need, 1, own) < 1), None)

    def can_ever_fit(self) -> bool:
        """Whether a unit would fit if all that others hold came back."""
        one = self.need.times(1)
        return all(account.balance.can_ever_fit(one, own) for account, own in self.account.chain(self.within))

    def answer(self) -> Hold | BudgetExhausted:
        """Hold what fits, or say why nothing does."""
        count = self.room()
        return self.refusal() if count < 1 else self.account.take(self.need.times(count), self.within, count)

    def refusal(self) -> BudgetExhausted:
        """Why not even one unit fits."""
        account, one = self.full() or self.account, self.need.times(1)
        balance = account.balance
        uses = ((balance.spent, "spent"), (balance.held, "held"))
        if taken := [f"{amount} {what}" for amount, what in uses if any(amount)]:
            why = f"has no room for a call that may take {one}: of it are {' and '.join(taken)}"
        else:
            why = f"is too small for a single call, which may take {one} (prompt, max_tokens and verification)"
        refusal = BudgetExhausted(f"the budget ({balance.named}) {why}; raise the limit or lower max_tokens or n")
        refusal.ledger = account
        return refusal


class Ticket(Wait):
    """A wait for room. `ready` is called once, on any thread, with a hold or with the refusal."""

    __slots__ = ("claim",)

    def __init__(self, claim: Claim, around: Hold | None, ready: Callable[[object], None]) -> None:
        around = around or claim.within or claim.account.enclosing()
        super().__init__(ready, () if around is None else around.enclosers())
        self.claim = claim

    def blocker(self) -> Account | None:
        """Where it has to wait: at an account without room, or behind who came before; None where it need not."""
        if (full := self.claim.full()) is not None:
            return full
        one: Amount | None = None
        for account, own in self.claim.account.chain(self.claim.within):
            if account.waits and account.waits[0].number < self.number:
                # What an enclosing hold covers takes no room from those that came before.
                one = one or self.claim.need.times(1)
                if one.excess(own) != ZERO:
                    return account
        return None
