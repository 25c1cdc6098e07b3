"""Random trees of ledgers, holds and waits: nothing is overspent, nothing stays held, every wait is answered."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tts_plugins._calls.limiter import Limiter
from tts_plugins._calls.places import Place, Places
from tts_plugins._concurrency.wait_graph import GRAPH, Holder, Wait
from tts_plugins.budget import Amount, Budget, Limits
from tts_plugins.errors import BudgetExhausted
from tts_plugins.ledger import Hold, Ledger, Ticket
from tts_plugins.ledger._hold import Account
from tts_plugins.types import Usage

ZERO = Amount()
LIMITER = Limiter(Limits())
amounts = st.builds(Amount, st.integers(0, 3), st.integers(0, 40), st.integers(0, 10**11))
limits = st.fixed_dictionaries(
    {}, optional={"calls": st.integers(1, 12), "tokens": st.integers(1, 200), "usd": st.floats(0.01, 0.5)}
)


def usage_of(amount: Amount) -> Usage:
    part = Usage(
        calls=amount.calls, prompt_tokens=amount.tokens // 3, completion_tokens=amount.tokens - amount.tokens // 3,
        usd=amount.picousd / 1e12,
    )  # fmt: skip
    return Usage(calls=part.calls, prompt_tokens=part.prompt_tokens, completion_tokens=part.completion_tokens,
                 usd=part.usd, by_role={"model": part})  # fmt: skip


def accounts_of(hold: Hold) -> Iterator[Account]:
    """The accounts that a hold is in: those that pass share it with their payer."""
    account: Account | None = hold.ledger
    while account is not None:
        yield account
        account = account.payer if account.passes else None


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ledgers: list[Ledger] = [Ledger(Budget(calls=12, tokens=150))]
        self.holds: list[Hold] = []
        self.waits: dict[Ticket, list[Any]] = {}
        self.settled: dict[Ledger, list[Usage]] = {self.ledgers[0]: []}
        self.parked: list[Hold] = []
        self.servers = [Places(1), Places(2)]
        self.inside: list[Place] = []
        self.entering: dict[Wait, list[Any]] = {}

    def _known(self, hold: Hold) -> Hold:
        self.holds.append(hold)
        return hold

    def _collect(self) -> None:
        for ticket, answers in list(self.waits.items()):
            if answers:
                assert len(answers) == 1
                if isinstance(answers[0], Hold):
                    assert answers[0].size == ticket.claim.need.times(answers[0].units)
                    assert 1 <= answers[0].units <= ticket.claim.at_most
                    self._known(answers[0])
                else:
                    assert isinstance(answers[0], BudgetExhausted)
                del self.waits[ticket]
        for wait, places in list(self.entering.items()):
            if places:
                self.inside.append(places[0])
                del self.entering[wait]

    def _enclosing(self, data: Any, ledger: Ledger) -> Hold | None:
        own = [h for h in self.holds if h.ledger is ledger]
        return data.draw(st.none() | st.sampled_from(own)) if own else None

    @rule(data=st.data(), given=st.none() | limits.filter(bool))
    def open_ledger(self, data: Any, given: dict[str, Any] | None) -> None:
        if len(self.ledgers) > 6:
            return
        inside = data.draw(st.sampled_from([*self.ledgers, *[h for h in self.holds if h.open]]))
        ledger = Ledger(None if given is None else Budget(**given), inside=inside)
        self.ledgers.append(ledger)
        self.settled[ledger] = []

    @rule(data=st.data(), unit=amounts, at_most=st.integers(1, 4))
    def reserve(self, data: Any, unit: Amount, at_most: int) -> None:
        ledger = data.draw(st.sampled_from(self.ledgers))
        within = self._enclosing(data, ledger)
        try:
            hold = self._known(ledger.reserve(unit, at_most=at_most, within=within))
        except BudgetExhausted:
            return
        assert 1 <= hold.units <= at_most

    @rule(data=st.data(), unit=amounts, at_most=st.integers(1, 4))
    def wait(self, data: Any, unit: Amount, at_most: int) -> None:
        ledger, answers = data.draw(st.sampled_from(self.ledgers)), list[Any]()
        within = self._enclosing(data, ledger)
        self.waits[ledger.ask(unit, answers.append, at_most=at_most, within=within)] = answers
        self._collect()

    @precondition(lambda self: any(h.open for h in self.holds))
    @rule(data=st.data(), extra=st.sampled_from([0, 0, 0, 1, 9]))
    def settle(self, data: Any, extra: int) -> None:
        hold = data.draw(st.sampled_from([h for h in self.holds if h.open]))
        share = data.draw(st.integers(0, 4))
        amount, rest = hold.amount, hold.amount
        amount = Amount(amount.calls, amount.tokens * share // 4 + extra, amount.picousd * share // 4)
        over = hold.settle(usage_of(amount))
        assert over == amount.excess(rest)
        self._count(hold.ledger, usage_of(amount))
        self._collect()

    def _count(self, ledger: Ledger | None, usage: Usage) -> None:
        while ledger is not None:
            self.settled[ledger].append(usage)
            ledger = ledger.payer

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def release(self, data: Any) -> None:
        data.draw(st.sampled_from(self.holds)).release()
        self._collect()

    @precondition(lambda self: self.waits)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        ticket = data.draw(st.sampled_from(list(self.waits)))
        ticket.cancel()
        assert not self.waits.pop(ticket)
        self._collect()

    @precondition(lambda self: any(h.open for h in self.holds))
    @rule(data=st.data())
    def park(self, data: Any) -> None:
        hold = data.draw(st.sampled_from([h for h in self.holds if h.open]))
        hold.park()
        self.parked.append(hold)
        self._collect()

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def unpark(self, data: Any) -> None:
        data.draw(st.sampled_from(self.holds)).unpark()
        self._collect()

    @rule(data=st.data(), server=st.integers(0, 1))
    def enter(self, data: Any, server: int) -> None:
        open_ = [h for h in self.holds if h.open and h.place is None]
        hold = data.draw(st.none() | st.sampled_from(open_)) if open_ else None
        outer = data.draw(st.none() | st.sampled_from(self.inside)) if self.inside else None
        place, places = Place(LIMITER, hold, outer), self.servers[server]
        if places.enter_now(place):
            self.inside.append(place)
        else:
            answers: list[Any] = []
            self.entering[places.enter(place, answers.append)] = answers
            self._collect()

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def leave(self, data: Any) -> None:
        self._leave(data.draw(st.sampled_from(self.inside)))

    def _leave(self, place: Place) -> None:
        self.inside.remove(place)
        place.leave()
        self._collect()

    @invariant()
    def never_above_a_limit_but_by_the_overshoot(self) -> None:
        for ledger in self.ledgers:
            taken = ledger.spent.plus(ledger.held)
            for limit, value, over in zip(ledger.balance.limits, taken, ledger.overshoot, strict=True):
                assert limit is None or value <= limit + over

    @invariant()
    def held_is_the_sum_of_the_open_holds(self) -> None:
        for ledger in self.ledgers:
            total, count = ZERO, 0
            for hold in self.holds:
                for mirror in hold.mirrors():
                    if mirror.open and ledger in accounts_of(mirror):
                        assert min(mirror.amount) >= 0
                        total, count = total.plus(mirror.amount), count + 1
            assert (ledger.held, ledger.open_holds) == (total, count)

    @invariant()
    def whoever_waits_waits_for_somebody(self) -> None:
        root = self.ledgers[0]
        assert root.idle_queue == (not self.waits)
        if self.waits or self.entering:
            mirrors = [m for h in self.holds for m in h.mirrors()]
            moving = any(h.open and not h.blocked for h in (*mirrors, *self.inside))
            assert moving, "nothing in flight can end, and still somebody waits"

    @invariant()
    def of_nothing_that_is_waited_for_are_all_holders_dead(self) -> None:
        stuck, dead = GRAPH.dead()
        assert not stuck
        for resource in (*self.ledgers, *self.servers):
            assert not resource.waits or dead[resource] < resource.holders

    @invariant()
    def the_graph_counts_what_there_is(self) -> None:
        places = self.inside
        holders: list[Holder] = [*(m for h in self.holds for m in h.mirrors() if m.open), *places]
        for resource in (*self.ledgers, *self.servers):
            mine = [h for h in holders if h.resource is resource]
            assert resource.holders == len(mine) and resource.moving == sum(not h.blocked for h in mine)
            assert [w.number for w in resource.waits] == sorted(w.number for w in resource.waits)
            assert all(w.at is resource for w in resource.waits)
        assert {w for r in (*self.ledgers, *self.servers) for w in r.waits} == {*self.waits, *self.entering}

    @invariant()
    def usage_adds_up_at_every_level(self) -> None:
        for ledger, parts in self.settled.items():
            total = sum(parts, Usage())
            assert (ledger.usage.calls, ledger.usage.tokens) == (total.calls, total.tokens)
            assert ledger.usage.calls == ledger.spent.calls and ledger.usage.tokens == ledger.spent.tokens
            if parts and total.tokens + total.calls:
                assert ledger.usage.by_role["model"].tokens == total.tokens

    def teardown(self) -> None:
        for _ in range(1000):
            # Only what moves ends by itself; what is parked is taken up again once nothing waits for it.
            open_ = [h for h in self.holds if h.open and not h.blocked]
            places = [p for p in self.inside if not p.blocked]
            if open_:
                open_[0].release()
            elif places:
                self._leave(places[0])
            elif self.parked:
                self.parked.pop().unpark()
            else:
                break
            self._collect()
        assert not self.waits and not self.entering, "a wait was never answered"
        assert not any(h.open for h in self.holds) and not self.inside and not GRAPH.nested
        for ledger in self.ledgers:
            assert ledger.held == ZERO and ledger.open_holds == 0 and ledger.moving == 0 and not ledger.waits


LedgerMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]
)
TestLedgerMachine = LedgerMachine.TestCase


def test_eight_threads_over_a_tree_of_ledgers() -> None:
    root = Ledger(Budget(tokens=3000, calls=500_000))
    shared = Ledger(Budget(tokens=2000), inside=root)
    errors: list[BaseException] = []
    totals: list[int] = []

    def work(seed: int) -> None:
        dice, mine = random.Random(seed), 0
        try:
            for _ in range(2000):
                outer = _wait_for(dice.choice((root, shared)), Amount(2, dice.randrange(1, 400)))
                if outer is None:
                    continue
                nested = Ledger(inside=outer)
                inner = _wait_for(nested, Amount(1, dice.randrange(1, outer.size.tokens + 1)))
                if inner is not None:
                    inner.settle(Usage(calls=1))
                    mine += 1
                outer.release()
            totals.append(mine)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors and not any(t.is_alive() for t in threads)
    assert root.usage.calls == sum(totals) == 16000
    for ledger in (root, shared):
        assert ledger.held == ZERO and ledger.open_holds == 0 and ledger.moving == 0 and ledger.overshoot == ZERO
    assert root.idle_queue


def _wait_for(ledger: Ledger, unit: Amount) -> Hold | None:
    answered, box = threading.Event(), list[Any]()

    def ready(answer: Any) -> None:
        box.append(answer)
        answered.set()

    ledger.ask(unit, ready)
    assert answered.wait(30), "a wait was never answered"
    return box[0] if isinstance(box[0], Hold) else None


def test_eight_threads_never_overspend() -> None:
    root, lock, granted = Ledger(Budget(tokens=50_000)), threading.Lock(), [0]

    def work(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(2000):
            try:
                hold = root.reserve(Amount(0, dice.randrange(1, 30)))
            except BudgetExhausted:
                continue
            spent = hold.size.tokens - dice.randrange(0, hold.size.tokens)
            hold.settle(Usage(completion_tokens=spent))
            with lock:
                granted[0] += spent

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert root.spent.tokens == granted[0] <= 50_000 and root.usage.tokens == granted[0]
    assert 50_000 - root.spent.tokens < 30 and root.held == ZERO
