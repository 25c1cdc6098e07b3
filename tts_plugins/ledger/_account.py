"""How an account takes, charges and gives back, with all that pay for it, and answers those who wait for room."""

from __future__ import annotations

from tts_plugins._concurrency import forks
from tts_plugins._concurrency.wait_graph import GRAPH, Wait, deliver
from tts_plugins.budget import ZERO, Amount, Budget
from tts_plugins.ledger._balance import Balance
from tts_plugins.ledger._hold import NOTHING, Account, Hold
from tts_plugins.ledger._ticket import Ticket
from tts_plugins.types import Usage


class TreeAccount(Account):
    """One of the accounts that pay for each other; `Ledger` is what others use of it.

    Invariants, under the lock of the wait graph:

    1. What is held is the sum of the amounts of the open holds; what was drawn from a hold is no longer part of its
       amount.
    2. Spent and held are together at most the limit, and the overshoot: what was charged beyond its hold.
    3. Each hold has a mirror in the account that pays for this one, with the same amount, and is closed with it. So 1
       and 2 hold there too, and nothing that is spent inside is free outside. Where an account passes, which is that of
       nearly every solve on a shared ledger, the mirror is the hold itself.

    Why no wait for room lasts for ever is the matter of `_concurrency.wait_graph`, whose resource an account is.
    """

    def __init__(
        self, budget: Budget | None, payer: TreeAccount | None, inside: Hold | None, around: Hold | None
    ) -> None:
        super().__init__()
        self.balance, self.payer, self.inside = Balance(budget), payer, inside
        self._around = inside or around
        self._process: int = forks.pid if payer is None else payer._process
        self.passes = budget is None and payer is not None and inside is None
        self.passing = 0
        self.role: str | None = None

    # All of it runs under the lock of the graph, but for `close`, which takes it.

    def enclosing(self) -> Hold | None:
        """Return the hold that a solve on this account runs inside of."""
        account: Account | None = self
        while isinstance(account, TreeAccount):
            if account._around is not None:
                return account._around
            account = account.payer
        return None

    def serve(self) -> None:
        """Answer the waits that stand here, in order of arrival, as far as there is room."""
        while self.waits:
            ticket = self.waits[0]
            assert isinstance(ticket, Ticket)
            at = ticket.blocker()
            if at is None:
                GRAPH.answer(ticket, ticket.claim.answer())
            elif at is not self:
                GRAPH.move(ticket, at)
            elif not ticket.claim.can_ever_fit():
                self.give_up(ticket)
            else:
                return

    def let_pass(self, wait: Wait) -> bool:
        """Serve the wait before its turn where there is room for it."""
        assert isinstance(wait, Ticket)
        if wait.claim.full() is not None:
            return False
        GRAPH.answer(wait, wait.claim.answer())
        return True

    def give_up(self, wait: Wait) -> None:
        """Refuse the wait."""
        assert isinstance(wait, Ticket)
        GRAPH.answer(wait, wait.claim.refusal())

    def take(self, amount: Amount, within: Hold | None, units: int) -> Hold:
        """Hold an amount for which there is room, here and in the accounts that pay for this one."""
        bearer: Account = self
        while bearer.passes and bearer.payer is not None:
            bearer = bearer.payer
        outer = bearer.inside if within is None else within.mirror
        mirror = None if bearer.payer is None else bearer.payer.take(amount, outer, units)
        fresh = amount
        if within is not None and within.open:
            fresh = amount.excess(within.amount)
            within.amount = within.amount.excess(amount)
        account: Account | None = self
        while account is not None:
            if fresh != ZERO:
                account.balance.hold(fresh)
            account.passing += account.passes
            account = account.payer if account.passes else None
        hold = Hold(self, bearer, amount, within, mirror, units)
        GRAPH.opened(hold)
        return hold

    def close(self, hold: Hold, usage: Usage, *, bounded: bool = True, role: str | None = None) -> Amount | None:
        """Charge a hold and give back the rest; return what went beyond it, None where it is closed already."""
        if self._process != forks.pid:
            return ZERO  # of a call that the parent process makes, and settles
        free = role is None and (usage is NOTHING or usage == NOTHING)
        used = ZERO if free else Amount.used(usage)
        with GRAPH.lock:
            if not hold.open:
                return None
            # What was drawn from it has been held, and is charged, apart: only the rest covers this.
            over = ZERO if free else used.excess(hold.amount)
            over = over if bounded else Amount(over.calls)
            h: Hold | None = hold
            while h is not None:
                account: Account | None = h.ledger
                while account is not None:
                    account.balance.close(h.amount, used, over)
                    if not free:
                        account.balance.add(usage, role)
                        role = account.role or role
                    account.passing -= account.passes
                    account = account.payer if account.passes else None
                if h.within is not None and (h.inside or not free):
                    h.within.charged_inside(h.inside if free else (*h.inside, usage))
                GRAPH.closed(h)
                h = h.mirror
            answers = GRAPH.settle()
        if answers:
            deliver(answers)
        return over
